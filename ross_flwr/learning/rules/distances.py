"""Rules that choose vectors by their distances. All treat the own vector like the others, and ignore W."""

from itertools import chain, combinations
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.learning.rules.coordinates import Median
from ross_flwr.learning.rules.rule import Stacked, register_rule
from ross_flwr.learning.rules.stacks import mean_of, squared_distances

__all__ = ["MDA", "Bulyan", "Krum", "MultiKrum"]

SUBSETS = 100_000
"""The most subsets that `MDA` examines."""


@register_rule("krum")
class Krum(Stacked):
    """Take the vector that is nearest, in sum of squares, to its m − f − 2 nearest others.

    argmin_k Σ_{j ∈ near(k)} |x_k − x_j|² with near(k) the m − f − 2 nearest to x_k among the others. Blanchard, El
    Mhamdi, Guerraoui and Stainer, "Machine learning with adversaries", NeurIPS 2017: m ≥ 2f + 3. With fewer
    than three vectors there is nothing to compare, and the agent keeps its own.

    Examples
    --------
    >>> from ross_flwr.learning.rules import View
    >>> others = {j: torch.tensor([value]) for j, value in enumerate([1.5, 2.0, 2.5, 900.0])}
    >>> Krum(byzantine=1)(torch.tensor([1.0]), others, View(weights=dict.fromkeys(others, 0.2)))
    tensor([1.5000])
    """

    least = (2, 3)

    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the best vector."""
        return vectors[krum_order(vectors, self.faced(len(vectors)))[0] if len(vectors) > 2 else 0].clone()


@register_rule("multi-krum")
class MultiKrum(Stacked):
    """Average the m − f vectors with the best Krum scores.

    Blanchard et al., NeurIPS 2017: m ≥ 2f + 3. With f = 0 the plain mean.

    Examples
    --------
    >>> from ross_flwr.learning.rules import View
    >>> others = {j: torch.tensor([value]) for j, value in enumerate([1.5, 2.0, 2.5, 900.0])}
    >>> MultiKrum(byzantine=1)(torch.tensor([1.0]), others, View(weights=dict.fromkeys(others, 0.2)))
    tensor([1.7500])
    """

    least = (2, 3)

    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the mean of the best."""
        if len(vectors) < 3:
            return vectors[0].clone()
        order = krum_order(vectors, self.faced(len(vectors)))
        return mean_of(vectors, order[: len(vectors) - self.byzantine])


@register_rule("bulyan")
class Bulyan(Stacked):
    """Pick m − 2f vectors one by one with Krum; in every coordinate, average the m − 4f nearest to their median.

    El Mhamdi, Guerraoui and Rouault, "The hidden vulnerability of distributed learning in Byzantium", ICML 2018:
    m ≥ 4f + 3. The last picks are from fewer than 2f + 3 vectors; there Krum assumes the largest f that it can face.
    Of 4f vectors or fewer nothing is left, and the agent keeps its own. With f = 0 the plain mean.

    Examples
    --------
    >>> from ross_flwr.learning.rules import View
    >>> others = {j: torch.tensor([value]) for j, value in enumerate([1.0, 2.0, 2.0, 3.0, 3.0, 900.0])}
    >>> Bulyan(byzantine=1)(torch.tensor([2.0]), others, View(weights=dict.fromkeys(others, 0.1)))
    tensor([2.])
    """

    least = (4, 3)

    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the mean of what is near the median of the picked."""
        f, left, chosen = self.byzantine, list(vectors), []
        if len(left) <= 4 * f:
            return vectors[0].clone()
        krum = Krum(byzantine=f)
        while len(left) > 2 * f:
            best = int(krum_order(torch.stack(left), krum.faced(len(left)))[0])
            chosen.append(left.pop(best))
        picked = torch.stack(chosen)
        order = (picked - Median().aggregate(picked)).abs().argsort(dim=0, stable=True)
        return picked.gather(0, order[: len(picked) - 2 * f]).mean(0)


@register_rule("mda")
class MDA(Stacked):
    """Average the m − f vectors with the smallest diameter (minimum-diameter averaging).

    argmin_{|S| = m − f} max_{j, k ∈ S} |x_j − x_k|. El Mhamdi, Guerraoui and Rouault, ICML 2018: m ≥ 2f + 1. With f = 0
    the plain mean. Examines all C(m, f) subsets; of equally good ones it takes the first in lexicographic order.

    Examples
    --------
    >>> from ross_flwr.learning.rules import View
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> MDA(byzantine=1)(torch.tensor([1.0]), others, View(weights={2: 0.3, 3: 0.3}))
    tensor([1.5000])
    """

    def obstacle(self, m: int) -> str:
        """Compare the number of subsets with `SUBSETS` as well."""
        if comb(m, self.byzantine) > SUBSETS:
            return f"mda would look at {comb(m, self.byzantine)} subsets of {m} vectors, more than {SUBSETS}"
        return super().obstacle(m)

    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the mean of the closest subset."""
        m = len(vectors)
        kept = m - self.byzantine
        chosen = np.fromiter(chain.from_iterable(combinations(range(m), kept)), dtype=np.int64).reshape(-1, kept)
        member = np.zeros((m, len(chosen)), dtype=bool)
        member[chosen.T, np.arange(len(chosen))] = True
        distances = squared_distances(vectors)
        best = np.ones(len(chosen), dtype=bool)
        # From the longest distance down, drop the subsets that contain both ends, as long as one subset is left.
        for distance in np.unique(distances)[::-1]:
            survivors = best.copy()
            for j, k in np.argwhere(np.triu(distances == distance, 1)):
                survivors &= ~(member[j] & member[k])
            if not survivors.any():
                break
            best = survivors
        return mean_of(vectors, chosen[best.argmax()])


def krum_order(vectors: Tensor, f: int) -> NDArray[np.int64]:
    """Return the rows from the best Krum score on."""
    nearest = np.sort(squared_distances(vectors), axis=1)[:, 1 : len(vectors) - f - 1]
    order: NDArray[np.int64] = np.argsort(nearest.sum(axis=1), kind="stable")
    return order
