"""NET-FLEET: gradient tracking with local steps."""

from torch import Tensor

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.learning.agent import Agent


@register("net-fleet")
class NETFLEET(Algorithm):
    """NET-FLEET (Zhang et al., MobiHoc 2022): K local steps whose direction is corrected recursively, then mixing.

    ::

        y_i ← y_i + ∇F_i(x_i; ξ_i^0) − g_i;   g_i ← ∇F_i(x_i; ξ_i^0)
        z^0 = x_i;   v^0 = y_i;   h^0 = g_i
        z^(s+1) = z^s − η v^s                                             for s = 0 … K−1
        h^(s+1) = ∇F_i(z^(s+1); ξ_i^(s+1));   v^(s+1) = v^s + h^(s+1) − h^s
        x_i ← Σ_j w_ij z_j^K;   y_i ← Σ_j w_ij y_j

    The paper's abstract names the scheme; the recursion is reconstructed. It telescopes: h^s is the gradient that was
    added before, so v^s = h^s + (y_i − g_i) is an SGD step with a correction that stays the same for K steps. Across
    rounds g_i is always the gradient that was added, so Σ_i y_i = Σ_i g_i; a missing message breaks that sum for good.
    Not here: evaluating h^s again at z^s on the new mini-batch, as SPIDER does.

    State: x_i, y_i, g_i (both zero at first). Per agent, pass and k neighbours: one exchange, K gradients (nothing
    uses h^K and v^K, so they are not computed), 2·k·P·4 bytes. With K = 1 it is DSGT.
    """

    family = "decentralized optimisation"
    invariant = "Σ_i y_i = Σ_i g_i"

    local_steps: int = options.local_steps(5)

    def batches(self, pass_number: int, degree: int) -> list[int]:
        """Return K mini-batches, a gradient on each."""
        first = self.local_steps * pass_number
        return list(range(first, first + self.local_steps))

    def start(self, agent: Agent) -> None:
        """Begin with nothing tracked."""
        agent["tracker"] = agent["gradient"] = agent["model"].new_zeros(agent["model"].shape)

    @step(sends=("model", "tracker"))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Track the gradient, train, and send z_i^K and y_i."""
        gradient = agent.gradient(agent["model"], self.local_steps * agent.pass_number)
        agent["tracker"] = agent["tracker"] + gradient - agent["gradient"]
        agent["gradient"] = gradient
        return broadcast(model=self.train(agent), tracker=agent["tracker"])

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models and trackers."""
        agent["model"] = agent.mix(inbox.gather("model"))
        agent["tracker"] = agent.mix(inbox.gather("tracker"), models=False)

    def train(self, agent: Agent) -> Tensor:
        """Return z_i^K."""
        direction, gradient = agent["tracker"], agent["gradient"]
        model = agent["model"] - self.learning_rate * direction
        for s in range(1, self.local_steps):
            previous, gradient = gradient, agent.gradient(model, self.local_steps * agent.pass_number + s)
            direction = direction + gradient - previous
            model = model - self.learning_rate * direction
        return model
