"""Decentralized parallel SGD."""

from ross_flwr.algorithms.algorithm import register, step
from ross_flwr.algorithms.local_steps import LocalSteps
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("dpsgd")
class DPSGD(LocalSteps):
    """Decentralized parallel SGD (Lian et al., NeurIPS 2017).

    ::

        combine-then-adapt:  x_i ← Σ_j w_ij x_j − η D_i
        adapt-then-combine:  x_i ← Σ_j w_ij (x_j − η D_j)

    With K = 1 local step, D_i = ∇F_i(x_i; ξ_i); with more, x_i − η D_i is the model after K steps from x_i. The first
    form is the paper's: gradients are taken before mixing, so they can be computed while messages travel. The second
    comes nearer to the optimum with the same η.

    State: x_i. Per agent, round and k neighbours: one exchange, K gradients, k·P·4 bytes. With W = 11ᵀ/N and K = 1 both
    are centralized SGD, with W = I each agent's own.

    Examples
    --------
    >>> DPSGD(learning_rate=0.2, local_steps=3).steps
    ('share', 'mix')
    """

    family = "decentralized optimisation"

    order: str = option(
        "combine-then-adapt",
        "whether agents mix before they step along their gradient, or after",
        choices=("combine-then-adapt", "adapt-then-combine"),
    )

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x_i, or x_i − η D_i."""
        return broadcast(model=agent["model"] if self.order == "combine-then-adapt" else self.train(agent))

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Mix the neighbourhood's models, and descend if that is still to be done."""
        mixed = agent.mix(inbox.gather("model"))
        if self.order == "combine-then-adapt":
            mixed.sub_(self.descent(agent), alpha=self.learning_rate)
        agent["model"] = mixed
