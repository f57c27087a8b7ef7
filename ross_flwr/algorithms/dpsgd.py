"""Decentralized parallel SGD."""

from ross_flwr.algorithms.algorithm import Algorithm, Inbox, Outbox, broadcast, register, step
from ross_flwr.learning.agent import Agent


@register("dpsgd")
class DPSGD(Algorithm):
    """Decentralized parallel SGD (Lian et al., 2017): x_i ← Σ_j w_ij x_j − η ∇F_i(x_i; ξ_i).

    Mix, then step with the gradient taken before mixing. State: the model. One exchange, one gradient and k·P·4 bytes
    sent per agent and round, k being the agent's degree. With W = 11ᵀ/N it is centralized SGD.
    """

    @step
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x_i."""
        return broadcast(model=agent["model"])

    @step
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models and descend."""
        gradient = agent.gradient(agent["model"])
        agent["model"] = agent.mix(inbox.gather("model")).sub_(gradient, alpha=self.learning_rate)
