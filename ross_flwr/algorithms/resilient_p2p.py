"""Weights from the losses of the neighbours' models."""

from torch import Tensor, zeros_like

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.screening import LossScreening
from ross_flwr.learning.agent import Agent

SMALLEST_LOSS = 1e-8
"""Below it, a smaller loss earns no larger weight."""


@register("resilient-p2p")
class ResilientP2P(LossScreening):
    """Resilient P2P learning (Bhowmick, Koutsoukos, arXiv:2501.04610): models weigh by their inverse loss on own data.

    ::

        x½_i = x_i − η ∇F_i(x_i; ξ_i);   r_l = max(F_i(x½_l), 10⁻⁸)
        N⁺_i = {i} ∪ {l ∈ N_i : r_l ≤ r_i}
        x_i  = Σ_{l ∈ N⁺_i} c_il x½_l,   c_il = r_l⁻¹ / Σ_{p ∈ N⁺_i} r_p⁻¹

    No number of liars is assumed. A mini-batch just trained on flatters the own model; Q_i (`loss-data` =
    'validation') does not, and is larger.

    State: the model. Per agent and round: one exchange, k·P·4 bytes, one gradient and 1 + k losses, counted as
    utilities. Where all losses are alike it is the plain mean of the neighbourhood.
    """

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return Σ_l c_il x½_l."""
        models = {agent.index: own, **others}
        losses = {j: max(agent.loss(model, self.loss_data), SMALLEST_LOSS) for j, model in models.items()}
        inverse = {j: 1 / loss for j, loss in losses.items() if loss <= losses[agent.index]}
        total = sum(inverse.values())
        if not total:  # every loss is infinite
            return own
        mixed = zeros_like(own)
        for j, weight in inverse.items():
            mixed.add_(models[j], alpha=weight / total)
        return mixed
