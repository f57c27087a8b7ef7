"""Cross-gradients weighted by how well they agree."""

import torch
from torch import Tensor, nn

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.cross_gradients import WeightedCrossGradients
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("cgsv")
class CGSV(WeightedCrossGradients):
    """Cosine gradient Shapley values (Xu et al., NeurIPS 2021) as weights: ROSS without a validation set.

    ::

        d_ij = G_ij / ‖G_ij‖;   d_i = Σ_j r_ij d_ij               (in the first round Σ_j d_ij)
        ψ_ij = cos(d_ij, d_i)                                     stands for the Shapley value of cos(d_S, d_i)
        r_ij ← max(ρ r_ij + (1 − ρ) ψ_ij, floor);   r_ij ← r_ij / Σ_k r_ik
        û_i  = α u_i + Σ_j r_ij G_ij;   x̂_i = x_i − η û_i
        x_i  = Σ_j w_ij x̂_j;   u_i = Σ_j w_ij û_j

    The paper has a server and rewards its clients; here each agent is the server of M_i, an adaptation of ours, and
    only the valuation is used. Not here: the reward (sparsified downloads by tanh(β r)), local epochs, and steps of
    fixed length Γ: the step is along the gradients as they are, so the floor's share of a huge one is still large.

    State: x_i, u_i (zero at first), r_i of shape [m_i], zero at first, by ascending index; a neighbour that is missing
    keeps its r_ij. Per agent, round and k neighbours: three exchanges, 1 + k gradients and 4·k·P·4 bytes (3·k·P·4
    without mixing the momentum), no utilities. Equal gradients get equal weights. What it rewards is agreement with the
    majority: colluders that are one rule, and an honest agent with rare classes gets little. An agent's own gradient
    gets more than it should, for it is part of d_i: an attacker that poisons its own steps too trusts itself, and its
    model is mixed all the same. (Digits with the default keys, seed 0: accuracy 0.93, 0.89 and 0.13 with one, two and
    three such agents of ten.)
    """

    reputation_decay: float = option(
        0.95,
        "ρ, what a round leaves of the reputation r; 0 is this round's agreement alone",
        minimum=0.0,
        maximum=0.9999,
    )
    reputation_floor: float = option(1e-3, "the least a reputation falls to before it is normalised", minimum=1e-6)

    fixed_graph = True

    def start(self, agent: Agent) -> None:
        """Begin with no momentum and no reputation."""
        super().start(agent)
        agent["reputation"] = agent["model"].new_zeros(len(agent.mixing_row))

    def weights(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        """Update r_ij and return it, normalised over those that answered."""
        heard = [place for place, j in enumerate(agent.mixing_row) if j in gradients]
        known = agent["reputation"][heard]
        directions = nn.functional.normalize(torch.stack(list(gradients.values())))
        common = (known if known.any() else torch.ones_like(known)) @ directions
        agreement = directions @ nn.functional.normalize(common, dim=0)
        known = self.reputation_decay * known + (1 - self.reputation_decay) * agreement
        reputation = agent["reputation"].clone()
        reputation[heard] = known = known.clamp(min=self.reputation_floor)
        agent["reputation"] = reputation / reputation.sum()
        return dict(zip(gradients, (known / known.sum()).tolist(), strict=True))
