"""Cross-gradients weighted by how well they agree."""

from torch import Tensor

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.cross_gradients import WeightedCrossGradients
from ross_flwr.algorithms.reputation import Reputation
from ross_flwr.learning.agent import Agent


@register("cgsv")
class CGSV(Reputation, WeightedCrossGradients):
    """Cosine gradient Shapley values (Xu et al., NeurIPS 2021) as weights: ROSS without a validation set.

    ::

        d_ij = G_ij / ‖G_ij‖;   d_i = Σ_j r_ij d_ij               (in the first round Σ_j d_ij)
        ψ_ij = cos(d_ij, d_i)                                     stands for the Shapley value of cos(d_S, d_i)
        r_ij ← max(ρ r_ij + (1 − ρ) ψ_ij, floor);   r_ij ← r_ij / Σ_k r_ik
        û_i  = α u_i + Σ_j r_ij G_ij;   x̂_i = x_i − η û_i
        x_i  = Σ_j w_ij x̂_j;   u_i = Σ_j w_ij û_j

    The paper has a server and rewards its clients; here each agent is the server of M_i, an adaptation of ours, and
    only the valuation is used: `cgsv-reward` has the rewards and `cgsv-server` the server. Not here: local epochs, and
    steps of fixed length Γ. The step follows the gradients at their own length, so the floor's share of a huge one is
    still large.

    State: x_i, u_i (zero at first), r_i of shape [m_i], zero at first, by ascending index; a neighbour that is missing
    keeps its r_ij. Per agent, pass and k neighbours: three exchanges, 1 + k gradients and 4·k·P·4 bytes (3·k·P·4
    without mixing the momentum), no utilities. Equal gradients get equal weights. It rewards agreement with the
    majority: if colluders are the majority, they rule, and an honest agent with rare classes gets little. An agent's
    own gradient gets more than it should, since it is part of d_i. Nothing guards what is mixed: one attacker of ten
    that shares a ruined model is enough. (Digits with the default keys, seed 0: accuracy 0.12.)
    """

    def weights(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        """Update r_ij and return it, normalised over those that answered."""
        _, reputations = self.appraise(agent, gradients)
        return reputations
