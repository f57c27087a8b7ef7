"""Undirected graphs: each function builds one on the agents 0 … N−1."""

import os
from math import isqrt
from pathlib import Path
from random import Random

import networkx as nx
import numpy as np

from ross_flwr.config import ConfigError
from ross_flwr.graph.registry import TOPOLOGIES, check_degree, check_probability, connected, draws, named


@named(TOPOLOGIES)
def ring(num_agents: int) -> nx.Graph:
    """Connect agent i to i − 1 and i + 1 modulo N.

    Examples
    --------
    >>> sorted(ring(4).edges)
    [(0, 1), (0, 3), (1, 2), (2, 3)]
    """
    return nx.cycle_graph(num_agents)


@named(TOPOLOGIES)
def complete(num_agents: int) -> nx.Graph:
    """Connect everyone to everyone.

    Examples
    --------
    >>> sorted(complete(3).edges)
    [(0, 1), (0, 2), (1, 2)]
    """
    return nx.complete_graph(num_agents)


@named(TOPOLOGIES)
def star(num_agents: int) -> nx.Graph:
    """Connect agent 0 to everyone, and nobody else.

    Examples
    --------
    >>> sorted(star(4).edges)
    [(0, 1), (0, 2), (0, 3)]
    """
    return nx.star_graph(num_agents - 1)


@named(TOPOLOGIES)
def path(num_agents: int) -> nx.Graph:
    """Connect agent i to i − 1 and i + 1, but not the last agent to the first.

    Examples
    --------
    >>> sorted(path(4).edges)
    [(0, 1), (1, 2), (2, 3)]
    """
    return nx.path_graph(num_agents)


@named(TOPOLOGIES)
def bipartite(num_agents: int) -> nx.Graph:
    """Connect the last two agents, the hubs, to everyone but each other: K_{2,N−2}.

    Examples
    --------
    >>> sorted(bipartite(5).edges)
    [(0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4)]
    """
    # What the code of CGA (Esfandiari et al., ICML 2021) calls bipartite.
    if num_agents < 3:
        raise ConfigError(f"num-agents = {num_agents} is too small: topology = 'bipartite' takes at least 3")
    return nx.complete_bipartite_graph(num_agents - 2, 2)


@named(TOPOLOGIES)
def complete_bipartite(num_agents: int) -> nx.Graph:
    """Connect everyone in the first half to everyone in the second: K_{⌊N/2⌋,⌈N/2⌉}.

    Examples
    --------
    >>> sorted(complete_bipartite(4).edges)
    [(0, 2), (0, 3), (1, 2), (1, 3)]
    """
    return nx.complete_bipartite_graph(num_agents // 2, num_agents - num_agents // 2)


@named(TOPOLOGIES)
def grid(num_agents: int) -> nx.Graph:
    """Connect neighbours in rows and columns, as near to a square as N allows; a path if N is prime.

    Examples
    --------
    >>> sorted(grid(4).edges)
    [(0, 1), (0, 2), (1, 3), (2, 3)]
    """
    return _renumbered(nx.grid_2d_graph(*_sides(num_agents)))


@named(TOPOLOGIES)
def torus(num_agents: int) -> nx.Graph:
    """Connect neighbours in a grid whose rows and columns close into rings; both sides are at least 3.

    Examples
    --------
    >>> dict(torus(9).degree)[0]
    4
    """
    rows, columns = _sides(num_agents)
    if rows < 3:
        raise ConfigError(
            f"num-agents = {num_agents} makes a grid of {rows} x {columns}: topology = 'torus' takes sides "
            "of at least 3, as 9, 12, 15 or 16 agents have"
        )
    return _renumbered(nx.grid_2d_graph(rows, columns, periodic=True))


@named(TOPOLOGIES)
def hypercube(num_agents: int) -> nx.Graph:
    """Connect agents whose numbers differ in one binary digit; N is a power of two.

    Examples
    --------
    >>> sorted(hypercube(8)[0])
    [1, 2, 4]
    """
    if num_agents & (num_agents - 1):
        raise ConfigError(f"num-agents = {num_agents} is not a power of two: topology = 'hypercube' takes one")
    return _renumbered(nx.hypercube_graph(num_agents.bit_length() - 1))


@named(TOPOLOGIES)
def exponential(num_agents: int) -> nx.Graph:
    """Connect agent i to i ± 1, 2, 4, 8, … modulo N: the static exponential graph, made undirected.

    Examples
    --------
    >>> sorted(exponential(8)[0])
    [1, 2, 4, 6, 7]
    """
    # Ying et al., NeurIPS 2021 (arXiv:2110.13363), have the directed edges i → i + 2^k alone.
    return nx.circulant_graph(num_agents, [2**k for k in range((num_agents - 1).bit_length())])


@named(TOPOLOGIES)
def random_regular(num_agents: int, *, degree: int = 4, seed: int = 0, epoch: int = 0) -> nx.Graph:
    """Connect everyone to topology-degree others, at random.

    Examples
    --------
    >>> graph = random_regular(6, degree=3, seed=1)
    >>> [len(graph[agent]) for agent in range(6)]
    [3, 3, 3, 3, 3, 3]
    """
    check_degree(num_agents, degree)
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

    return connected(draw, num_agents, draws(seed, epoch), f"topology-degree = {degree}")


@named(TOPOLOGIES)
def erdos_renyi(num_agents: int, *, probability: float = 0.4, seed: int = 0, epoch: int = 0) -> nx.Graph:
    """Connect each pair of agents with the same probability, 0.4 unless Python code sets another.

    Examples
    --------
    >>> erdos_renyi(6, probability=1.0).number_of_edges()
    15
    """
    check_probability(probability)

    def draw(random: Random) -> nx.Graph:
        return nx.gnp_random_graph(num_agents, probability, random)

    return connected(draw, num_agents, draws(seed, epoch), f"probability = {probability}")


@named(TOPOLOGIES)
def barabasi_albert(num_agents: int, *, degree: int = 4, seed: int = 0, epoch: int = 0) -> nx.Graph:
    """Connect each newcomer to topology-degree // 2 agents (at least 1), preferring those with many.

    Examples
    --------
    >>> barabasi_albert(10, degree=4).number_of_edges()
    16
    """
    # Barabási and Albert, 1999. An edge has two ends: the mean degree comes near topology-degree from below.
    check_degree(num_agents, degree)
    return nx.barabasi_albert_graph(num_agents, max(1, degree // 2), draws(seed, epoch))


@named(TOPOLOGIES)
def watts_strogatz(
    num_agents: int, *, degree: int = 4, probability: float = 0.4, seed: int = 0, epoch: int = 0
) -> nx.Graph:
    """Connect everyone to the topology-degree nearest, then rewire each edge with probability 0.4.

    Examples
    --------
    >>> watts_strogatz(10, degree=4).number_of_edges()
    20
    """
    # Watts and Strogatz, 1998
    check_degree(num_agents, degree)
    check_probability(probability)
    if degree % 2:
        raise ConfigError(f"topology-degree = {degree} is odd: topology = 'watts-strogatz' takes an even number")

    def draw(random: Random) -> nx.Graph:
        return nx.watts_strogatz_graph(num_agents, degree, probability, random)

    return connected(draw, num_agents, draws(seed, epoch), f"topology-degree = {degree}")


@named(TOPOLOGIES)
def clusters(num_agents: int, *, clusters: int = 2) -> nx.Graph:
    """Connect everyone within each of topology-clusters clusters, and the last agent of each to the first of the next.

    Examples
    --------
    >>> sorted(clusters(6).edges)
    [(0, 1), (0, 2), (0, 5), (1, 2), (2, 3), (3, 4), (3, 5), (4, 5)]
    """
    graph = islands(num_agents, clusters=clusters)
    firsts = [min(members) for members in nx.connected_components(graph)]
    graph.add_edges_from(((first - 1) % num_agents, first) for first in firsts)
    return graph


@named(TOPOLOGIES)
def islands(num_agents: int, *, clusters: int = 2) -> nx.Graph:
    """Connect everyone within each of topology-clusters clusters, and nobody between them; for average-every.

    Examples
    --------
    >>> sorted(islands(6).edges)
    [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]
    """
    if not 2 <= clusters <= num_agents // 2:
        raise ConfigError(
            f"topology-clusters = {clusters} is not allowed: with num-agents = {num_agents} it takes from 2 to "
            f"{num_agents // 2}"
        )
    members = np.array_split(range(num_agents), clusters)
    return nx.compose_all(nx.complete_graph(cluster.tolist()) for cluster in members)


def edge_list(num_agents: int, file: str) -> nx.Graph:
    """Connect as a text file says: two agents 'i j' per line, comments after #.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "edges.txt")
    ...     written = file.write_text("1 0  # the only edge")
    ...     sorted(edge_list(2, str(file)))
    [0, 1]
    """
    setting = f"topology = '{file}'"
    try:
        lines = Path(os.path.expanduser(file)).read_text(encoding="utf-8-sig").splitlines()  # without a byte order mark
    except (OSError, ValueError) as error:  # ValueError: not UTF-8
        raise ConfigError(f"{setting} cannot be read as text: {error}") from error
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()  # networkx would skip a lone word, and drop a third
        if words and not (len(words) == 2 and all(word.isdecimal() and len(word) < 10 for word in words)):
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


def _renumbered(graph: nx.Graph) -> nx.Graph:
    return nx.convert_node_labels_to_integers(graph, ordering="sorted")


def _sides(num_agents: int) -> tuple[int, int]:
    rows = next(side for side in range(isqrt(num_agents), 0, -1) if num_agents % side == 0)
    return rows, num_agents // rows
