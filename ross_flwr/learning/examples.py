"""Examples: a batch of them, and what batches are taken from."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ross_flwr.learning.tensors import Tree, leaves, map_tensors

__all__ = ["Batch", "Drawn", "Pooled", "Split", "alike", "stacked"]


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


class Pooled(Split, Protocol):
    """A split whose examples lie in a pool with those of other splits, so that batches of several are read at once."""

    @property
    def pool(self) -> Hashable:
        """The pool; equal for splits of the same one."""

    def places(self, indices: Tensor) -> Tensor:
        """Return where in the pool the examples at `indices` are."""

    def at(self, places: Tensor) -> Batch:
        """Return the examples at these `places` in the pool."""


class Drawn(Batch):
    """Some examples of a split, int64 `indices` of shape [B], that are read when they are first looked at."""

    split: Any
    indices: Tensor

    def __init__(self, split: Split, indices: Tensor) -> None:
        object.__setattr__(self, "split", split)
        object.__setattr__(self, "indices", indices)

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def _read(self) -> Batch:
        if not torch.is_inference_mode_enabled():
            return cast(Batch, self.split.batch(self.indices))
        with torch.inference_mode(False):  # whoever looks first, others train on them
            return cast(Batch, self.split.batch(self.indices))

    @property
    def inputs(self) -> Tree:
        """The inputs."""
        return self._read.inputs

    @property
    def targets(self) -> Tree:
        """The targets."""
        return self._read.targets

    @property
    def groups(self) -> Tensor | None:
        """The groups."""
        return self._read.groups

    @property
    def pool(self) -> Hashable:
        """The pool of the split, if it has one."""
        return getattr(self.split, "pool", None)


def alike(batch: Batch) -> Hashable | None:
    """Return what batches have in common that `stacked` takes together; None where they are not tensors."""
    if isinstance(batch, Drawn) and batch.pool:
        return batch.pool, len(batch)
    if not (isinstance(batch.inputs, Tensor) and isinstance(batch.targets, Tensor)):
        return None
    return tuple((each.shape, each.dtype) for each in (batch.inputs, batch.targets))


def stacked(batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of K batches that are `alike`, shape [K, B, ...] each."""
    drawn = [each for each in batches if isinstance(each, Drawn) and each.pool]
    if len(drawn) == len(batches):
        read = drawn[0].split.at(torch.cat([each.split.places(each.indices) for each in drawn]))
        inputs, targets = (part.view(len(batches), -1, *part.shape[1:]) for part in (read.inputs, read.targets))
        return inputs, targets
    return torch.stack([each.inputs for each in batches]), torch.stack([each.targets for each in batches])
