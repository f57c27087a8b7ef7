"""Uniform mean of cross-gradients."""

from torch import Tensor

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.cross_gradients import WeightedCrossGradients
from ross_flwr.learning.agent import Agent


@register("cross-gradient")
class CrossGradient(WeightedCrossGradients):
    """Follow the mean of the neighbourhood's cross-gradients: ROSS without its game.

    ::

        G_ij = ∇F_j(x_i; ξ_j)                                            for j in M_i, computed by j
        û_i  = α u_i + 1/m_i Σ_j G_ij;   x̂_i = x_i − η û_i               m_i = |M_i|
        x_i  = Σ_j w_ij x̂_j;   u_i = Σ_j w_ij û_j

    The reference that shows what the weights of ROSS are worth; it has no paper of its own.

    State: x_i, u_i (zero at first). Per agent, pass and k neighbours: three exchanges, 1 + k gradients and 4·k·P·4
    bytes (3·k·P·4 without mixing the momentum). On a complete graph with α = 0 it is SGD on the mean gradient. An agent
    that returns a false gradient moves every neighbour by 1/m_i of it, so the method is not robust.
    """

    def weights(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        """Return 1/m_i for each that answered."""
        return dict.fromkeys(gradients, 1 / len(gradients))
