"""Consensus-based distributed momentum SGD."""

from ross_flwr.algorithms.algorithm import Momentum, register, step
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.learning.agent import Agent


@register("cdmsgd")
class CDMSGD(Momentum):
    """Consensus-based distributed momentum SGD (Jiang et al., NeurIPS 2017): the momentum stays at home.

    ::

        m_i ← α m_i + ∇F_i(x_i; ξ_i)
        x_i ← Σ_j w_ij x_j − η (∇F_i(x_i; ξ_i) + α m_i)

    This is Nesterov's form, as in the published code of CGA, whose authors it shares.

    State: x_i, m_i (zero at first). Per agent, round and k neighbours: one exchange, one gradient, k·P·4 bytes. With
    α = 0 it is D-PSGD, combine-then-adapt.
    """

    family = "decentralized optimisation"

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x_i."""
        return broadcast(model=agent["model"])

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models and descend along the own momentum."""
        gradient = agent.gradient(agent["model"])
        agent["momentum"] = self.momentum * agent["momentum"] + gradient
        direction = gradient.add_(agent["momentum"], alpha=self.momentum)
        agent["model"] = agent.mix(inbox.gather("model")).sub_(direction, alpha=self.learning_rate)
