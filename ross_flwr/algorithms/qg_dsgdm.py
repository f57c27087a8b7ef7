"""Quasi-global momentum."""

import torch
from torch import Tensor

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import register, step
from ross_flwr.algorithms.local_steps import LocalSteps
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.learning.agent import Agent


@register("qg-dsgdm")
class QGDSGDm(LocalSteps):
    """QG-DSGDm (Lin et al., ICML 2021): the momentum follows the mixed models, not the agent's own gradients.

    ::

        K times, from x̂_i = x_i:  x̂_i ← x̂_i − η (α m_i + ∇F_i(x̂_i; ξ_i));   x_i⁺ = Σ_j w_ij x̂_j
        m_i ← α m_i + (1 − α) (x_i − x_i⁺) / (K η);    x_i ← x_i⁺

    The two α are the same, as in the paper's experiments. K = 1 is the paper's; with more, m_i follows the mean step.
    The state keeps d_i = η m_i, which needs no division by η.

    State: x_i, d_i (zero at first). Per agent, pass and k neighbours: one exchange, K gradients, k·P·4 bytes. With
    α = 0 it is D-PSGD, adapt-then-combine.
    """

    family = "decentralized optimisation"

    momentum: float = options.momentum()

    def start(self, agent: Agent) -> None:
        """Begin with no momentum."""
        agent["displacement"] = agent["model"].new_zeros(agent["model"].shape)

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x̂_i."""
        return broadcast(model=self.train(agent).sub_(agent["displacement"], alpha=self.local_steps * self.momentum))

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models, and let the momentum follow the step to the average."""
        before, agent["model"] = agent["model"], agent.mix(inbox.gather("model"))
        went = (before - agent["model"]) / self.local_steps
        agent["displacement"] = self.momentum * agent["displacement"] + (1 - self.momentum) * went

    def direction(self, agent: Agent, model: Tensor, batch: int) -> Tensor:
        """Return ∇F_i at `model` moved by the momentum of the steps before."""
        steps = batch % self.local_steps
        return agent.gradient(torch.sub(model, agent["displacement"], alpha=steps * self.momentum), batch)
