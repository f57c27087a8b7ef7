"""D²: decentralized training over decentralized data."""

import numpy as np
from numpy.typing import NDArray

from ross_flwr.algorithms.algorithm import register, require_symmetric, step
from ross_flwr.algorithms.local_steps import LocalSteps
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.config import ConfigError
from ross_flwr.learning.agent import Agent


@register("d2")
class D2(LocalSteps):
    """D² (Tang et al., ICML 2018): D-PSGD without the bias that different data cause, at one vector per message.

    The paper's listing, with g_i^t = ∇F_i(x_i^t; ξ_i^t), is

    ::

        x_i^1     = Σ_j w_ij (x_j^0 − η g_j^0)
        x_i^(t+1) = Σ_j w_ij (2 x_j^t − x_j^(t−1) − η (g_j^t − g_j^(t−1)))

    The last two rounds leave c_i = x_i^t − x_i^(t−1) + η g_i^(t−1), the disagreement gathered so far. With c_i = 0 at
    first, the same models come from

    ::

        z_i = x_i + c_i − η D_i,   D_i = ∇F_i(x_i; ξ_i) for K = 1
        x_i ← Σ_j w_ij z_j;   c_i ← c_i + Σ_j w_ij z_j − z_i

    Σ_i c_i = 0, so the mean model follows SGD on the mean loss. With K > 1 local steps, D_i is the sum of their
    gradients, and the models settle where those sum to 0 over all agents. W has to be symmetric with λ_min(W) > −1/3. A
    message that only one side of an edge misses breaks the sum for good.

    State: x_i, c_i. Per agent, pass and k neighbours: one exchange, K gradients, k·P·4 bytes. With W = 11ᵀ/N it is
    centralized SGD, with c_i kept at 0 D-PSGD, adapt-then-combine.
    """

    family = "decentralized optimisation"
    needs = ("a symmetric W", "λ_min(W) > −1/3")
    fixed_graph = True
    invariant = "Σ_i c_i = 0"

    def check(self, mixing: NDArray[np.float64], total_passes: int) -> None:
        """Refuse a directed graph and a W with λ_min(W) ≤ −1/3."""
        require_symmetric(self.name, mixing)
        smallest = float(np.linalg.eigvalsh(mixing)[0])
        if smallest <= -1 / 3 + 1e-9:
            raise ConfigError(
                f"algorithm = 'd2' takes a mixing matrix whose eigenvalues are all above -1/3, and this one's smallest "
                f"is {smallest:.4f}: use mixing = 'lazy-metropolis'"
            )

    def start(self, agent: Agent) -> None:
        """Begin with no correction."""
        agent["correction"] = agent["model"].new_zeros(agent["model"].shape)

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send z_i."""
        return broadcast(model=self.train(agent).add_(agent["correction"]))

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's z_j, and add to c_i how far z_i was off."""
        proposals = inbox.gather("model")
        agent["model"] = agent.mix(proposals)
        agent["correction"] = agent["correction"] + (agent["model"] - proposals[agent.index])
