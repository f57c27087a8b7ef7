"""The mini-batches of one agent."""

import torch
from torch import Tensor

from ross_flwr.learning.objective import Batch, Objective
from ross_flwr.learning.streams import stream

__all__ = ["Batches"]


class Batches:
    """An endless sequence of shuffled runs through an agent's data.

    Each run has its own random stream, so batch t does not depend on a record of the batches before it.

    Parameters
    ----------
    objective : Objective
        The agent's loss, on its own data.
    agent, seed : int
        The agent, and the run's seed.
    size : int
        Examples in a batch; an agent with fewer examples takes all of them.
    """

    def __init__(self, objective: Objective, agent: int, seed: int, size: int) -> None:
        self.size = min(size, objective.num_examples)
        self._objective = objective
        self._agent = agent
        self._seed = seed
        self._taken: tuple[int, Batch] | None = None
        self._order: tuple[int, Tensor] | None = None

    def take(self, number: int) -> Batch:
        """Return batch `number`, counted from 0."""
        if self._taken is None or self._taken[0] != number:
            epoch, position = divmod(number, self._objective.num_examples // self.size)
            if self._order is None or self._order[0] != epoch:
                order = stream(self._seed, "batches", self._agent, epoch).permutation(self._objective.num_examples)
                self._order = epoch, torch.from_numpy(order)
            start = position * self.size
            self._taken = number, self._objective.batch(self._order[1][start : start + self.size])
        return self._taken[1]
