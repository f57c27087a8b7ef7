"""The keys of a run on Flower. A local run resolves them too, so this file imports no Flower."""

from ross_flwr.config import group, option

__all__ = ["FlowerOptions"]


@group("Flower (a local run has no use for these)")
class FlowerOptions:
    """How messages travel between the nodes."""

    num_nodes: int = option(
        0,
        "Flower nodes to wait for and use; 0 takes those that are connected",
        unit="nodes",
        minimum=0,
    )
    phase_timeout: float = option(
        60.0,
        "how long to wait for a neighbour's message; a later one is missing in that step",
        unit="seconds",
        minimum=0.01,
    )
    slowest: float = option(
        1.7,
        "how many times as long as the others a node may work for an exchange and still be waited for in every round; "
        "a slower one is left behind in time, and so is one that only pretends",
        unit="times",
        minimum=1.0,
    )
    transport: str = option(
        "relay",
        "how messages travel between nodes: relay carries them through Flower, direct from node to node over gRPC, for "
        "which each SuperNode needs peer-address and peer-certs in its --node-config; hybrid is relay in the rounds of "
        "average-every and direct in the others",
        choices=("relay", "direct", "hybrid"),
    )
    segment_rounds: int = option(
        20, "the most rounds between two reports of the nodes under transport = 'direct'", unit="rounds", minimum=1
    )
    return_model: str = option(
        "none",
        "what transport = 'direct' brings to the ServerApp beside the history: no model, or each agent's last",
        choices=("none", "final"),
    )
    results: str = option("", "folder in which the ServerApp keeps its results; empty for none")
    state_dir: str = option(
        "",
        "folder on each Flower node's machine in which its agents' state waits for the next message; empty for "
        "Flower's own node state, which travels between processes with every message; emptied when a run is done",
    )
    resume: str = option(
        "",
        "name of an interrupted run, which the ServerApp logs: go on from what its agents have under state-dir; empty "
        "for a new run",
    )
