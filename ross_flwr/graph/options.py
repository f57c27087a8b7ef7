"""The keys of the graph."""

from ross_flwr.config import group, option

__all__ = ["GraphOptions"]


@group("The graph")
class GraphOptions:
    """Who talks to whom."""

    topology: str = option(
        "random-regular",
        "who talks to whom: a graph that `ross-flwr list topologies` shows, or the path of a text file, such as "
        "'./edges.txt', with one edge 'i j' a line",
    )
    topology_degree: int = option(4, "degree of the graphs that have one", unit="neighbours", minimum=1)
    topology_every: int = option(
        0, "draw a random or changing graph anew after this many rounds; 0 keeps the first", unit="rounds", minimum=0
    )
    topology_clusters: int = option(2, "clusters of topology = 'clusters' and 'islands'", unit="clusters", minimum=2)
    average_every: int = option(
        0,
        "in one of this many rounds every agent has all others as its neighbours, with equal weights, as if a server "
        "averaged (Gossip-PGA); 0 for never",
        unit="rounds",
        minimum=0,
    )
    mixing: str = option(
        "metropolis", "how the mixing matrix is made from the graph; `ross-flwr list mixing` shows the rules"
    )
