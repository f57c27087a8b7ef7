"""Rules that treat every coordinate separately. All ignore W."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ross_flwr.learning.rules.rule import Bounded, Stacked, View, register_rule
from ross_flwr.learning.rules.stacks import average, middle, ordered

__all__ = ["MeaMed", "Median", "TrimmedMean", "TrimmedNeighbors"]


@register_rule("median")
class Median(Stacked):
    """Take the median of every coordinate; of an even number the mean of the middle two.

    Yin, Chen, Ramchandran and Bartlett, "Byzantine-robust distributed learning: towards optimal statistical rates",
    ICML 2018: m ≥ 2f + 1. With f = 0 too it holds against fewer than m/2 liars.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> Median()(torch.tensor([1.0]), others, View(weights={2: 0.3, 3: 0.3}))
    tensor([2.])
    """

    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the median."""
        return middle(ordered(vectors))


@register_rule("trimmed-mean")
class TrimmedMean(Stacked):
    """Drop the f largest and the f smallest of every coordinate and average the m − 2f others.

    Yin et al., ICML 2018: m ≥ 2f + 1. With f = 0 the plain mean, with 2f = m − 1 the median.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> TrimmedMean(byzantine=1)(torch.tensor([1.0]), others, View(weights={2: 0.3, 3: 0.3}))
    tensor([2.])
    """

    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the mean of what is left."""
        return trimmed_mean(vectors, self.byzantine)


@register_rule("bridge")
class TrimmedNeighbors(Bounded):
    """Drop the f largest and f smallest of the neighbours' values in every coordinate; average the rest and the own.

    BRIDGE-T of Fang, Yang and Bajwa, "BRIDGE: Byzantine-resilient decentralized gradient descent", IEEE TSIPN 2022:
    2f + 1 neighbours. When fewer were heard the own vector stays. With f = 0 the plain mean.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0]), 4: torch.tensor([-900.0])}
    >>> TrimmedNeighbors(byzantine=1)(torch.tensor([1.0]), others, View(weights=dict.fromkeys(others, 0.25)))
    tensor([1.5000])
    """

    least = (2, 2)

    def __call__(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Tensor:
        """Trim the others."""
        kept = len(others) - 2 * self.byzantine
        if kept <= 0:
            return own.clone()
        trimmed = trimmed_mean(torch.stack([*others.values()]), self.byzantine)
        return trimmed.mul_(kept).add_(own).div_(kept + 1)


@register_rule("meamed")
class MeaMed(Stacked):
    """Average, in every coordinate, the m − f values nearest to the median (mean around the median).

    Xie, Koyejo and Gupta, "Generalized Byzantine-tolerant SGD", 2018: m ≥ 2f + 1. With f = 0 the plain mean. Of two
    values equally far from the median, the smaller stays.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> MeaMed(byzantine=1)(torch.tensor([1.0]), others, View(weights={2: 0.3, 3: 0.3}))
    tensor([1.5000])
    """

    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the mean of what is near."""
        rows, f = ordered(vectors), self.byzantine
        centre, kept = middle(rows), len(rows) - f
        # In order, the values to keep are consecutive: they include exactly one of the j-th and the (j + m − f)-th.
        ends = [torch.where(rows[j + kept] - centre < centre - rows[j], rows[j + kept], rows[j]) for j in range(f)]
        return average([*ends, *rows[f:kept]])


def trimmed_mean(vectors: Tensor, f: int) -> Tensor:
    """Return the mean of every coordinate's values, except the f largest and the f smallest."""
    rows = ordered(vectors)
    return average(rows[f : len(rows) - f])
