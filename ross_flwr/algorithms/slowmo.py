"""Slow momentum over local steps."""

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import Momentum, register
from ross_flwr.algorithms.local_steps import AdaptThenCombine
from ross_flwr.algorithms.messages import Inbox
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.optimizers import read_optimizer


@register("slowmo")
class SlowMo(Momentum, AdaptThenCombine):
    """SlowMo (Wang, Tantia, Ballas and Rabbat, ICLR 2020): a momentum over passes of local steps.

    ::

        z_i = x_i after K local steps with rate η_t
        u_i ← β u_i + (x_i − Σ_j w_ij z_j) / η_t;   x_i ← x_i − α η_t u_i

    The paper averages over all agents: W = 11ᵀ/N. β is `momentum`, α is `outer-rate`, and η_t changes where the
    optimizer has a schedule.

    State: x_i, u_i (zero at first). Per agent, pass and k neighbours: one exchange, K gradients, k·P·4 bytes. With β =
    0 and α = 1 it is LD-SGD.
    """

    family = "decentralized optimisation"

    local_steps: int = options.local_steps(5)
    outer_rate: float = options.outer_rate(1.0)

    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Let the momentum follow the step to the average, and step along it."""
        rate = self.learning_rate * read_optimizer(self.optimizer).schedule.factor(agent.progress)
        went = agent["model"] - agent.mix(inbox.gather("model"))
        agent["momentum"] = self.momentum * agent["momentum"] + went.div_(rate or 1.0)
        agent["model"] = agent["model"].sub(agent["momentum"], alpha=self.outer_rate * rate)
