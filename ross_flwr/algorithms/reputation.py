"""Reputations by agreement, and rewards by reputation: what the variants of CGSV share."""

from dataclasses import dataclass
from math import floor

import torch
from torch import Tensor, nn, tanh

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import Algorithm
from ross_flwr.algorithms.local_steps import LocalSteps
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent

__all__ = ["Reputation", "Rewards", "largest"]

DECAY = 0.95
"""ρ, what a round leaves of a reputation."""

FLOOR = 1e-3
"""The lowest value of a reputation before it is normalised."""


@dataclass(frozen=True, kw_only=True)
class Reputation(Algorithm):
    """Agents that agree with the neighbourhood gain reputation (CGSV; Xu et al., NeurIPS 2021).

    ::

        d_ij = u_ij / ‖u_ij‖;   d_i = Σ_j r_ij d_ij               (1/m for each of m in the first round)
        ψ_ij = cos(d_ij, d_i)                                     stands for the Shapley value of cos(d_S, d_i)
        r_ij ← max(ρ r_ij + (1 − ρ) ψ_ij, floor);   r_ij ← r_ij / Σ_k r_ik

    A vector that is not finite has no direction and agrees with nobody: ψ_ij = 0.

    State: r_i of shape [m_i], zero at first, by ascending index; a missing neighbour keeps its r_ij.
    """

    fixed_graph = True

    def start(self, agent: Agent) -> None:
        """Begin with no reputation."""
        super().start(agent)
        agent["reputation"] = agent["model"].new_zeros(len(agent.mixing_row))

    def appraise(self, agent: Agent, vectors: dict[int, Tensor]) -> tuple[Tensor, dict[int, float]]:
        """Return d_i under the reputations so far, and the new r_ij; both are normalised over those that were heard."""
        heard = [place for place, j in enumerate(agent.mixing_row) if j in vectors]
        known = agent["reputation"][heard]
        directions = nn.functional.normalize(torch.stack(list(vectors.values()))).nan_to_num()
        weights = known if known.any() else torch.ones_like(known)
        common = weights / weights.sum() @ directions
        agreement = directions @ nn.functional.normalize(common, dim=0)
        known = DECAY * known + (1 - DECAY) * agreement
        reputation = agent["reputation"].clone()
        reputation[heard] = known = known.clamp(min=FLOOR)
        agent["reputation"] = reputation / reputation.sum()
        return common, dict(zip(vectors, (known / known.sum()).tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Rewards(Reputation, LocalSteps):
    """Agents take K local steps, and those with little reputation get little of the combined update."""

    local_steps: int = options.local_steps(5)
    update_length: float = option(0.5, "Γ of CGSV's rewards, the length to which an update is scaled", minimum=0.0)
    altruism: float = option(
        1.5,
        "β of CGSV's rewards, tanh(β r)/max tanh(β r) being the share of the components sent; large is all to all",
        minimum=1e-3,
    )

    def quotas(self, agent: Agent) -> dict[int, int]:
        """Return q_ij = ⌊P tanh(β r_ij) / max_k tanh(β r_ik)⌋ by j."""
        earned = tanh(self.altruism * agent["reputation"].double())
        shares = (earned / earned.max()).tolist()
        size = len(agent["model"])
        # r is float32: equal reputations may differ in the seventh digit, which must not cost a component.
        return {j: floor(size * round(share, 6)) for j, share in zip(agent.mixing_row, shares, strict=True)}


def largest(vector: Tensor, count: int) -> Tensor:
    """Return `vector`, shape [P], with zeros for all but its `count` components of largest magnitude."""
    kept = vector.abs().topk(count).indices
    return torch.zeros_like(vector).index_copy_(0, kept, vector[kept])
