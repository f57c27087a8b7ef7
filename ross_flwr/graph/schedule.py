"""The graph of every pass of a run: always the same, redrawn from time to time, or in some rounds complete."""

from collections.abc import Callable, Mapping
from functools import cached_property

from ross_flwr.config import ConfigError
from ross_flwr.graph import topology
from ross_flwr.graph.options import GraphOptions
from ross_flwr.graph.topology import Place, Places, Topology

__all__ = ["Graphs", "read_graphs"]


class Graphs:
    """The graphs of a run. A graph is drawn when it is first asked for.

    Parameters
    ----------
    draw : callable
        From an epoch, counted from 0, to its topology.
    num_agents : int
        N.
    every : int (default: 0)
        Rounds in an epoch; 0 keeps the graph of epoch 0.
    average_every : int (default: 0)
        In one of this many rounds all agents are neighbours, with equal weights (Gossip-PGA); 0 for never.
    passes : int (default: 1)
        Passes over the algorithm's steps in one round.
    name : str, optional
        The graph's name in the summary.

    Examples
    --------
    >>> ring = topology.build("ring", 5)
    >>> Graphs(lambda epoch: ring, 5).at(12) is ring
    True
    """

    def __init__(
        self,
        draw: Callable[[int], Topology],
        num_agents: int,
        *,
        every: int = 0,
        average_every: int = 0,
        passes: int = 1,
        name: str = "",
    ) -> None:
        self.num_agents = num_agents
        self.every = every
        self.average_every = average_every
        self.name = name
        self._draw = draw
        self._passes = passes
        self._drawn: dict[int, Topology] = {}
        self._heard: list[list[int]] = []

    @property
    def first(self) -> Topology:
        """Graph and mixing matrix of the first pass."""
        return self.at(0)

    @property
    def changes(self) -> bool:
        """Whether the graph changes from round to round."""
        return self.every > 0 or self.average_every > 0

    @property
    def setting(self) -> str:
        """How the graph changes, in the words of the configuration."""
        return f"topology-every = {self.every} with average-every = {self.average_every}"

    def at(self, pass_number: int) -> Topology:
        """Return graph and mixing matrix of a pass, counted from 0."""
        if self.averages(pass_number // self._passes + 1):
            return self._everybody
        epoch = pass_number // (self.every * self._passes) if self.every else 0
        if epoch not in self._drawn:
            self._drawn = {epoch: self._draw(epoch)}
        return self._drawn[epoch]

    def averages(self, number: int) -> bool:
        """Return whether round `number`, counted from 1, averages over all agents."""
        return self.average_every > 0 and number % self.average_every == 0

    def places(self, told: Mapping[int, Place]) -> Places | None:
        """Return what gives an agent its row and column of W in every pass; None if the graph stays the same.

        Parameters
        ----------
        told : mapping of int to Place
            The agents' places in the first graph. A node uses them if the graph is not redrawn, because it may lack
            what the graph is made from, such as a file.
        """

        def place(agent: int, pass_number: int) -> Place:
            if self.every or self.averages(pass_number // self._passes + 1):
                return self.at(pass_number).place(agent)
            return told[agent]

        return place if self.changes else None

    def heard_by(self, agent: int, usual: int, passes: int) -> list[int]:
        """Return how many agents hear `agent` in each of the first `passes` passes.

        Parameters
        ----------
        agent, passes : int
            The agent, and how many passes.
        usual : int
            How many hear it in the first graph; a node may lack what that is made from, such as a file.
        """
        if self.every:
            while len(self._heard) < passes:
                topology = self.at(len(self._heard))
                self._heard.append([len(topology.receivers(i)) for i in range(self.num_agents)])
            return [each[agent] for each in self._heard[:passes]]
        return [self.num_agents - 1 if self.averages(t // self._passes + 1) else usual for t in range(passes)]

    @cached_property
    def _everybody(self) -> Topology:
        """The graph of the rounds that average over all agents; its W is 11ᵀ / N."""
        return topology.build("complete", self.num_agents)


def read_graphs(options: GraphOptions, *, num_agents: int, seed: int, passes: int = 1) -> Graphs:
    """Return the graphs that the keys ask for.

    Raises
    ------
    ConfigError
        When the keys contradict each other. An impossible graph is refused when it is drawn.
    """

    def draw(epoch: int) -> Topology:
        return topology.build(
            options.topology,
            num_agents,
            degree=options.topology_degree,
            seed=seed,
            epoch=epoch,
            clusters=options.topology_clusters,
            mixing=options.mixing,
        )

    graphs = Graphs(
        draw,
        num_agents,
        every=options.topology_every,
        average_every=options.average_every,
        passes=passes,
        name=options.topology,
    )
    if options.topology_every and options.topology not in topology.redrawn():
        raise ConfigError(
            f"topology-every = {options.topology_every} changes nothing: topology = '{options.topology}' is always the "
            "same"
        )
    if options.average_every == 1:
        raise ConfigError("average-every = 1 leaves no round to the topology: use 2 or more, or topology = 'complete'")
    if not graphs.changes and options.topology in topology.CHANGING:
        remedy = "topology-every = 1" if options.topology in topology.redrawn() else "average-every = 10, for one"
        raise ConfigError(
            f"{graphs.setting} keeps the first graph, and topology = '{options.topology}' alone does not connect all "
            f"agents: use {remedy}, or another topology"
        )
    return graphs
