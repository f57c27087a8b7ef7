"""Directed graphs, and graphs that connect the agents only by changing."""

from collections.abc import Iterable
from random import Random

import networkx as nx
import numpy as np

from ross_flwr.graph.registry import TOPOLOGIES, check_degree, connected, draws, named

CHANGING = ("one-peer-exponential", "random-matching", "geographic", "islands")
"""Graphs that connect all agents only by changing, or not at all; every other graph is (strongly) connected."""

_STRIDE = 0.05  # of a walking agent in each direction and epoch, one standard deviation, in sides of the square


@named(TOPOLOGIES)
def directed_ring(num_agents: int) -> nx.DiGraph:
    """Let agent i send to i + 1 modulo N (directed).

    Examples
    --------
    >>> sorted(directed_ring(3).edges)
    [(0, 1), (1, 2), (2, 0)]
    """
    return nx.cycle_graph(num_agents, create_using=nx.DiGraph)


@named(TOPOLOGIES)
def directed_exponential(num_agents: int) -> nx.DiGraph:
    """Let agent i send to i + 1, 2, 4, 8, … modulo N: the static exponential graph (directed).

    Examples
    --------
    >>> sorted(directed_exponential(8)[0])
    [1, 2, 4]
    """
    # Ying et al., NeurIPS 2021 (arXiv:2110.13363)
    return shifts(num_agents, range((num_agents - 1).bit_length()))


@named(TOPOLOGIES)
def random_out(num_agents: int, *, degree: int = 4, seed: int = 0, epoch: int = 0) -> nx.DiGraph:
    """Let every agent send to topology-degree random others; how many it hears varies (directed).

    Examples
    --------
    >>> graph = random_out(6, degree=2, seed=1)
    >>> [len(graph[agent]) for agent in range(6)]
    [2, 2, 2, 2, 2, 2]
    """
    check_degree(num_agents, degree)

    def draw(random: Random) -> nx.DiGraph:
        others = {i: [j for j in range(num_agents) if j != i] for i in range(num_agents)}
        return nx.DiGraph((i, j) for i in others for j in random.sample(others[i], degree))

    return connected(draw, num_agents, draws(seed, epoch), f"topology-degree = {degree}")


@named(TOPOLOGIES)
def one_peer_exponential(num_agents: int, *, epoch: int = 0) -> nx.DiGraph:
    """Let agent i send to i + 2^(t mod h) modulo N in epoch t, one of h = ⌈log₂ N⌉ hops (directed, changing).

    Examples
    --------
    >>> [sorted(one_peer_exponential(8, epoch=epoch)[0]) for epoch in range(4)]
    [[1], [2], [4], [1]]
    """
    # Assran et al., ICML 2019 (arXiv:1811.10792)
    return shifts(num_agents, [epoch % (num_agents - 1).bit_length()])


@named(TOPOLOGIES)
def random_matching(num_agents: int, *, seed: int = 0, epoch: int = 0) -> nx.Graph:
    """Pair the agents at random in every epoch; if N is odd, one stays alone (changing).

    Examples
    --------
    >>> graph = random_matching(6, epoch=3)
    >>> [len(graph[agent]) for agent in range(6)]
    [1, 1, 1, 1, 1, 1]
    """
    order = list(range(num_agents))
    draws(seed, epoch).shuffle(order)
    return nx.Graph(zip(order[::2], order[1::2], strict=False))


@named(TOPOLOGIES)
def geographic(num_agents: int, *, radius: float = 0.4, seed: int = 0, epoch: int = 0) -> nx.Graph:
    """Let agents walk in the unit square, and connect those no more than 0.4 of its side apart (changing).

    Examples
    --------
    >>> geographic(5, radius=1.5).number_of_edges()
    10
    """
    walk = np.random.default_rng(seed)
    start, steps = walk.random((num_agents, 2)), walk.normal(0, _STRIDE, (epoch, num_agents, 2))
    places = 1 - np.abs((start + steps.sum(axis=0)) % 2 - 1)  # walls reflect
    return nx.random_geometric_graph(num_agents, radius, pos=dict(enumerate(places.tolist())))


def shifts(num_agents: int, exponents: Iterable[int]) -> nx.DiGraph:
    """Let agent i send to i + 2^k for each of the exponents k."""
    return nx.DiGraph((i, (i + 2**k) % num_agents) for k in exponents for i in range(num_agents))
