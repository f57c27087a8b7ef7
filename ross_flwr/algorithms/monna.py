"""Momentum and nearest-neighbour averaging."""

from torch import Tensor

from ross_flwr.algorithms.algorithm import Momentum, register
from ross_flwr.algorithms.local_steps import AdaptThenCombine
from ross_flwr.config import part
from ross_flwr.learning import rules
from ross_flwr.learning.agent import Agent


@register("monna")
class MoNNA(Momentum, AdaptThenCombine):
    """MoNNA (Farhadkhani et al., ICML 2023): the mean of the models nearest to one's own.

    ::

        K times, from z = x_i:  m_i = α m_i + (1 − α) ∇F_i(z; ξ_i);   z = z − η m_i
        x_i = mean of z_i and of all but the f farthest z_j heard

    The rule is `rules.NearestNeighbors`. State: x_i, m_i (zero at first). Per agent and pass: one exchange, k·P·4
    bytes, K gradients. With f = 0 it is the plain mean of the neighbourhood. The paper takes K = 1 and α = 0.99.
    """

    family = "Byzantine-robust"

    rule: rules.Rule = part(rules.NearestNeighbors)

    def direction(self, agent: Agent, model: Tensor, batch: int) -> Tensor:
        """Return m_i."""
        agent["momentum"] = agent["momentum"].lerp(agent.gradient(model, batch), 1 - self.momentum)
        return agent["momentum"]
