"""Rules that transform the neighbourhood's vectors and pass them to another rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import declare
from ross_flwr.learning.rules.averages import Mean
from ross_flwr.learning.rules.rule import Bounded, Rule, View
from ross_flwr.learning.rules.stacks import average, mean_of, squared_distances

__all__ = ["NNM", "PRE_AGGREGATIONS", "Bucketing"]

BUCKET = 2
"""The number of vectors in a bucket."""


@dataclass(frozen=True, kw_only=True)
class PreAggregation(Rule):
    """A rule around another rule."""

    rule: Rule = field(default_factory=Mean)

    @property
    def needs_validation(self) -> bool:
        """Whatever the inner rule needs."""
        return self.rule.needs_validation


@dataclass(frozen=True, kw_only=True)
class Bucketing(PreAggregation):
    """Average pairs of neighbours drawn at random, so that honest vectors differ less; an odd one stays alone.

    Karimireddy, He and Jaggi, "Byzantine-robust learning on heterogeneous datasets via bucketing", ICLR 2022, with s =
    2, for the neighbours; the own vector, which does not lie, stays separate. Half as many vectors remain, of which up
    to f are still poisoned. A bucket has the weight of its members, and lies if one of them does.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([4.0])}
    >>> Bucketing()(torch.tensor([1.0]), others, View(weights={2: 0.25, 3: 0.25}))
    tensor([2.])
    """

    name = "bucketing"

    def __call__(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Tensor:
        """Fill the buckets; each is named by its first member."""
        order = view.generator().permutation(list(others)).tolist()
        buckets = [order[start : start + BUCKET] for start in range(0, len(order), BUCKET)]
        return self.rule(
            own,
            {bucket[0]: average([others[j] for j in bucket]) for bucket in buckets},
            replace(view, weights={bucket[0]: sum(view.weights[j] for j in bucket) for bucket in buckets}),
        )

    def obstacle(self, m: int) -> str:
        """Ask the inner rule about the own vector and the buckets."""
        problem = self.rule.obstacle(1 + ceil((m - 1) / BUCKET))
        return f"{problem} after bucketing" if problem else ""


@dataclass(frozen=True, kw_only=True)
class NNM(Bounded, PreAggregation):
    """Replace every vector by the mean of the m − f nearest to it, itself included (nearest-neighbour mixing).

    Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing by mixing", AISTATS 2023: m ≥ 2f + 1. With f = 0
    every vector is the plain mean.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> NNM(byzantine=1)(torch.tensor([1.0]), others, View(weights={2: 0.25, 3: 0.25}))
    tensor([113.8750])
    """

    name = "nnm"

    def __call__(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Tensor:
        """Mix."""
        if not others or not self.outvotes(len(others) + 1) or not own.isfinite().all():
            return own.clone()
        vectors = torch.stack([own, *others.values()])
        kept = len(vectors) - self.byzantine
        nearest = np.argsort(squared_distances(vectors), axis=1, kind="stable")[:, :kept]
        mixed = [mean_of(vectors, row) for row in nearest]
        return self.rule(mixed[0], dict(zip(others, mixed[1:], strict=True)), view)

    def obstacle(self, m: int) -> str:
        """Ask the inner rule as well."""
        return super().obstacle(m) or self.rule.obstacle(m)


PRE_AGGREGATIONS: dict[str, type[PreAggregation] | None] = {"none": None, "bucketing": Bucketing, "nnm": NNM}

declare("pre-aggregation=nnm", NNM)
