"""No collaboration at all."""

from ross_flwr.algorithms.algorithm import register, step
from ross_flwr.algorithms.local_steps import LocalSteps
from ross_flwr.algorithms.messages import Inbox
from ross_flwr.learning.agent import Agent


@register("isolated")
class Isolated(LocalSteps):
    """SGD of every agent on its own data, to show what collaboration is worth: x_i ← x_i − η ∇F_i(x_i; ξ_i).

    State: x_i. Per agent and pass: no exchange, K gradients for K local steps, no bytes. It is D-PSGD with
    W = I.
    """

    family = "reference"

    @step()
    def descend(self, agent: Agent, inbox: Inbox) -> None:
        """Take K steps along the own gradient."""
        agent["model"] = self.train(agent)
