"""Gossip on directed graphs."""

import numpy as np
import torch
from numpy.typing import NDArray

from ross_flwr.algorithms.algorithm import register, step
from ross_flwr.algorithms.local_steps import LocalSteps, local_steps
from ross_flwr.algorithms.messages import Form, Inbox, Message, vector
from ross_flwr.config import ConfigError
from ross_flwr.learning.agent import Agent


@register("sgp")
class SGP(LocalSteps):
    """Stochastic gradient push (Assran et al., ICML 2019): D-PSGD on directed graphs.

    ::

        x_i ← x_i − η ∇F_i(x_i / w_i; ξ_i), K times
        x_i ← Σ_j p_ij x_j;   w_i ← Σ_j p_ij w_j;   z_i = x_i / w_i          (push-sum; w_i = 1 at first)

    The matrix of the p_ij is the mixing matrix, whose columns sum to 1: agent j splits x_j and w_j among those who hear
    it and itself. Its rows need not sum to 1; w_i makes up for that. Σ_i w_i stays N, and only gradients change
    Σ_i x_i. Gradients are taken, and accuracy is reported, at z_i: ``agent["model"]`` is z_i, and x_i = w_i z_i.
    A lost message takes away its share of both x and w, so z stays an average, but of fewer models.

    State: z_i, w_i. Per agent and pass, with k agents that hear it: one exchange, K gradients, k·(P + 1)·4 bytes.
    With a doubly stochastic matrix every w_i is 1 and it is D-PSGD, adapt-then-combine. The paper takes
    K = 1.
    """

    family = "decentralized optimisation"
    needs = ("columns of W that sum to 1",)
    invariant = "Σ_i w_i = N"
    averages = False

    def check(self, mixing: NDArray[np.float64], total_passes: int) -> None:
        """Refuse a W whose columns do not sum to 1."""
        if not np.allclose(mixing.sum(axis=0), 1):
            raise ConfigError("sgp takes a mixing matrix whose columns sum to 1: use mixing = 'push'")

    def start(self, agent: Agent) -> None:
        """Begin with w_i = 1."""
        agent["push_weight"] = agent["model"].new_ones(1)

    @step(sends=lambda self, agent: {"model": vector(agent), "push_weight": Form((1,), agent["model"].dtype)})
    def share(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Descend, and send p_ji (x_i, w_i) to every j that hears i."""
        weight = agent["push_weight"]
        rate = self.learning_rate / float(weight)
        descent = local_steps(agent, self.local_steps, rate, optimizer=self.optimizer)
        pushed = (weight * agent["model"]).sub_(descent, alpha=self.learning_rate)
        return {j: {"model": p * pushed, "push_weight": p * weight} for j, p in agent.mixing_column.items()}

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Add up what arrived."""
        agent["push_weight"] = weight = torch.stack([*inbox.gather("push_weight").values()]).sum(0)
        agent["model"] = torch.stack([*inbox.gather("model").values()]).sum(0) / weight
