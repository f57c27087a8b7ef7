"""Gossip with clipped differences."""

from math import inf, sqrt

from torch import Tensor

from ross_flwr.algorithms.algorithm import Momentum, register
from ross_flwr.algorithms.screening import ModelScreening, distance
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("clipped-gossip")
class ClippedGossip(Momentum, ModelScreening):
    """ClippedGossip, or self-centered clipping (He, Karimireddy, Jaggi, arXiv:2202.01545): no neighbour pulls far.

    ::

        m_i = α m_i + ∇F_i(x_i; ξ_i);   x½_i = x_i − η m_i
        x_i = Σ_j w_ij (x½_i + clip(x½_j − x½_i, τ_i)),   clip(z, τ) = z min(1, τ/‖z‖)

    The radius τ_i is fixed, or adapts: the (f+1)-th largest of the distances ‖x½_j − x½_i‖ heard, which for f = 1 is
    the second largest of the authors' code. When no more than f neighbours were heard it is 0. The theory's radius,

    ::

        τ_i² = 1/δ_i Σ_{j honest} w_ij ‖x½_j − x½_i‖²,   δ_i = Σ_{j lying} w_ij;   τ_i = ∞ where δ_i = 0

    over the neighbours heard, is for experiments alone: it needs to be told who lies (`radius-rule` = 'oracle').

    State: x_i, m_i (zero at first). Per agent and round: one exchange, k·P·4 bytes, one gradient. With τ = ∞, or
    f = 0, the models are mixed by W; with τ = 0 agents learn alone.
    """

    radius_rule: str = option(
        "adaptive",
        "the clipping radius: the (f+1)-th largest distance, that of radius, or the theory's, which knows who attacks",
        choices=("adaptive", "fixed", "oracle"),
    )
    radius: float = option(1.0, "τ of radius-rule = 'fixed'", minimum=0.0)
    byzantine: int = option(1, "f, the lying neighbours a robust method is prepared for", minimum=0)

    def neighbors_needed(self) -> int:
        """Return f + 1 where the radius adapts."""
        return self.byzantine + 1 if self.radius_rule == "adaptive" else 0

    def proposal(self, agent: Agent) -> Tensor:
        """Return x_i − η m_i."""
        agent["momentum"] = self.momentum * agent["momentum"] + agent.gradient(agent["model"])
        return agent["model"] - self.learning_rate * agent["momentum"]

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return x½_i + Σ_j w_ij clip(x½_j − x½_i, τ_i)."""
        distances = {j: distance(model, own) for j, model in others.items()}
        radius = self.radius
        if self.radius_rule == "adaptive":
            radius = (sorted(distances.values(), reverse=True) + [0.0] * (self.byzantine + 1))[self.byzantine]
        elif self.radius_rule == "oracle":
            lying = sum(agent.mixing_row[j] for j in others if j in agent.attackers)
            spread = sum(agent.mixing_row[j] * d**2 for j, d in distances.items() if j not in agent.attackers)
            radius = sqrt(spread / lying) if lying else inf
        mixed = own.clone()
        for j, model in others.items():
            shrink = 1.0 if distances[j] <= radius else radius / distances[j]
            mixed.add_(model - own, alpha=agent.mixing_row[j] * shrink)
        return mixed
