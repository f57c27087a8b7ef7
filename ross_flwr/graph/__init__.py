"""Who talks to whom: graphs, their mixing matrices, and the agents' places on nodes.

Each graph is a function of the number of agents that returns a networkx graph on 0 … N−1.
"""

from ross_flwr.graph.blocks import blocks
from ross_flwr.graph.changing import (
    directed_exponential,
    directed_ring,
    geographic,
    one_peer_exponential,
    random_matching,
    random_out,
)
from ross_flwr.graph.mixing import MIXING_RULES
from ross_flwr.graph.registry import TOPOLOGIES
from ross_flwr.graph.schedule import Graphs
from ross_flwr.graph.topology import Topology, build, of_graph
from ross_flwr.graph.undirected import (
    barabasi_albert,
    bipartite,
    clusters,
    complete,
    complete_bipartite,
    edge_list,
    erdos_renyi,
    exponential,
    grid,
    hypercube,
    islands,
    path,
    random_regular,
    ring,
    star,
    torus,
    watts_strogatz,
)

__all__ = [
    "MIXING_RULES",
    "TOPOLOGIES",
    "Graphs",
    "Topology",
    "barabasi_albert",
    "bipartite",
    "blocks",
    "build",
    "clusters",
    "complete",
    "complete_bipartite",
    "directed_exponential",
    "directed_ring",
    "edge_list",
    "erdos_renyi",
    "exponential",
    "geographic",
    "grid",
    "hypercube",
    "islands",
    "of_graph",
    "one_peer_exponential",
    "path",
    "random_matching",
    "random_out",
    "random_regular",
    "ring",
    "star",
    "torus",
    "watts_strogatz",
]
