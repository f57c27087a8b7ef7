"""Decentralized momentum SGD."""

from ross_flwr.algorithms.algorithm import register, step
from ross_flwr.algorithms.local_steps import HeavyBall
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.learning.agent import Agent


@register("dmsgd")
class DMSGD(HeavyBall):
    """Decentralized momentum SGD (Yu, Jin and Yang, ICML 2019): the momentum is averaged along with the model.

    ::

        K times, from û_i = u_i, x̂_i = x_i:  û_i ← α û_i + ∇F_i(x̂_i; ξ_i);   x̂_i ← x̂_i − η û_i
        x_i ← Σ_j w_ij x̂_j;             u_i ← Σ_j w_ij û_j

    State: x_i, u_i (zero at first). Per agent, pass and k neighbours: one exchange, K gradients, 2·k·P·4 bytes. The
    paper takes K = 1. With α = 0 it is D-PSGD, adapt-then-combine.
    """

    family = "decentralized optimisation"

    @step(sends=("model", "momentum"))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x̂_i and û_i."""
        model = self.train(agent)
        return broadcast(model=model, momentum=agent["momentum"])

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models and momenta."""
        agent["model"] = agent.mix(inbox.gather("model"))
        agent["momentum"] = agent.mix(inbox.gather("momentum"), models=False)
