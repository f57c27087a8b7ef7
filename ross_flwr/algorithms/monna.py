"""Momentum and nearest-neighbour averaging."""

from torch import Tensor

from ross_flwr.algorithms.algorithm import Momentum, register
from ross_flwr.algorithms.screening import ModelScreening, distance, mean
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("monna")
class MoNNA(Momentum, ModelScreening):
    """MoNNA (Farhadkhani et al., ICML 2023): the mean of the models nearest to one's own.

    ::

        m_i = α m_i + (1 − α) ∇F_i(x_i; ξ_i);   x½_i = x_i − η m_i
        x_i = mean of x½_i and of all but the f farthest x½_j heard

    Of n models, the own included, the mean takes n − f, and n − 2f where f more stay silent, as the published rule
    says for those who do not wait for them. The paper has a complete graph; here it is the neighbourhood.

    State: x_i, m_i (zero at first). Per agent and round: one exchange, k·P·4 bytes, one gradient. With f = 0 it is the
    plain mean of the neighbourhood. The paper takes α = 0.99.
    """

    byzantine: int = option(1, "f, the lying neighbours a robust method is prepared for", minimum=0)

    def neighbors_needed(self) -> int:
        """Return 2f, so that with oneself the honest are more."""
        return 2 * self.byzantine

    def proposal(self, agent: Agent) -> Tensor:
        """Return x_i − η m_i."""
        agent["momentum"] = agent["momentum"].lerp(agent.gradient(agent["model"]), 1 - self.momentum)
        return agent["model"] - self.learning_rate * agent["momentum"]

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return the mean of the n − f models nearest to x½_i."""
        near = sorted(others, key=lambda j: distance(others[j], own))[: max(0, len(others) - self.byzantine)]
        return mean([own, *(others[j] for j in near)])
