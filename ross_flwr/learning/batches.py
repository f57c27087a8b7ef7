"""The mini-batches of one agent."""

from typing import Protocol

import torch
from torch import Tensor

from ross_flwr.learning.examples import Batch
from ross_flwr.learning.objective import Objective
from ross_flwr.learning.streams import stream

__all__ = ["Batches", "Portions"]


class Examples(Protocol):
    """What mini-batches are taken from: an agent's objective, or a split."""

    @property
    def num_examples(self) -> int:
        """How many there are."""

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, shape [B]."""


class Batches:
    """An endless sequence of shuffled runs through an agent's data.

    Each run has its own random stream, so batch t does not depend on a record of the batches before it.

    Parameters
    ----------
    examples : Examples
        The agent's data.
    agent, seed : int
        The agent, and the run's seed.
    size : int
        Examples in a batch; an agent with fewer examples takes all of them.
    """

    def __init__(self, examples: Examples, agent: int, seed: int, size: int) -> None:
        self._num_examples = examples.num_examples
        self.size = min(size, self._num_examples)
        self._examples = examples
        self._agent = agent
        self._seed = seed
        self._taken: tuple[int, Batch] | None = None
        self._order: tuple[int, Tensor] | None = None

    def take(self, number: int) -> Batch:
        """Return batch `number`, counted from 0."""
        if self._taken is None or self._taken[0] != number:
            self._taken = number, self._examples.batch(self.indices(number))
        return self._taken[1]

    def indices(self, number: int) -> Tensor:
        """Return the indices of the examples in batch `number`, int64 of shape [size]."""
        epoch, position = divmod(number, self._num_examples // self.size)
        if self._order is None or self._order[0] != epoch:
            order = stream(self._seed, "batches", self._agent, epoch).permutation(self._num_examples)
            self._order = epoch, torch.from_numpy(order)
        start = position * self.size
        return self._order[1][start : start + self.size]


class Portions:
    """The examples of its validation set Q that an agent looks at in a pass: all, or a mini-batch.

    Where targets are classes, a mini-batch has equally many examples of each class, as long as Q has enough of them.

    Parameters
    ----------
    objective : Objective
        The agent's objective, which has Q.
    agent, seed : int
        The agent, and the run's seed.
    size : int
        Examples in a mini-batch; 0 for all of Q.
    """

    def __init__(self, objective: Objective, agent: int, seed: int, size: int) -> None:
        self.size = size
        self._objective = objective
        self._agent = agent
        self._seed = seed
        self._taken: tuple[int, Batch] | None = None
        self._order: tuple[int, Tensor] | None = None

    def take(self, number: int) -> Batch:
        """Return the examples of pass `number`, counted from 0."""
        validation = self._objective.validation
        if not 0 < self.size < len(validation):
            return validation
        if self._taken is None or self._taken[0] != number:
            epoch, position = divmod(number, len(validation) // self.size)
            if self._order is None or self._order[0] != epoch:
                self._order = epoch, self._shuffled(validation, epoch)
            chosen = self._order[1][position * self.size : (position + 1) * self.size]
            self._taken = number, validation.take(chosen)
        return self._taken[1]

    def _shuffled(self, validation: Batch, epoch: int) -> Tensor:
        """Return the shuffled indices of Q; of classes, first one example of each, then a second of each, and so on."""
        drawn = stream(self._seed, "validation batches", self._agent, epoch).permutation(len(validation))
        shuffled = torch.from_numpy(drawn)
        if validation.labels is None:
            return shuffled
        labels = validation.labels.cpu()[shuffled]
        turns = (labels[:, None] == labels).tril().sum(1)
        return shuffled[turns.argsort(stable=True)]
