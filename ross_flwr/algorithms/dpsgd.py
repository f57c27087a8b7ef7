"""Decentralized parallel SGD."""

from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("dpsgd")
class DPSGD(Algorithm):
    """Decentralized parallel SGD (Lian et al., NeurIPS 2017).

    ::

        combine-then-adapt:  x_i ← Σ_j w_ij x_j − η ∇F_i(x_i; ξ_i)
        adapt-then-combine:  x_i ← Σ_j w_ij (x_j − η ∇F_j(x_j; ξ_j))

    The first is the paper's: the gradient is taken before mixing, so it can be computed while messages travel. The
    second comes nearer to the optimum with the same η.

    State: x_i. Per agent, round and k neighbours: one exchange, one gradient, k·P·4 bytes. With W = 11ᵀ/N both are
    centralized SGD, with W = I each agent's own.
    """

    family = "decentralized optimisation"

    order: str = option(
        "combine-then-adapt",
        "whether agents mix before they step along their gradient, or after",
        choices=("combine-then-adapt", "adapt-then-combine"),
    )

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x_i, or x_i − η ∇F_i(x_i)."""
        if self.order == "combine-then-adapt":
            return broadcast(model=agent["model"])
        return broadcast(model=agent["model"] - self.learning_rate * agent.gradient(agent["model"]))

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models, and descend if that is still to be done."""
        mixed = agent.mix(inbox.gather("model"))
        if self.order == "combine-then-adapt":
            mixed.sub_(agent.gradient(agent["model"]), alpha=self.learning_rate)
        agent["model"] = mixed
