"""Sparse gossip, and one merge of all models at the end."""

from math import ceil, log

import numpy as np
from numpy.typing import NDArray

from ross_flwr.algorithms.algorithm import register, require_symmetric, step
from ross_flwr.algorithms.local_steps import LocalSteps
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.config import ConfigError, option
from ross_flwr.learning.agent import Agent

LEFT = 0.01
"""The share of the models' disagreement that the merge may leave."""


@register("single-merge")
class SingleMerge(LocalSteps):
    """Single global merging (arXiv:2507.06542): agents train nearly alone, and merge their models at the end.

    ::

        t < T − M:  x_i ← x_i after K local steps;   x_i ← Σ_j w_ij x_j too if E divides t + 1
        t ≥ T − M:  x_i ← Σ_j w_ij x_j

    T counts the passes of the run. The paper averages all models at once after the last step; messages go along edges
    here, so the last M passes are for mixing alone. They bring ‖x_i − x̄‖ down by (√ρ)^M, with √ρ the second largest
    |eigenvalue| of W, and the mean of all models stays as it is: M ≥ ⌈log 0.01 / log √ρ⌉, one on a complete graph, is
    asked for. This holds for aggregator = 'mean'; a robust rule has a consensus of its own, or none.

    State: x_i. Per agent, pass and k neighbours: one exchange, of k·P·4 bytes when agents mix and of empty messages
    when not; K gradients in the first T − M passes. So a run takes (⌊(T−M)/E⌋ + M)·k·P·4 bytes, where D-PSGD takes
    T·k·P·4. With E = 1 it is D-PSGD, adapt-then-combine, until the merging.
    """

    family = "decentralized optimisation"
    needs = ("a symmetric W",)
    fixed_graph = True

    gossip_every: int = option(10, "E: agents mix in every E-th pass only", unit="passes", minimum=1)
    merge_passes: int = option(20, "M, the last passes of a run, in which agents only mix", unit="passes", minimum=1)

    def check(self, mixing: NDArray[np.float64], total_passes: int) -> None:
        """Refuse a directed graph, and an M that leaves disagreement or no pass to train in."""
        require_symmetric(self.name, mixing)
        rate = np.abs(np.linalg.eigvalsh(mixing)[:-1]).max()
        needed = ceil(log(LEFT) / log(rate)) if rate > LEFT else 1
        if self.merge_passes < needed:
            raise ConfigError(
                f"merge-passes = {self.merge_passes} leaves {rate**self.merge_passes:.0%} of the models' disagreement "
                f"on this graph: {needed} leave {LEFT:.0%}, and a denser topology needs fewer"
            )
        if self.merge_passes >= total_passes:
            raise ConfigError(
                f"merge-passes = {self.merge_passes} leaves no pass to train in: the run has {total_passes}; raise "
                "num-rounds"
            )

    @step(sends=("model",), optional=True)
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Train unless models are merged, and send x_i if agents mix."""
        if not self.merges(agent):
            agent["model"] = self.train(agent)
        return broadcast(model=agent["model"]) if self.mixes(agent) else {}

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models, if they were sent."""
        if self.mixes(agent):
            agent["model"] = agent.mix(inbox.gather("model"))

    def merges(self, agent: Agent) -> bool:
        """Tell whether this is one of the last M passes."""
        return agent.pass_number >= agent.total_passes - self.merge_passes

    def mixes(self, agent: Agent) -> bool:
        """Tell whether agents mix in this pass."""
        return self.merges(agent) or (agent.pass_number + 1) % self.gossip_every == 0
