"""Decentralized SGD with local steps."""

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import register, step
from ross_flwr.algorithms.local_steps import LocalSteps
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("local-dsgd")
class LocalDSGD(LocalSteps):
    """LD-SGD (Li et al., arXiv:1910.09126): K local steps of SGD, then Q exchanges in a row.

    ::

        z_i^0 = x_i;   z_i^(s+1) = z_i^s − η ∇F_i(z_i^s; ξ_i^s)      for s = 0 … K−1, a mini-batch each
        z_i ← Σ_j w_ij z_j, Q times, from z_i^K;   x_i ← z_i

    Q exchanges mix with W^Q. Related methods override the `direction` of the local steps.

    State: x_i. Per agent, pass and k neighbours: Q exchanges, K gradients, Q·k·P·4 bytes. With K = Q = 1 it is D-PSGD,
    adapt-then-combine.
    """

    family = "decentralized optimisation"

    local_steps: int = options.local_steps(5)
    gossip_steps: int = option(1, "exchanges Q in a row, each with mixing, after the local steps", minimum=1)

    def __post_init__(self) -> None:
        """Set the Q + 1 steps; the class names each only once."""
        super().__post_init__()
        object.__setattr__(self, "steps", ("share", *["gossip"] * (self.gossip_steps - 1), "mix"))

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Train, and send z_i^K."""
        return broadcast(model=self.train(agent))

    @step(sends=("model",))
    def gossip(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Average the neighbourhood's models, and send that on."""
        return broadcast(model=agent.mix(inbox.gather("model")))

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models."""
        agent["model"] = agent.mix(inbox.gather("model"))
