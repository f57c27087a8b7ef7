"""DPDL: private cross-gradients, calibrated by how they agree with the own gradient."""

from math import sqrt

import torch

from ross_flwr.algorithms.algorithm import register, step
from ross_flwr.algorithms.cross_gradients import WeightedCrossGradients
from ross_flwr.algorithms.messages import Inbox, Message, Outbox, broadcast
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent

CALIBRATION = 1.0
"""a, the factor on the own gradient that is added; no source gives it."""


@register("dpdl")
class DPDL(WeightedCrossGradients):
    """DPDL (Yuan, Xiao, Wang and Li, arXiv:2606.04399): private cross-gradients, calibrated by their cosines.

    ::

        G_ji = (1/B) Σ_b ∇ℓ_b(x_j) min(1, C / ‖∇ℓ_b(x_j)‖) + N(0, (z · 2C/B)² I)      for every j ∈ M_i
        S_ij = cos(G_ij, g_i);   c_ij = 1 / (1 + exp(S_ij))                           for every j ∈ M_i
        G̃_ij = G_ij / (√w_ij N) + a w_ij c_ij g_i
        û_i  = α u_i + Σ_j G̃_ij;   x̂_i = x_i − η û_i
        x_i  = Σ_j w_ij x̂_j;   u_i = Σ_j w_ij û_j

    In the transcription of the paper that was available, g_i is the own clipped gradient without noise. It enters û_i
    and x̂_i, which neighbours get, so nothing would be private. Here g_i = G_ii, unless ``exact-own-gradient`` says
    otherwise. The step is Σ_j 1/(√w_ij N) gradients long: √N on a complete graph, and 0.52 on a ring of ten. So η
    depends on the graph. The weight of a missing neighbour is added to w_ii.

    `dp-clip`, `dp-noise` and `dp-epsilon` are as in `pdsl`. State: x_i, u_i (zero at first). Per agent, pass and k
    neighbours: three exchanges, 1 + k gradients (one more with an exact own gradient) and 4·k·P·4 bytes.

    Examples
    --------
    >>> DPDL().exposed, DPDL(exact_own_gradient=True).exposed
    ('', 'exact-own-gradient = true')
    """

    private = True

    exact_own_gradient: bool = option(
        False, "whether the own gradient enters without noise, as in the transcription of the paper: nothing is private"
    )

    @property
    def exposed(self) -> str:
        """The switch that lets gradients out without noise."""
        return "exact-own-gradient = true" if self.exact_own_gradient else ""

    @step(sends=("gradient",), optional=True)
    def cross_gradients(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Send G_ji to every neighbour j that sent its model, and G_ii to oneself."""
        if self.exact_own_gradient:
            agent["own"] = agent.gradient(agent["model"], of="exact")
        return super().cross_gradients(agent, inbox)

    @step(sends=lambda self, agent: ("model", "momentum") if self.mix_momentum else ("model",))
    def descend(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Calibrate the gradients, step along their sum, and send x̂_i and û_i."""
        gradients = inbox.gather("gradient")
        own = agent.state.pop("own", gradients[agent.index])
        mixing = {j: agent.mixing_row[j] for j in gradients}
        mixing[agent.index] += 1 - sum(mixing.values())
        weights = {j: 1 / (sqrt(mixing[j]) * agent.num_agents) for j in gradients}
        similar = {j: torch.cosine_similarity(gradient, own, dim=0) for j, gradient in gradients.items()}
        added = CALIBRATION * sum(mixing[j] * float(torch.sigmoid(-similar[j])) for j in gradients)
        momentum = self.momentum * agent["momentum"] + added * own
        for j, weight in weights.items():
            momentum.add_(gradients[j], alpha=weight)
        agent.report(weights=weights | {agent.index: weights[agent.index] + added})
        model = agent["model"] - self.learning_rate * momentum
        if self.mix_momentum:
            return broadcast(model=model, momentum=momentum)
        agent["momentum"] = momentum
        return broadcast(model=model)
