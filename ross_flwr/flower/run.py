"""A run as the ServerApp leads it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import WARNING, getLogger

from ross_flwr.config import Scalar
from ross_flwr.flower.grid import Post
from ross_flwr.flower.placement import Placement
from ross_flwr.flower.protocol import Setup
from ross_flwr.runs.assembly import Assembly

__all__ = ["Drops", "Run"]

logger = getLogger("flwr")


class Drops:
    """Messages and replies that were refused or lost, counted by reason and logged.

    Attributes
    ----------
    counts : Counter
        By reason.
    blocks : mapping of int to tuple of int
        The agents of the nodes, for the log.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.blocks: Mapping[int, tuple[int, ...]] = {}

    def add(self, reason: str, node: int, text: str = "") -> None:
        """Count and log a loss from a node."""
        self.counts[reason] += 1
        logger.log(WARNING, "\t├──> node %d, agents %s: %s %s", node, list(self.blocks.get(node, ())), reason, text)


@dataclass(frozen=True)
class Run:
    """A run as the ServerApp leads it: what it is, who takes part, and how to reach them.

    Attributes
    ----------
    name : str
        The run's unique name.
    assembly : Assembly
        Its parts.
    options : dict of str to bool, int, float or str
        The part of the configuration that nodes are told.
    placement : Placement
        Which node hosts which agents.
    post : Post
        Reaches the nodes.
    drops : Drops
        Counts what is refused.
    timeout : float
        Seconds to wait for a node's reply.
    setup_timeout : float
        Seconds to wait while a node is setting up its agents.
    """

    name: str
    assembly: Assembly
    options: dict[str, Scalar]
    placement: Placement
    post: Post
    drops: Drops
    timeout: float
    setup_timeout: float

    def setup(self, agents: Iterable[int]) -> Setup:
        """Return what a node must know to host these agents."""
        topology = self.assembly.topology
        return Setup(self.name, self.options, {agent: topology.place(agent) for agent in agents})
