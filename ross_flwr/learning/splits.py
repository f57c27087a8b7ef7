"""Training data that is put together from other data."""

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.learning.examples import Batch, Split
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.tensors import map_tensors

__all__ = ["Joined", "Whole", "trained_on"]


class Whole:
    """A batch as a split."""

    def __init__(self, examples: Batch) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return self.num_examples

    @property
    def num_examples(self) -> int:
        """How many there are."""
        return len(self.examples)

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, int64 of shape [B]."""
        return self.examples.take(indices)


class Joined:
    """Several splits, one after the other."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self.splits = splits
        self._ends = torch.tensor([len(split) for split in splits]).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, int64 of shape [B], those of the first split first."""
        where = torch.bucketize(indices, self._ends, right=True)
        parts = [
            split.batch(indices[where == k] - (int(self._ends[k]) - len(split)))
            for k, split in enumerate(self.splits)
            if (where == k).any()
        ]
        if len(parts) == 1:
            return parts[0]
        inputs, targets = zip(*((part.inputs, part.targets) for part in parts), strict=True)
        groups = [part.groups for part in parts if part.groups is not None]
        return Batch(map_tensors(_cat, *inputs), map_tensors(_cat, *targets), _cat(*groups) if groups else None)


def trained_on(objective: ModuleObjective, *, own: bool) -> ModuleObjective:
    """Return the same objective that trains on Q as well as on its `own` data, or on Q alone.

    Raises
    ------
    ConfigError
        When the agent has no validation set, or the app's own training would not see it.
    """
    if objective.trainer:
        raise ConfigError("this app trains its model itself, and not on Q_i: use use-validation = false")
    other, held_out = copy(objective), Whole(objective.validation)
    other.train_data = Joined([objective.train_data, held_out]) if own else held_out
    return other


def _cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts)
