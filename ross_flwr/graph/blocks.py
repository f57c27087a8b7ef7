"""How agents are spread over nodes, with neighbours together where that is cheap."""

from itertools import combinations

import networkx as nx
import numpy as np
from networkx.algorithms.community import kernighan_lin_bisection
from networkx.utils import reverse_cuthill_mckee_ordering

from ross_flwr.graph.topology import Topology

__all__ = ["blocks"]

_IMPROVED_BLOCKS = 16


def blocks(topology: Topology, num_blocks: int) -> list[tuple[int, ...]]:
    """Spread the agents over `num_blocks` nodes, and put neighbours together where that is cheap.

    Agents are put in line and the line is cut. The line is the natural order or, if fewer edges then run between
    blocks, that of Cuthill and McKee (1969), which keeps neighbours near each other. Up to 16 blocks are then
    improved pair by pair, by exchanging agents (Kernighan and Lin, 1970).

    Returns
    -------
    list[tuple[int, ...]]
        `num_blocks` blocks, agents ascending in each. Sizes differ by at most 1, larger blocks first; with
        more blocks than agents the last ones are empty.

    Raises
    ------
    ValueError
        If `num_blocks` is below 1.

    Examples
    --------
    >>> from ross_flwr.graph import build
    >>> blocks(build("ring", 6), 2)
    [(0, 1, 2), (3, 4, 5)]
    """
    if num_blocks < 1:
        raise ValueError(f"num_blocks = {num_blocks} is not allowed: agents take at least 1 block")
    graph = topology.graph.to_undirected()

    def edges_between(spread: list[tuple[int, ...]]) -> int:
        home = {agent: number for number, block in enumerate(spread) for agent in block}
        return sum(home[i] != home[j] for i, j in graph.edges)

    lines = [list(range(topology.num_agents)), list(reverse_cuthill_mckee_ordering(graph))]
    cuts = [[tuple(sorted(block.tolist())) for block in np.array_split(line, num_blocks)] for line in lines]
    spread = min(cuts, key=edges_between)  # the first of equals
    if num_blocks <= _IMPROVED_BLOCKS:
        for a, b in combinations(range(min(num_blocks, topology.num_agents)), 2):
            pair = set(spread[a]), set(spread[b])
            better = kernighan_lin_bisection(graph.subgraph(spread[a] + spread[b]), pair, seed=0)
            if nx.cut_size(graph, *better) < nx.cut_size(graph, *pair):
                spread[a], spread[b] = (tuple(sorted(block)) for block in sorted(better, key=len, reverse=True))
    return spread
