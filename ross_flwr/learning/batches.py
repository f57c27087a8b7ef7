"""The mini-batches of one agent."""

from typing import Protocol

import torch
from torch import Tensor

from ross_flwr.learning.objective import Batch
from ross_flwr.learning.streams import stream

__all__ = ["Batches"]


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
        self.size = min(size, examples.num_examples)
        self._examples = examples
        self._agent = agent
        self._seed = seed
        self._taken: tuple[int, Batch] | None = None
        self._order: tuple[int, Tensor] | None = None

    def take(self, number: int) -> Batch:
        """Return batch `number`, counted from 0."""
        if self._taken is None or self._taken[0] != number:
            epoch, position = divmod(number, self._examples.num_examples // self.size)
            if self._order is None or self._order[0] != epoch:
                order = stream(self._seed, "batches", self._agent, epoch).permutation(self._examples.num_examples)
                self._order = epoch, torch.from_numpy(order)
            start = position * self.size
            self._taken = number, self._examples.batch(self._order[1][start : start + self.size])
        return self._taken[1]
