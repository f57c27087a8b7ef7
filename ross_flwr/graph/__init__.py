"""Who talks to whom: graphs, their mixing matrices, and the agents' places on nodes."""

from ross_flwr.graph import changing, undirected
from ross_flwr.graph.blocks import blocks
from ross_flwr.graph.mixing import MIXING_RULES
from ross_flwr.graph.registry import TOPOLOGIES
from ross_flwr.graph.topology import Topology, build, of_graph

__all__ = ["MIXING_RULES", "TOPOLOGIES", "Topology", "blocks", "build", "changing", "of_graph", "undirected"]
