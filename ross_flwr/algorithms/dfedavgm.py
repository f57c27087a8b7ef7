"""Decentralized federated averaging with momentum."""

import torch
from torch import Tensor

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.local_dsgd import LocalDSGD
from ross_flwr.algorithms.local_steps import local_steps
from ross_flwr.learning.agent import Agent


@register("dfedavgm")
class DFedAvgM(LocalDSGD):
    """DFedAvgM (Sun, Li and Wang, TPAMI 2023): K local steps with heavy-ball momentum, then mixing.

    ::

        z_i^0 = z_i^(−1) = x_i
        z_i^(s+1) = z_i^s − η ∇F_i(z_i^s; ξ_i^s) + α (z_i^s − z_i^(s−1))     for s = 0 … K−1
        x_i ← Σ_j w_ij z_j^K

    The momentum starts at zero in every round and is never sent. Not here: the paper's version with quantized messages.

    State: x_i. Per agent, pass and k neighbours: one exchange, K gradients, k·P·4 bytes; the mixing can be repeated as
    in LD-SGD. With α = 0 it is LD-SGD.
    """

    momentum: float = options.momentum()

    def descent(self, agent: Agent) -> Tensor:
        """Return Σ_s u^s, with u^s = α u^(s−1) + ∇F_i(z^s; ξ_i^s): z^(s+1) − z^s = −η u^s."""
        momentum = torch.zeros_like(agent["model"])

        def direction(model: Tensor, batch: int) -> Tensor:
            nonlocal momentum
            momentum = self.momentum * momentum + agent.gradient(model, batch)
            return momentum

        return local_steps(agent, self.local_steps, self.learning_rate, direction, optimizer=self.optimizer)
