"""No collaboration at all."""

from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.messages import Inbox
from ross_flwr.learning.agent import Agent


@register("isolated")
class Isolated(Algorithm):
    """SGD by every agent on its own data alone, to see what collaboration is worth: x_i ← x_i − η ∇F_i(x_i; ξ_i).

    State: x_i. Per agent and round: no exchange, one gradient, no bytes. It is D-PSGD with W = I.
    """

    family = "reference"

    @step()
    def descend(self, agent: Agent, inbox: Inbox) -> None:
        """Step along the own gradient."""
        agent["model"] = agent["model"] - self.learning_rate * agent.gradient(agent["model"])
