"""What methods that screen their neighbours' models share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.algorithms.algorithm import Algorithm, step
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.config import ConfigError, option
from ross_flwr.learning.agent import Agent

__all__ = ["LossScreening", "ModelScreening", "distance", "mean"]


@dataclass(frozen=True, kw_only=True)
class ModelScreening(Algorithm):
    """Send a model, take the neighbours' with care: x½_i = x_i − η ∇F_i(x_i; ξ_i), then x_i = combine(x½_i, {x½_j}).

    A method says how models are combined, and may say what is sent. One exchange and k·P·4 bytes sent per agent and
    round, k being the agent's degree.
    """

    family = "Byzantine-robust"

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x½_i."""
        return broadcast(model=self.proposal(agent))

    @step()
    def screen(self, agent: Agent, inbox: Inbox) -> None:
        """Combine the own model with those that arrived."""
        models = inbox.gather("model")
        own = models.pop(agent.index)
        agent["model"] = self.combine(agent, own, models)

    def proposal(self, agent: Agent) -> Tensor:
        """Return the model that is sent, shape [P]."""
        return agent["model"] - self.learning_rate * agent.gradient(agent["model"])

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return the next model from the `own` one sent and those of the neighbours that were heard, perhaps none.

        The vectors are other agents' as well: they are not changed.
        """
        raise NotImplementedError

    def neighbors_needed(self) -> int:
        """Return the degree below which the rule is not defined or protects nobody."""
        return 0

    def check(self, mixing: NDArray[np.float64], total_passes: int) -> None:
        """Refuse a graph in which somebody has too few neighbours."""
        super().check(mixing, total_passes)
        degrees = np.count_nonzero(mixing - np.diag(np.diagonal(mixing)), axis=1)
        agent, needed = int(degrees.argmin()), self.neighbors_needed()
        if degrees[agent] < needed:
            raise ConfigError(
                f"{self.name} with byzantine = {getattr(self, 'byzantine', 0)} needs {needed} neighbours for every "
                f"agent, and agent {agent} has {degrees[agent]}: lower byzantine or take a denser topology"
            )


@dataclass(frozen=True, kw_only=True)
class LossScreening(ModelScreening):
    """Screen models by the agent's own loss at them."""

    loss_data: str = option(
        "batch",
        "where methods that judge models by their loss measure it: on this round's mini-batch or on Q_i",
        choices=("batch", "validation"),
    )

    @property
    def needs_validation(self) -> bool:
        """Losses on Q_i need one."""
        return self.loss_data == "validation"


def distance(one: Tensor, other: Tensor) -> float:
    """Return ‖one − other‖, from the difference itself and in double precision: no finite vectors overflow it."""
    return float(torch.linalg.vector_norm(one - other, dtype=torch.float64))


def mean(vectors: Sequence[Tensor]) -> Tensor:
    """Return the mean of some vectors, a new tensor of shape [P]."""
    return torch.stack(tuple(vectors)).mean(0)
