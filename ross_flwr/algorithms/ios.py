"""Iterative outlier scissor."""

import torch
from torch import Tensor

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.screening import ModelScreening, distance
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("ios")
class IOS(ModelScreening):
    """IOS, the iterative outlier scissor (Wu, Chen, Ling, IEEE TSP 2023): cut off the farthest from the mean, f times.

    ::

        x½_i = x_i − η ∇F_i(x_i; ξ_i);   U = M_i
        f times:  U ← U − {argmax_{j ∈ U, j ≠ i} ‖x½_j − x̄_U‖},   x̄_U = Σ_{j∈U} w_ij x½_j / Σ_{j∈U} w_ij
        x_i = x̄_U

    Written for w_ij = 1/max(m_i, m_j), which is `mixing` = 'metropolis'; it takes whichever W the run has. Of equally
    far neighbours the first goes. The weight of a neighbour not heard returns to the own model before.

    State: the model. Per agent and round: one exchange, k·P·4 bytes, one gradient. With f = 0 it is D-PSGD that steps
    before it mixes.
    """

    byzantine: int = option(1, "f, the lying neighbours a robust method is prepared for", minimum=0)

    def neighbors_needed(self) -> int:
        """Return 2f, so that with oneself the honest are more."""
        return 2 * self.byzantine

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return x̄_U."""
        weights = {j: agent.mixing_row[j] for j in others}
        absent = sum(agent.mixing_row[j] for j in agent.neighbors if j not in others)
        weights[agent.index] = agent.mixing_row[agent.index] + absent
        models = {**others, agent.index: own}

        def average() -> Tensor:
            total = torch.zeros_like(own)
            for j, weight in weights.items():
                total.add_(models[j], alpha=weight)
            return total.div_(sum(weights.values()))

        for _ in range(min(self.byzantine, len(others))):
            center = average()
            del weights[max(weights.keys() & others.keys(), key=lambda j: (distance(models[j], center), -j))]
        return average()
