"""Consensus-based distributed momentum SGD."""

from torch import Tensor

from ross_flwr.algorithms.algorithm import Momentum, register
from ross_flwr.algorithms.local_steps import CombineThenAdapt
from ross_flwr.learning.agent import Agent


@register("cdmsgd")
class CDMSGD(Momentum, CombineThenAdapt):
    """Consensus-based distributed momentum SGD (Jiang et al., NeurIPS 2017): the momentum stays at home.

    ::

        m_i ← α m_i + ∇F_i(x_i; ξ_i)
        x_i ← Σ_j w_ij x_j − η (∇F_i(x_i; ξ_i) + α m_i)

    This is Nesterov's form, as in the published code of CGA by the same authors. With K > 1 local steps, the sum of
    their directions replaces ∇F_i + α m_i; each takes its gradient where the steps before it have led.

    State: x_i, m_i (zero at first). Per agent, pass and k neighbours: one exchange, K gradients, k·P·4 bytes. With
    α = 0 it is D-PSGD, combine-then-adapt.
    """

    family = "decentralized optimisation"

    def direction(self, agent: Agent, model: Tensor, batch: int) -> Tensor:
        """Return ∇F_i + α m_i."""
        gradient = agent.gradient(model, batch)
        agent["momentum"] = self.momentum * agent["momentum"] + gradient
        return gradient.add(agent["momentum"], alpha=self.momentum)
