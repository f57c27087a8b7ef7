"""Who talks to whom: the graph of a run and its mixing matrix W.

On an undirected graph W is symmetric and doubly stochastic, with w_ij > 0 exactly on the edges and the diagonal. Gossip
with it, x_i ← Σ_j w_ij x_j, shrinks disagreement at least by the factor √ρ = 1 − `Topology.spectral_gap` a round. On a
directed graph w_ij > 0 where j sends to i, and the rule `push` makes columns that sum to 1.

Some graphs are drawn by chance; such a graph can be drawn anew every so many rounds, by its `epoch`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from itertools import combinations
from math import isqrt
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import networkx as nx
import numpy as np
from networkx.algorithms.community import kernighan_lin_bisection
from networkx.utils import reverse_cuthill_mckee_ordering
from numpy.typing import NDArray

from ross_flwr.config import ConfigError, require

__all__ = ["CHANGING", "MIXING_RULES", "TOPOLOGIES", "Place", "Places", "Topology", "blocks", "build", "redrawn"]

Matrix = NDArray[np.float64]
Place = tuple[Mapping[int, float], Mapping[int, float]]
"""Row and column of W that belong to an agent, by the other agent."""

Places = Callable[[int, int], Place]
"""From an agent and a pass over the method's steps to the agent's place."""

TOPOLOGIES: dict[str, Callable[..., nx.Graph]] = {}
"""From num_agents and those settings of `build` that it wants, to a graph on 0 … N−1."""

CHANGING = ("one-peer-exponential", "random-matching", "geographic", "islands")
"""Graphs that connect all agents only by changing, or not at all; every other is (strongly) connected."""

MIXING_RULES: dict[str, Callable[[nx.Graph], Matrix]] = {}
"""From a graph on 0 … N−1 to W, float64, shape [N, N]."""

_TRIES = 100
_STRIDE = 0.05  # of a walking agent in each direction and epoch, one standard deviation, in sides of the square
_IMPROVED_BLOCKS = 16
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Topology:
    """A graph and its mixing matrix, both read-only. Make one with `build`.

    Attributes
    ----------
    graph : nx.Graph
        Simple, undirected or (a `nx.DiGraph`) directed; its nodes are the agents 0 … N−1.
    mixing : NDArray[np.float64]
        W, shape [N, N].
    """

    graph: nx.Graph
    mixing: Matrix

    @property
    def num_agents(self) -> int:
        """N."""
        return len(self.mixing)

    def neighbors(self, agent: int) -> tuple[int, ...]:
        """Return the open neighbourhood N_i, ascending: those whom i hears."""
        return tuple(j for j in self._rows[agent] if j != agent)

    def receivers(self, agent: int) -> tuple[int, ...]:
        """Return those who hear i, ascending; on an undirected graph, its neighbours."""
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
        """1 − √ρ, where √ρ is the second largest |eigenvalue| of W; at 1 all agree after one round."""
        return 1 - float(np.sort(np.abs(self._eigenvalues))[-2])

    @property
    def smallest_eigenvalue(self) -> float:
        """λ_min of a symmetric W. The theory of D² asks for more than −1/3; the lazy rules give at least 0."""
        return float(self._eigenvalues[0])

    @cached_property
    def digest(self) -> str:
        """16 hex digits by which peers see that they agree on agents, edges and W (to 12 decimals)."""
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

    @cached_property
    def _eigenvalues(self) -> NDArray[Any]:
        symmetric = np.array_equal(self.mixing, self.mixing.T)
        return np.linalg.eigvalsh(self.mixing) if symmetric else np.linalg.eigvals(self.mixing)


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
    file: str = "",
    mixing: str = "metropolis",
) -> Topology:
    """Build the topology `name` of `TOPOLOGIES` on `num_agents` agents, mixed by a rule of `MIXING_RULES`.

    Parameters
    ----------
    name : str
        The graph; each uses those of the settings below that its entry in `TOPOLOGIES` takes.
    num_agents : int
        At least 2.
    degree : int (default: 4)
        From 1 to num_agents − 1.
    probability : float (default: 0.4)
        Above 0, at most 1.
    radius : float (default: 0.4)
        How far agents of a geographic graph hear each other, in sides of the square they walk in.
    seed : int (default: 0)
        The same seed draws the same random graph.
    epoch : int (default: 0)
        Which of the graphs that the seed draws one after the other.
    clusters : int (default: 2)
        At least 2, of at least 2 agents each.
    file : str (default: "")
        Path of an edge list: two agents "i j" a line, comments after #.
    mixing : str (default: "metropolis")
        The rule that makes W from the graph.

    Raises
    ------
    ConfigError
        If a name is not known, or there is no such graph on so many agents.
    """
    require("topology", name, TOPOLOGIES)
    require("mixing", mixing, MIXING_RULES)
    if num_agents < 2:
        raise ConfigError(f"num-agents = {num_agents} is not allowed: a topology takes at least 2")
    drawn = TOPOLOGIES[name](
        num_agents,
        degree=degree,
        probability=probability,
        radius=radius,
        seed=seed,
        epoch=epoch,
        clusters=clusters,
        file=file,
    )
    if drawn.is_directed() and mixing != "push":
        raise ConfigError(
            f"mixing = '{mixing}' takes an undirected graph, and topology = '{name}' is directed: use mixing = 'push'"
        )
    graph = type(drawn)()  # what follows shall not depend on the order in which a builder added agents and edges
    graph.add_nodes_from(range(num_agents))
    graph.add_edges_from(_edges(drawn))
    matrix = MIXING_RULES[mixing](graph)
    matrix.setflags(write=False)
    return Topology(nx.freeze(graph), matrix)


def redrawn() -> list[str]:
    """Return the topologies that are another graph in every epoch."""
    return [name for name, builder in TOPOLOGIES.items() if "epoch" in signature(builder).parameters]


def blocks(topology: Topology, num_blocks: int) -> list[tuple[int, ...]]:
    """Spread the agents over `num_blocks` nodes, neighbours together where that is cheap.

    Agents are put in line and the line is cut. The line is the natural order, or that of Cuthill and McKee
    (1969), which keeps neighbours near each other, when fewer edges then run between blocks. Up to 16 blocks are
    then improved pair by pair, by exchanging agents (Kernighan and Lin, 1970).

    Returns
    -------
    list[tuple[int, ...]]
        `num_blocks` blocks, agents ascending in each. Sizes differ by at most 1, larger blocks first; with
        more blocks than agents the last ones are empty.

    Raises
    ------
    ValueError
        If `num_blocks` is below 1.
    """
    if num_blocks < 1:
        raise ValueError(f"num_blocks = {num_blocks} is not allowed: agents take at least 1 block")
    graph = topology.graph.to_undirected()

    def edges_between(spread: list[tuple[int, ...]]) -> int:
        home = {agent: number for number, block in enumerate(spread) for agent in block}
        return sum(home[i] != home[j] for i, j in graph.edges)

    lines = [list(range(topology.num_agents)), list(reverse_cuthill_mckee_ordering(graph))]
    cuts = [[tuple(sorted(block.tolist())) for block in np.array_split(line, num_blocks)] for line in lines]
    spread = min(cuts, key=edges_between)  # of equals the first
    if num_blocks <= _IMPROVED_BLOCKS:
        for a, b in combinations(range(min(num_blocks, topology.num_agents)), 2):
            pair = set(spread[a]), set(spread[b])
            better = kernighan_lin_bisection(graph.subgraph(spread[a] + spread[b]), pair, seed=0)
            if nx.cut_size(graph, *better) < nx.cut_size(graph, *pair):
                spread[a], spread[b] = (tuple(sorted(block)) for block in sorted(better, key=len, reverse=True))
    return spread


def _named(registry: dict[str, _Function]) -> Callable[[_Function], _Function]:
    def enter(function: _Function) -> _Function:
        registry[function.__name__.replace("_", "-")] = function
        return function

    return enter


@_named(TOPOLOGIES)
def ring(num_agents: int, **_: object) -> nx.Graph:
    """Connect agent i to i − 1 and i + 1 modulo N."""
    return nx.cycle_graph(num_agents)


@_named(TOPOLOGIES)
def complete(num_agents: int, **_: object) -> nx.Graph:
    """Connect everyone to everyone."""
    return nx.complete_graph(num_agents)


@_named(TOPOLOGIES)
def star(num_agents: int, **_: object) -> nx.Graph:
    """Connect agent 0 to everyone, and no others."""
    return nx.star_graph(num_agents - 1)


@_named(TOPOLOGIES)
def path(num_agents: int, **_: object) -> nx.Graph:
    """Connect agent i to i − 1 and i + 1, but not the last agent to the first."""
    return nx.path_graph(num_agents)


@_named(TOPOLOGIES)
def bipartite(num_agents: int, **_: object) -> nx.Graph:
    """Connect the last two agents, the hubs, to everyone but each other: K_{2,N−2}."""
    # What the code of CGA (Esfandiari et al., ICML 2021) calls bipartite.
    if num_agents < 3:
        raise ConfigError(f"num-agents = {num_agents} is too small: topology = 'bipartite' takes at least 3")
    return nx.complete_bipartite_graph(num_agents - 2, 2)


@_named(TOPOLOGIES)
def complete_bipartite(num_agents: int, **_: object) -> nx.Graph:
    """Connect everyone in the first half to everyone in the second: K_{⌊N/2⌋,⌈N/2⌉}."""
    return nx.complete_bipartite_graph(num_agents // 2, num_agents - num_agents // 2)


@_named(TOPOLOGIES)
def grid(num_agents: int, **_: object) -> nx.Graph:
    """Connect neighbours in rows and columns, as near to a square as N allows; a path when N is prime."""
    return _renumbered(nx.grid_2d_graph(*_sides(num_agents)))


@_named(TOPOLOGIES)
def torus(num_agents: int, **_: object) -> nx.Graph:
    """Connect neighbours in a grid whose rows and columns close to rings; both sides are at least 3."""
    rows, columns = _sides(num_agents)
    if rows < 3:
        raise ConfigError(
            f"num-agents = {num_agents} makes a grid of {rows} x {columns}: topology = 'torus' takes sides "
            "of at least 3, as 9, 12, 15 or 16 agents have"
        )
    return _renumbered(nx.grid_2d_graph(rows, columns, periodic=True))


@_named(TOPOLOGIES)
def hypercube(num_agents: int, **_: object) -> nx.Graph:
    """Connect agents whose numbers differ in one binary digit; N is a power of two."""
    if num_agents & (num_agents - 1):
        raise ConfigError(f"num-agents = {num_agents} is not a power of two: topology = 'hypercube' takes one")
    return _renumbered(nx.hypercube_graph(num_agents.bit_length() - 1))


@_named(TOPOLOGIES)
def exponential(num_agents: int, **_: object) -> nx.Graph:
    """Connect agent i to i ± 1, 2, 4, 8, … modulo N: the static exponential graph, made undirected."""
    # Ying et al., NeurIPS 2021 (arXiv:2110.13363), have the directed edges i → i + 2^k alone.
    return nx.circulant_graph(num_agents, [2**k for k in range((num_agents - 1).bit_length())])


@_named(TOPOLOGIES)
def random_regular(num_agents: int, *, degree: int, seed: int, epoch: int, **_: object) -> nx.Graph:
    """Connect everyone to topology-degree others, at random."""
    _check_degree(num_agents, degree)
    if num_agents * degree % 2:
        raise ConfigError(
            f"topology-degree = {degree} times num-agents = {num_agents} is odd: topology = 'random-regular' "
            "takes an even product, so change one of the two by 1"
        )

    def draw(random: Random) -> nx.Graph:
        if 2 * degree < num_agents:
            return nx.random_regular_graph(degree, num_agents, random)
        # networkx may search minutes for a dense graph; the edges that one lacks make a sparse regular graph.
        return nx.complement(nx.random_regular_graph(num_agents - 1 - degree, num_agents, random))

    return _connected(draw, num_agents, _random(seed, epoch), f"topology-degree = {degree}")


@_named(TOPOLOGIES)
def erdos_renyi(num_agents: int, *, probability: float, seed: int, epoch: int, **_: object) -> nx.Graph:
    """Connect every two agents with probability topology-probability."""
    _check_probability(probability)

    def draw(random: Random) -> nx.Graph:
        return nx.gnp_random_graph(num_agents, probability, random)

    return _connected(draw, num_agents, _random(seed, epoch), f"topology-probability = {probability}")


@_named(TOPOLOGIES)
def barabasi_albert(num_agents: int, *, degree: int, seed: int, epoch: int, **_: object) -> nx.Graph:
    """Connect each newcomer to topology-degree // 2 agents (at least 1), preferring those with many."""
    # Barabási and Albert, 1999. An edge has two ends: the mean degree comes near topology-degree from below.
    _check_degree(num_agents, degree)
    return nx.barabasi_albert_graph(num_agents, max(1, degree // 2), _random(seed, epoch))


@_named(TOPOLOGIES)
def watts_strogatz(num_agents: int, *, degree: int, probability: float, seed: int, epoch: int, **_: object) -> nx.Graph:
    """Connect everyone to the topology-degree nearest, then rewire edges with topology-probability."""
    # Watts and Strogatz, 1998
    _check_degree(num_agents, degree)
    _check_probability(probability)
    if degree % 2:
        raise ConfigError(f"topology-degree = {degree} is odd: topology = 'watts-strogatz' takes an even number")

    def draw(random: Random) -> nx.Graph:
        return nx.watts_strogatz_graph(num_agents, degree, probability, random)

    return _connected(draw, num_agents, _random(seed, epoch), f"topology-degree = {degree}")


@_named(TOPOLOGIES)
def clusters(num_agents: int, *, clusters: int, **_: object) -> nx.Graph:
    """Connect everyone in each of topology-clusters clusters, and the last agent of each to the first of the next."""
    graph = islands(num_agents, clusters=clusters)
    firsts = [min(members) for members in nx.connected_components(graph)]
    graph.add_edges_from(((first - 1) % num_agents, first) for first in firsts)
    return graph


@_named(TOPOLOGIES)
def islands(num_agents: int, *, clusters: int, **_: object) -> nx.Graph:
    """Connect everyone in each of topology-clusters clusters, and nobody between them: for average-every."""
    if not 2 <= clusters <= num_agents // 2:
        raise ConfigError(
            f"topology-clusters = {clusters} is not allowed: with num-agents = {num_agents} it takes from 2 to "
            f"{num_agents // 2}"
        )
    members = np.array_split(range(num_agents), clusters)
    return nx.compose_all(nx.complete_graph(cluster.tolist()) for cluster in members)


@_named(TOPOLOGIES)
def edge_list(num_agents: int, *, file: str, **_: object) -> nx.Graph:
    """Connect as the text file topology-file says: two agents 'i j' a line, comments after #."""
    setting = f"topology-file = '{file}'"
    if not file:
        raise ConfigError(f"{setting} is empty: topology = 'edge-list' takes the path of a text file")
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:  # ValueError: not UTF-8
        raise ConfigError(f"{setting} cannot be read as text: {error}") from error
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()  # networkx would skip a lone word, and drop a third
        if words and not (len(words) == 2 and all(word.isdecimal() for word in words)):
            raise ConfigError(f"{setting} says '{line}' in line {number}: a line takes two agents, as in '0 1'")
    graph = nx.parse_edgelist(lines, nodetype=int)
    if wrong := set(graph) ^ set(range(num_agents)):
        fault = "is there" if (agent := min(wrong)) in graph else "has no edge"
        raise ConfigError(
            f"{setting} does not fit num-agents = {num_agents}: it takes exactly the agents 0 to "
            f"{num_agents - 1}, and agent {agent} {fault}"
        )
    if loops := list(nx.nodes_with_selfloops(graph)):
        raise ConfigError(f"{setting} connects agent {min(loops)} to itself: an edge takes two different agents")
    if not nx.is_connected(graph):
        parts = nx.number_connected_components(graph)
        raise ConfigError(f"{setting} falls into {parts} parts: a topology takes a path between any two agents")
    return graph


@_named(TOPOLOGIES)
def directed_ring(num_agents: int, **_: object) -> nx.DiGraph:
    """Let agent i send to i + 1 modulo N (directed)."""
    return nx.cycle_graph(num_agents, create_using=nx.DiGraph)


@_named(TOPOLOGIES)
def directed_exponential(num_agents: int, **_: object) -> nx.DiGraph:
    """Let agent i send to i + 1, 2, 4, 8, … modulo N: the static exponential graph (directed)."""
    # Ying et al., NeurIPS 2021 (arXiv:2110.13363)
    return _shifts(num_agents, range((num_agents - 1).bit_length()))


@_named(TOPOLOGIES)
def random_out(num_agents: int, *, degree: int, seed: int, epoch: int, **_: object) -> nx.DiGraph:
    """Let everyone send to topology-degree others at random, and be heard by how many it comes (directed)."""
    _check_degree(num_agents, degree)

    def draw(random: Random) -> nx.DiGraph:
        others = {i: [j for j in range(num_agents) if j != i] for i in range(num_agents)}
        return nx.DiGraph((i, j) for i in others for j in random.sample(others[i], degree))

    return _connected(draw, num_agents, _random(seed, epoch), f"topology-degree = {degree}")


@_named(TOPOLOGIES)
def one_peer_exponential(num_agents: int, *, epoch: int, **_: object) -> nx.DiGraph:
    """Let agent i send to i + 2^(t mod h) modulo N in epoch t, one of h = ⌈log₂ N⌉ hops (directed, changing)."""
    # Assran et al., ICML 2019 (arXiv:1811.10792)
    return _shifts(num_agents, [epoch % (num_agents - 1).bit_length()])


@_named(TOPOLOGIES)
def random_matching(num_agents: int, *, seed: int, epoch: int, **_: object) -> nx.Graph:
    """Pair the agents at random, anew in every epoch; with an odd number one stays alone (changing)."""
    order = list(range(num_agents))
    _random(seed, epoch).shuffle(order)
    return nx.Graph(zip(order[::2], order[1::2], strict=False))


@_named(TOPOLOGIES)
def geographic(num_agents: int, *, radius: float, seed: int, epoch: int, **_: object) -> nx.Graph:
    """Let agents walk in the unit square, and connect those within topology-radius (changing)."""
    walk = np.random.default_rng(seed)
    start, steps = walk.random((num_agents, 2)), walk.normal(0, _STRIDE, (epoch, num_agents, 2))
    places = 1 - np.abs((start + steps.sum(axis=0)) % 2 - 1)  # walls reflect
    return nx.random_geometric_graph(num_agents, radius, pos=dict(enumerate(places.tolist())))


@_named(MIXING_RULES)
def metropolis(graph: nx.Graph) -> Matrix:
    """Weigh an edge 1 / (1 + max(k_i, k_j)), with k the degrees (Xiao, Boyd and Lall, IPSN 2005)."""
    return _mixing(graph, lambda degrees: np.maximum.outer(degrees, degrees))


@_named(MIXING_RULES)
def uniform(graph: nx.Graph) -> Matrix:
    """Weigh every edge 1 / (1 + max_l k_l), after the largest degree of the graph."""
    return _mixing(graph, np.max)


@_named(MIXING_RULES)
def lazy_metropolis(graph: nx.Graph) -> Matrix:
    """Go half way from metropolis to the identity, (W + I) / 2: no eigenvalue is negative."""
    return (metropolis(graph) + np.eye(len(graph))) / 2


@_named(MIXING_RULES)
def lazy_uniform(graph: nx.Graph) -> Matrix:
    """Go half way from uniform to the identity, (W + I) / 2: no eigenvalue is negative."""
    return (uniform(graph) + np.eye(len(graph))) / 2


@_named(MIXING_RULES)
def push(graph: nx.Graph) -> Matrix:
    """Weigh what agent j sends, and what it keeps, 1 / (1 + k_j), k_j being those who hear j: columns sum to 1."""
    sent: Matrix = nx.to_numpy_array(graph, nodelist=range(len(graph))).T + np.eye(len(graph))
    sent /= sent.sum(axis=0)
    return sent


def _mixing(graph: nx.Graph, largest: Callable[[Matrix], Matrix]) -> Matrix:
    matrix: Matrix = nx.to_numpy_array(graph, nodelist=range(len(graph)))
    matrix /= 1 + largest(matrix.sum(axis=1))
    np.fill_diagonal(matrix, 1 - matrix.sum(axis=1))
    return matrix


def _edges(graph: nx.Graph) -> list[tuple[int, ...]]:
    return sorted(edge if graph.is_directed() else tuple(sorted(edge)) for edge in graph.edges)


def _shifts(num_agents: int, exponents: Iterable[int]) -> nx.DiGraph:
    return nx.DiGraph((i, (i + 2**k) % num_agents) for k in exponents for i in range(num_agents))


def _renumbered(graph: nx.Graph) -> nx.Graph:
    return nx.convert_node_labels_to_integers(graph, ordering="sorted")


def _sides(num_agents: int) -> tuple[int, int]:
    rows = next(side for side in range(isqrt(num_agents), 0, -1) if num_agents % side == 0)
    return rows, num_agents // rows


def _random(seed: int, epoch: int) -> Random:
    return Random(f"{seed} {epoch}" if epoch else seed)


def _connected(draw: Callable[[Random], nx.Graph], num_agents: int, random: Random, setting: str) -> nx.Graph:
    for _try in range(_TRIES):  # all by one generator: were they seeded anew, nearby seeds would share graphs
        graph = draw(random)
        if nx.is_strongly_connected(graph) if graph.is_directed() else nx.is_connected(graph):
            return graph
    raise ConfigError(f"{setting} gave no connected graph of num-agents = {num_agents} in {_TRIES} tries: raise it")


def _check_degree(num_agents: int, degree: int) -> None:
    if not 1 <= degree < num_agents:
        raise ConfigError(
            f"topology-degree = {degree} is not allowed: with num-agents = {num_agents} it takes from 1 to "
            f"{num_agents - 1}"
        )


def _check_probability(probability: float) -> None:
    if not 0 < probability <= 1:  # refuses NaN, too
        raise ConfigError(f"topology-probability = {probability} is not allowed: it takes above 0, at most 1")
