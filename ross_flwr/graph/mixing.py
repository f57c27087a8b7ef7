"""Mixing matrices: how agents weigh each other's vectors."""

from collections.abc import Callable
from typing import TypeAlias

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from ross_flwr.graph.registry import named

__all__ = ["MIXING_RULES", "Matrix"]

Matrix: TypeAlias = NDArray[np.float64]

MIXING_RULES: dict[str, Callable[[nx.Graph], Matrix]] = {}
"""From a graph on 0 … N−1 to W, float64, shape [N, N]."""


@named(MIXING_RULES)
def metropolis(graph: nx.Graph) -> Matrix:
    """Weigh an edge 1 / (1 + max(k_i, k_j)), with k the degrees (Xiao, Boyd and Lall, IPSN 2005)."""
    return _mixing(graph, lambda degrees: np.maximum.outer(degrees, degrees))


@named(MIXING_RULES)
def uniform(graph: nx.Graph) -> Matrix:
    """Weigh every edge 1 / (1 + max_l k_l), by the largest degree of the graph."""
    return _mixing(graph, np.max)


@named(MIXING_RULES)
def lazy_metropolis(graph: nx.Graph) -> Matrix:
    """Go half way from metropolis to the identity, (W + I) / 2: no eigenvalue is negative."""
    return (metropolis(graph) + np.eye(len(graph))) / 2


@named(MIXING_RULES)
def lazy_uniform(graph: nx.Graph) -> Matrix:
    """Go half way from uniform to the identity, (W + I) / 2: no eigenvalue is negative."""
    return (uniform(graph) + np.eye(len(graph))) / 2


@named(MIXING_RULES)
def push(graph: nx.Graph) -> Matrix:
    """Weigh what agent j sends and keeps 1 / (1 + k_j), where k_j agents hear j: columns sum to 1."""
    sent: Matrix = nx.to_numpy_array(graph, nodelist=range(len(graph))).T + np.eye(len(graph))
    sent /= sent.sum(axis=0)
    return sent


def _mixing(graph: nx.Graph, largest: Callable[[Matrix], Matrix]) -> Matrix:
    matrix: Matrix = nx.to_numpy_array(graph, nodelist=range(len(graph)))
    matrix /= 1 + largest(matrix.sum(axis=1))
    np.fill_diagonal(matrix, 1 - matrix.sum(axis=1))
    return matrix
