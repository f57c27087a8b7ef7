"""Cross-gradients weighted by their agreement with a gradient that the agent trusts."""

from torch import Tensor, nn

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.cross_gradients import WeightedCrossGradients
from ross_flwr.learning.agent import Agent

SHORTEST = 1e-30
"""A gradient shorter than this is not made as long as the trusted one: the norm of tiny numbers is zero in float32."""


@register("fltrust")
class FLTrust(WeightedCrossGradients):
    """FLTrust's weights (Cao, Fang, Liu and Gong, NDSS 2021, arXiv:2012.13995) on cross-gradients.

    ::

        q_i  = ∇F(x_i; Q_i);   t_ij = max(0, cos(G_ij, q_i))
        π_ij = t_ij / Σ_k t_ik;   û_i = α u_i + Σ_j π_ij ‖q_i‖ G_ij / ‖G_ij‖;   x̂_i = x_i − η û_i
        x_i  = Σ_j w_ij x̂_j;   u_i = Σ_j w_ij û_j

    The paper has a server that trusts the gradient of its own clean data; here each agent is the server of M_i, and Q_i
    is that data: an adaptation of ours. An agent with which no gradient agrees skips the step. Nothing guards what is
    mixed.

    State: x_i, u_i (zero at first). Per agent, pass and k neighbours: three exchanges, 1 + k gradients and that of
    Q_i, 4·k·P·4 bytes (3·k·P·4 without mixing the momentum), no utilities.
    """

    @property
    def needs_validation(self) -> bool:
        """True: the trusted gradient is that of Q_i."""
        return True

    def weights(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        """Return π_ij ‖q_i‖ / ‖G_ij‖ by j, of those that agree."""
        trusted = agent.validation_gradient(agent["model"])
        length = float(trusted.norm())
        trust = {j: float(nn.functional.cosine_similarity(each, trusted, dim=0)) for j, each in gradients.items()}
        total = sum(max(0.0, cosine) for cosine in trust.values())
        norms = {j: max(float(each.norm()), SHORTEST) for j, each in gradients.items()}
        return {j: cosine / total * length / norms[j] for j, cosine in trust.items() if cosine > 0}
