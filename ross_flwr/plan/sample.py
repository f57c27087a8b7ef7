"""Which nodes are rehearsed and simulated where a run has more of them than that takes."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from statistics import fmean

from ross_flwr.config import Config, ConfigError, resolve
from ross_flwr.graph.blocks import blocks
from ross_flwr.graph.options import GraphOptions
from ross_flwr.graph.schedule import read_graphs
from ross_flwr.graph.topology import Topology
from ross_flwr.plan.network import Load, Sack
from ross_flwr.plan.rehearsal import Rehearsal, rehearse
from ross_flwr.runs.options import RunOptions

__all__ = ["Sample"]

FEW, MANY = 16, 100
"""The most nodes that are rehearsed, if the graph is no denser with more, and the most that are simulated."""

DENSER = 1.5
"""A graph whose largest degree grows by this factor is denser."""


@dataclass(frozen=True)
class Sample:
    """The nodes of a run, and those that stand for them.

    Attributes
    ----------
    config : Config
        The run.
    nodes, per_node : int
        Its nodes, and the agents that each hosts.
    """

    config: Config
    nodes: int
    per_node: int

    @classmethod
    def of(cls, config: Config) -> "Sample":
        """Return the sample of the run with this configuration.

        Raises
        ------
        ConfigError
            When the run has more nodes than are simulated, and its graph is denser with more agents.
        """
        agents = config.part(RunOptions).num_agents
        nodes = min(int(config.values["num-nodes"]) or agents, agents)
        sample = cls(config, nodes, ceil(agents / nodes))
        if nodes > MANY and sample._grows(MANY // 2, MANY):
            raise ConfigError(
                f"a plan simulates {MANY} nodes, which cannot stand for {nodes} where topology = "
                f"'{config.part(GraphOptions).topology}' gives agents more neighbours in a larger graph: use one with "
                "a degree, such as random-regular"
            )
        return sample

    @property
    def simulated(self) -> int:
        """How many nodes are simulated."""
        return min(self.nodes, MANY)

    def rehearse(self, *, crowded: bool) -> Rehearsal:
        """Rehearse as many nodes as tell what the others do, `crowded` or not.

        Raises
        ------
        ConfigError
            When the run is not possible.
        """
        few = min(self.nodes, FEW)
        if few < self.nodes and self._grows(few, self.simulated):
            few = self.simulated
        changed = {} if few == self.nodes else {"num-agents": few * self.per_node, "num-nodes": 0, "attackers": 0}
        return rehearse(resolve({**self.config.values, **changed}), few, crowded=crowded)

    def load(self, rehearsed: Load, scale: float) -> Load:
        """Return what the simulated nodes do, if processors take `scale` times as long as in the rehearsal."""
        if rehearsed.num_nodes == self.nodes:
            return Load(
                [[each * scale for each in row] for row in rehearsed.seconds], rehearsed.sacks, rehearsed.distinct
            )
        everybody = range(self.simulated)
        means = [_mean(sacks.values()) for sacks in rehearsed.sacks]
        return Load(
            [[fmean(row) * scale] * len(everybody) for row in rehearsed.seconds],
            [dict.fromkeys(self._edges, mean) if mean.count else {} for mean in means],
            [[fmean(row)] * len(everybody) for row in rehearsed.distinct],
        )

    @cached_property
    def _edges(self) -> list[tuple[int, int]]:
        """Pairs of simulated nodes of which the first sends to the second."""
        topology = self._topology(self.simulated)
        spread = blocks(topology, self.simulated)
        home = {agent: node for node, block in enumerate(spread) for agent in block}
        edges = {(home[i], home[j]) for i in home for j in topology.receivers(i)}
        return sorted((a, b) for a, b in edges if a != b)

    def _grows(self, fewer: int, more: int) -> bool:
        return _degree(self._topology(more)) > DENSER * _degree(self._topology(fewer))

    def _topology(self, nodes: int) -> Topology:
        run = self.config.part(RunOptions)
        return read_graphs(
            self.config.part(GraphOptions),
            num_agents=nodes * self.per_node,
            seed=run.seed,
            passes=run.batches_per_round,
        ).first


def _degree(topology: Topology) -> int:
    return max(len(topology.neighbors(i)) for i in range(topology.num_agents))


def _mean(sacks: Collection[Sack]) -> Sack:
    if not sacks:
        return Sack(0, 0)
    return Sack(fmean(each.count for each in sacks), fmean(each.size for each in sacks))
