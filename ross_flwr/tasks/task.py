"""What agents learn: the interface between a run and its model and data."""

from typing import Any, Protocol

from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import Objective

__all__ = ["Task"]


class Task(Protocol):
    """A model, and every agent's share of the data.

    A class need not inherit from this one. Every node must make the same task: two nodes that make it from the same
    arguments agree on the model's layout and on each agent's objective.

    Examples
    --------
    >>> from ross_flwr import tasks
    >>> task: Task = tasks.images("digits", hidden=8)(4, 0)
    >>> task.model.size, task.batch_size(0)
    (610, 32)
    """

    @property
    def model(self) -> FlatModel:
        """The module that all agents of this process compute with, and the model that each starts from."""

    def batch_size(self, agent: int) -> int:
        """Return how many examples a mini-batch of `agent` has; an agent with fewer examples takes all of them."""

    def objective(self, agent: int) -> Objective:
        """Return the loss of `agent` on its own data."""

    def describe(self) -> dict[str, Any]:
        """Return what the summary of a run says of the task, as JSON."""
