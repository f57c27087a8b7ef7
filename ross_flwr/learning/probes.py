"""Models that differ by steps along a few directions."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Probes", "after_steps"]


@dataclass(frozen=True, eq=False)
class Probes:
    """The models x + Σ_j c_kj d_j, k = 0 … K − 1. Iterating makes one at a time.

    Attributes
    ----------
    model : Tensor
        x, shape [P].
    directions : sequence of Tensor
        d_1 … d_m, shape [P] each.
    coefficients : Tensor
        c, shape [K, m].
    """

    model: Tensor
    directions: Sequence[Tensor]
    coefficients: Tensor

    def __len__(self) -> int:
        return len(self.coefficients)

    def __iter__(self) -> Iterator[Tensor]:
        for row in self.coefficients.tolist():
            probe = self.model.clone()
            for coefficient, direction in zip(row, self.directions, strict=True):
                if coefficient:
                    probe.add_(direction, alpha=coefficient)
            yield probe

    @property
    def entries(self) -> int:
        """The numbers that `stacked` copies."""
        return (len(self.directions) + 1) * len(self.model)

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Return coefficients [K, m + 1] and vectors [m + 1, P] whose product are the probes."""
        ones = self.coefficients.new_ones(len(self), 1)
        return torch.cat([ones, self.coefficients], 1), torch.stack([self.model, *self.directions])


def after_steps(
    model: Tensor, gradients: Sequence[Tensor], learning_rate: float, coalitions: Iterable[tuple[int, ...]]
) -> Probes:
    """Return `model` after a step along the mean gradient of each coalition: x − η/|S| Σ_{j∈S} g_j.

    Examples
    --------
    >>> gradients = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    >>> list(after_steps(torch.zeros(2), gradients, 0.5, [(), (0, 1)]))
    [tensor([0., 0.]), tensor([-0.2500, -0.2500])]
    """
    players = range(len(gradients))
    rows = [[-learning_rate / len(each) if j in each else 0.0 for j in players] for each in coalitions]
    return Probes(model, gradients, model.new_tensor(rows))
