"""Examples: a batch of them, and what batches are taken from."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ross_flwr.learning.tensors import Tree, leaves, map_tensors

__all__ = ["Batch", "Split"]


@dataclass(frozen=True)
class Batch:
    """B examples.

    Attributes
    ----------
    inputs, targets : Tree
        A tensor of shape [B, ...] each, or tuples, lists and dictionaries of such tensors. The module gets the inputs
        as its one argument, or by keyword (`outputs.call`).
    groups : Tensor, optional
        Where targets are not classes, the group of each example, int64 of shape [B]: its source, or the quantile that
        its target lies in.
    """

    inputs: Tree
    targets: Tree
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(next(leaves(self.inputs)))

    @property
    def labels(self) -> Tensor | None:
        """The groups or else the targets, int64 of shape [B], if each target is a single class."""
        if self.groups is not None:
            return self.groups
        targets = self.targets
        single = isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point()
        return targets if single else None

    def take(self, indices: Tensor) -> "Batch":
        """Return the examples at `indices`, int64 or bool of shape [B]."""

        def chosen(tensor: Tensor) -> Tensor:
            return tensor[indices.to(tensor.device)]

        groups = None if self.groups is None else chosen(self.groups)
        return Batch(map_tensors(chosen, self.inputs), map_tensors(chosen, self.targets), groups)

    def parts(self, size: int) -> list["Batch"]:
        """Return the examples in batches of `size` at most."""
        if len(self) <= size:
            return [self]
        return [self.take(indices) for indices in torch.split(torch.arange(len(self)), size)]


class Split(Protocol):
    """Examples that can be taken by index, ready for the model."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, int64 of shape [B]."""
