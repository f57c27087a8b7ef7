"""DiLoCo on a graph."""

import numpy as np
from numpy.typing import NDArray

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import Momentum, register
from ross_flwr.algorithms.local_steps import AdaptThenCombine
from ross_flwr.algorithms.messages import Inbox
from ross_flwr.config import ConfigError
from ross_flwr.learning.agent import Agent


@register("diloco")
class DiLoCo(Momentum, AdaptThenCombine):
    """DiLoCo (Douillard et al., arXiv:2311.08105) on a graph: many steps of AdamW, then a step along where they led.

    ::

        z_i = x_i after H steps of the inner optimizer
        Δ_i = x_i − Σ_j w_ij z_j                                         the averaged displacement
        m_i ← β m_i + Δ_i;   x_i ← x_i − γ (β m_i + Δ_i)                 Nesterov's momentum

    The paper has a server that averages all agents: W = 11ᵀ/N. H is `local-steps`, hundreds in the paper; β is
    `momentum` and γ is `outer-rate`. A W with eigenvalues near −1 makes the outer step too long: γ (1 − λ_min) (1 + 2β)
    has to be below 2 (1 + β). GASLoC (Cagnasso, Belilovsky and Oyallon, arXiv:2606.11081), another DiLoCo on graphs, is
    not here.

    State: x_i, m_i (zero at first), and what the inner optimizer remembers, which stays at home. Per agent, pass and k
    neighbours: one exchange, H gradients, k·P·4 bytes. With H = 1, ``optimizer=sgd``, β = 0 and γ = 1 it is D-PSGD,
    adapt-then-combine.
    """

    family = "decentralized optimisation"

    local_steps: int = options.local_steps(20)
    optimizer: str = options.optimizer("adamw")
    outer_rate: float = options.outer_rate(0.7)

    def check(self, mixing: NDArray[np.float64], total_passes: int) -> None:
        """Refuse a W with which disagreement would grow."""
        super().check(mixing, total_passes)
        smallest = float(np.linalg.eigvals(mixing).real.min())
        most = 2 * (1 + self.momentum) / ((1 + 2 * self.momentum) * (1 - smallest))
        if self.outer_rate >= most:
            raise ConfigError(
                f"outer-rate = {self.outer_rate:g} lets agents drift apart on this graph: use one below {most:.2g}, or "
                "mixing = 'lazy-metropolis'"
            )

    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Take Nesterov's step along the averaged displacement."""
        displacement = agent["model"] - agent.mix(inbox.gather("model"))
        agent["momentum"] = self.momentum * agent["momentum"] + displacement
        ahead = displacement.add_(agent["momentum"], alpha=self.momentum)
        agent["model"] = agent["model"].sub(ahead, alpha=self.outer_rate)
