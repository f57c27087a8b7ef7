"""Neighborhood gradient clustering."""

import torch

from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.cross_gradients import LookAheadCrossGradients
from ross_flwr.algorithms.messages import Inbox
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("ngc")
class NGC(LookAheadCrossGradients):
    """NGC (Aketi, Kodge and Roy, arXiv:2209.14390): mean of the own gradient and one kind of cross-gradients.

    ::

        g̃_i = 1/m_i Σ_{j∈M_i} ∇F_j(x_i; ξ_j)    data-variant (a = 1): the neighbours' data at the own model
        g̃_i = 1/m_i Σ_{j∈M_i} ∇F_i(x_j; ξ_i)    model-variant (a = 0): the own data at the neighbours' models
        u_i ← α u_i + g̃_i
        x_i ← x_i + γ Σ_j w_ij (x_j − x_i) − η (g̃_i + α u_i)

    State: x_i, u_i (zero at first; not mixed). Per agent, pass and k neighbours: 1 + k gradients either way; a = 1
    takes two exchanges and 2·k·P·4 bytes, a = 0 one exchange and k·P·4 bytes, those of D-PSGD. The paper's γ is 1, and
    0.1 where each class has an agent of its own. On a complete graph from equal models, γ = 1, α = 0 and a = 1 are SGD
    on the mean gradient.

    Not here: compressed cross-gradients (CompNGC) and quasi-global momentum.
    """

    cluster: str = option(
        "data",
        "the cross-gradients averaged: those of the neighbours' data, or at their models",
        choices=("data", "model"),
    )

    def __post_init__(self) -> None:
        if self.cluster == "model":  # nothing to send back: the second exchange falls away
            object.__setattr__(self, "steps", ("share", "descend"))

    @property
    def undefended(self) -> Algorithm:
        """Attackers follow their own gradient alone; in the model-variant all gradients are of the own data."""
        return self if self.cluster == "model" else super().undefended

    @step()
    def descend(self, agent: Agent, inbox: Inbox) -> None:
        """Average the gradients and step along their mean."""
        if self.cluster == "model":
            models = inbox.gather("model")
            self.prepare(agent, models)
            gradients = {j: agent.gradient(model) for j, model in models.items()}
            agent.report(weights={agent.index: 1.0})
        else:
            gradients = inbox.gather("gradient")
            agent.report(weights=dict.fromkeys(gradients, 1 / len(gradients)))
        self.look_ahead(agent, torch.stack(list(gradients.values())).mean(0))
