"""Decentralized federated learning with sharpness-aware minimization."""

import torch
from torch import Tensor

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.local_dsgd import LocalDSGD
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("dfedsam")
class DFedSAM(LocalDSGD):
    """DFedSAM (Shi et al., ICML 2023): K local steps towards flat minima, then mixing; DFedSAM-MGS for Q > 1.

    ::

        g = ∇F_i(z_i^s; ξ_i^s);   z_i^(s+1) = z_i^s − η ∇F_i(z_i^s + ρ g / ‖g‖; ξ_i^s)      for s = 0 … K−1
        z_i ← Σ_j w_ij z_j, Q times, from z_i^K;   x_i ← z_i

    Both gradients of a step are on one mini-batch; ‖g‖ is over all parameters.

    State: x_i. Per agent, pass and k neighbours: Q exchanges, 2·K gradients, Q·k·P·4 bytes. With ρ = 0 it is LD-SGD at
    twice the gradients.
    """

    sam_radius: float = option(0.05, "ρ, how far uphill the gradient is taken", minimum=0.0)

    def batches(self, pass_number: int, degree: int) -> list[int]:
        """Return K mini-batches, two gradients on each."""
        return 2 * super().batches(pass_number, degree)

    def direction(self, agent: Agent, model: Tensor, batch: int) -> Tensor:
        """Return the gradient uphill of `model`."""
        uphill = agent.gradient(model, batch)
        length = torch.linalg.vector_norm(uphill).clamp_min(torch.finfo(uphill.dtype).tiny)
        return agent.gradient(model + uphill * (self.sam_radius / length), batch)
