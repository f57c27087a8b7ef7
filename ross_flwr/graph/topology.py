"""Who talks to whom: the graph of a run and its mixing matrix W.

On an undirected graph W is symmetric and doubly stochastic, with w_ij > 0 exactly on the edges and the diagonal. Gossip
with it, x_i ← Σ_j w_ij x_j, shrinks disagreement at least by the factor √ρ = 1 − `Topology.spectral_gap` per pass. On a
directed graph w_ij > 0 where j sends to i, and the rule `push` makes columns that sum to 1.

Some graphs are random. Such a graph can be drawn anew from time to time, by its `epoch`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import signature

import networkx as nx
import numpy as np

from ross_flwr.config import ConfigError, require
from ross_flwr.graph.changing import CHANGING
from ross_flwr.graph.mixing import MIXING_RULES, Matrix
from ross_flwr.graph.registry import TOPOLOGIES
from ross_flwr.graph.undirected import edge_list

__all__ = [
    "CHANGING",
    "MIXING_RULES",
    "TOPOLOGIES",
    "Place",
    "Places",
    "Topology",
    "build",
    "of_graph",
    "redrawn",
    "require_topology",
]

Place = tuple[Mapping[int, float], Mapping[int, float]]
"""Row and column of W that belong to an agent, by the other agent."""

Places = Callable[[int, int], Place]
"""From an agent and a pass over the method's steps to the agent's place."""


@dataclass(frozen=True, eq=False)
class Topology:
    """A graph and its mixing matrix, both read-only. Make one with `build`.

    Attributes
    ----------
    graph : nx.Graph
        Simple, undirected or (a `nx.DiGraph`) directed; its nodes are the agents 0 … N−1.
    mixing : NDArray[np.float64]
        W, shape [N, N].

    Examples
    --------
    >>> line = build("path", 3)
    >>> line.neighbors(1)
    (0, 2)
    >>> line.mixing.round(2)
    array([[0.67, 0.33, 0.  ],
           [0.33, 0.33, 0.33],
           [0.  , 0.33, 0.67]])
    """

    graph: nx.Graph
    mixing: Matrix

    @property
    def num_agents(self) -> int:
        """N."""
        return len(self.mixing)

    def neighbors(self, agent: int) -> tuple[int, ...]:
        """Return the open neighbourhood N_i, ascending: the agents that i hears."""
        return tuple(j for j in self._rows[agent] if j != agent)

    def receivers(self, agent: int) -> tuple[int, ...]:
        """Return the agents that hear i, ascending; on an undirected graph, its neighbours."""
        return tuple(j for j in self._columns[agent] if j != agent)

    def mixing_row(self, agent: int) -> Mapping[int, float]:
        """Return w_ij for every j of the closed neighbourhood M_i, ascending."""
        return self._rows[agent]

    def mixing_column(self, agent: int) -> Mapping[int, float]:
        """Return w_ji for i itself and every j that hears it, ascending."""
        return self._columns[agent]

    def place(self, agent: int) -> Place:
        """Return row and column `agent` of W."""
        return self._rows[agent], self._columns[agent]

    @cached_property
    def spectral_gap(self) -> float:
        """1 − √ρ, where √ρ is the second largest |eigenvalue| of W; at 1, all agree after one pass."""
        symmetric = np.array_equal(self.mixing, self.mixing.T)
        eigenvalues = np.linalg.eigvalsh(self.mixing) if symmetric else np.linalg.eigvals(self.mixing)
        return 1 - float(np.sort(np.abs(eigenvalues))[-2])

    @cached_property
    def digest(self) -> str:
        """16 hex digits by which peers check that they agree on agents, edges and W (to 12 decimals)."""
        text = f"{self.num_agents} {_edges(self.graph)} "
        weights = np.rint(self.mixing * 1e12).astype("<i8")
        return hashlib.sha256(text.encode() + weights.tobytes()).hexdigest()[:16]

    @cached_property
    def _rows(self) -> list[Mapping[int, float]]:
        heard = self.graph.predecessors if self.graph.is_directed() else self.graph.neighbors
        return [{j: float(self.mixing[i, j]) for j in sorted((i, *heard(i)))} for i in range(self.num_agents)]

    @cached_property
    def _columns(self) -> list[Mapping[int, float]]:
        return [
            {j: float(self.mixing[j, i]) for j in sorted((i, *self.graph.neighbors(i)))} for i in range(self.num_agents)
        ]


def build(
    name: str,
    num_agents: int,
    *,
    degree: int = 4,
    probability: float = 0.4,
    radius: float = 0.4,
    seed: int = 0,
    epoch: int = 0,
    clusters: int = 2,
    mixing: str = "metropolis",
) -> Topology:
    """Build the topology `name` of `TOPOLOGIES` on `num_agents` agents, mixed by a rule of `MIXING_RULES`.

    Parameters
    ----------
    name : str
        The graph. Each uses only the settings below that its entry in `TOPOLOGIES` takes. A name with a dot or a slash
        in it is the path of an edge list: a text file of two agents "i j" per line, with comments after #.
    num_agents : int
        At least 2.
    degree : int (default: 4)
        From 1 to num_agents − 1.
    probability : float (default: 0.4)
        Above 0, at most 1.
    radius : float (default: 0.4)
        How far apart agents of a geographic graph hear each other, in sides of the square in which they walk.
    seed : int (default: 0)
        The same seed draws the same random graph.
    epoch : int (default: 0)
        The number of the graph in the sequence that the seed draws.
    clusters : int (default: 2)
        At least 2, of at least 2 agents each.
    mixing : str (default: "metropolis")
        The rule that makes W from the graph.

    Raises
    ------
    ConfigError
        If a name is unknown, or there is no such graph with this number of agents.

    Examples
    --------
    >>> build("random-regular", 10, degree=4, seed=1).neighbors(0)
    (3, 4, 5, 6)
    """
    require_topology(name)
    require("mixing", mixing, MIXING_RULES)
    if num_agents < 2:
        raise ConfigError(f"num-agents = {num_agents} is not allowed: a topology takes at least 2")
    settings = {
        "degree": degree,
        "probability": probability,
        "radius": radius,
        "seed": seed,
        "epoch": epoch,
        "clusters": clusters,
    }
    builder = TOPOLOGIES.get(name) or partial(edge_list, file=name)
    wanted = signature(builder).parameters
    drawn = builder(num_agents, **{key: value for key, value in settings.items() if key in wanted})
    if drawn.is_directed() and mixing != "push":
        raise ConfigError(
            f"mixing = '{mixing}' takes an undirected graph, and topology = '{name}' is directed: use mixing = 'push'"
        )
    drawn.add_nodes_from(range(num_agents))  # in a matching an agent may have no edge
    return of_graph(drawn, mixing)


def require_topology(name: str) -> None:
    """Refuse a name that is neither known nor the path of an edge list."""
    if "." not in name and "/" not in name:
        require("topology", name, TOPOLOGIES)


def of_graph(drawn: nx.Graph, mixing: str = "metropolis") -> Topology:
    """Return the topology of a graph on 0 … N−1, mixed by a rule of `MIXING_RULES`.

    Raises
    ------
    ConfigError
        If the graph's nodes are not the agents 0 … N−1, or the rule is not known.

    Examples
    --------
    >>> of_graph(nx.path_graph(3), "uniform").mixing_row(0)
    {0: 0.6666666666666667, 1: 0.3333333333333333}
    """
    require("mixing", mixing, MIXING_RULES)
    if set(drawn) != set(range(len(drawn))):
        raise ConfigError(
            f"the graph has the nodes {sorted(drawn, key=str)[:5]} …: expected the agents 0 to {len(drawn) - 1}"
        )
    graph = type(drawn)()  # the result must not depend on the order in which a builder added agents and edges
    graph.add_nodes_from(range(len(drawn)))
    graph.add_edges_from(_edges(drawn))
    matrix = MIXING_RULES[mixing](graph)
    matrix.setflags(write=False)
    return Topology(nx.freeze(graph), matrix)


def redrawn() -> list[str]:
    """Return the topologies that give a different graph in every epoch."""
    return [name for name, builder in TOPOLOGIES.items() if "epoch" in signature(builder).parameters]


def _edges(graph: nx.Graph) -> list[tuple[int, ...]]:
    return sorted(edge if graph.is_directed() else tuple(sorted(edge)) for edge in graph.edges)
