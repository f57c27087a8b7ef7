"""Decentralized stochastic gradient tracking."""

from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.learning.agent import Agent


@register("dsgt")
class DSGT(Algorithm):
    """Decentralized stochastic gradient tracking (Pu and Nedić, 2021): y_i follows the mean gradient of all agents.

    ::

        y_i ← y_i + ∇F_i(x_i; ξ_i) − g_i;   g_i ← ∇F_i(x_i; ξ_i)
        x_i ← Σ_j w_ij (x_j − η y_j);       y_i ← Σ_j w_ij y_j

    y_i and g_i are zero at first, so y_i begins as the own gradient. Since g_i is the very gradient that was added
    before, Σ_i y_i = Σ_i g_i in every round, on whatever mini-batches: with exact gradients all agents reach the
    optimum of the mean loss, however different their data. A missing message breaks the sum for good.

    State: x_i, y_i, g_i. Per agent, pass and k neighbours: one exchange, one gradient, 2·k·P·4 bytes. With
    W = 11ᵀ/N it is centralized SGD. With local steps it is NET-FLEET, ``net-fleet``.
    """

    family = "decentralized optimisation"
    invariant = "Σ_i y_i = Σ_i g_i"

    def start(self, agent: Agent) -> None:
        """Begin with nothing tracked."""
        agent["tracker"] = agent["gradient"] = agent["model"].new_zeros(agent["model"].shape)

    @step(sends=("model", "tracker"))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Track the gradient, and send x_i − η y_i and y_i."""
        gradient = agent.gradient(agent["model"])
        agent["tracker"] = agent["tracker"] + gradient - agent["gradient"]
        agent["gradient"] = gradient
        return broadcast(model=agent["model"] - self.learning_rate * agent["tracker"], tracker=agent["tracker"])

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models and trackers."""
        agent["model"] = agent.mix(inbox.gather("model"))
        agent["tracker"] = agent.mix(inbox.gather("tracker"), models=False)
