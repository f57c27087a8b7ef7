"""Decentralized momentum SGD."""

from ross_flwr.algorithms.algorithm import Momentum, register, step
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.learning.agent import Agent


@register("dmsgd")
class DMSGD(Momentum):
    """Decentralized momentum SGD (Yu, Jin and Yang, ICML 2019): the momentum is averaged along with the model.

    ::

        û_i = α u_i + ∇F_i(x_i; ξ_i);   x̂_i = x_i − η û_i
        x_i ← Σ_j w_ij x̂_j;             u_i ← Σ_j w_ij û_j

    State: x_i, u_i (zero at first). Per agent, round and k neighbours: one exchange, one gradient, 2·k·P·4 bytes. With
    α = 0 it is D-PSGD, adapt-then-combine.
    """

    family = "decentralized optimisation"

    @step(sends=("model", "momentum"))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x̂_i and û_i."""
        momentum = self.momentum * agent["momentum"] + agent.gradient(agent["model"])
        return broadcast(model=agent["model"] - self.learning_rate * momentum, momentum=momentum)

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models and momenta."""
        agent["model"] = agent.mix(inbox.gather("model"))
        agent["momentum"] = agent.mix(inbox.gather("momentum"), models=False)
