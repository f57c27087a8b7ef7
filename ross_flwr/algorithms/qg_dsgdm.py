"""Quasi-global momentum."""

from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("qg-dsgdm")
class QGDSGDm(Algorithm):
    """QG-DSGDm (Lin et al., ICML 2021): momentum along the way that mixed models went, not the own gradients.

    ::

        x̂_i = x_i − η (α m_i + ∇F_i(x_i; ξ_i));   x_i⁺ = Σ_j w_ij x̂_j
        m_i ← α m_i + (1 − α) (x_i − x_i⁺) / η;    x_i ← x_i⁺

    One α serves both places, as in the paper's experiments. Kept is d_i = η m_i, which needs no division by η.

    State: x_i, d_i (zero at first). Per agent, round and k neighbours: one exchange, one gradient, k·P·4 bytes. With
    α = 0 it is D-PSGD, adapt-then-combine.
    """

    family = "decentralized optimisation"

    momentum: float = option(0.9, "momentum coefficient α", minimum=0.0, maximum=0.9999)

    def start(self, agent: Agent) -> None:
        """Begin with no momentum."""
        agent["displacement"] = agent["model"].new_zeros(agent["model"].shape)

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x̂_i."""
        gradient = agent.gradient(agent["model"])
        model = agent["model"] - self.momentum * agent["displacement"]
        return broadcast(model=model.sub_(gradient, alpha=self.learning_rate))

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models, and let the momentum follow the way there."""
        before, agent["model"] = agent["model"], agent.mix(inbox.gather("model"))
        went = before - agent["model"]
        agent["displacement"] = self.momentum * agent["displacement"] + (1 - self.momentum) * went
