"""A run as the ServerApp leads it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import getLogger

from ross_flwr.config import ConfigError, Scalar
from ross_flwr.engine.refusals import Refusals
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
    blocks : mapping of int to tuple of int
        The agents of the nodes, for the log.
    """

    def __init__(self) -> None:
        self._refusals = Refusals(logger)
        self.blocks: Mapping[int, tuple[int, ...]] = {}

    @property
    def counts(self) -> Counter[str]:
        """How many, by reason."""
        return self._refusals.counts

    def add(self, reason: str, node: int, text: str = "") -> None:
        """Count and log a loss from a node."""
        said = f", {text}" if text else ""
        self._refusals.add(reason, f"\t├──> node {node}, agents {list(self.blocks.get(node, ()))}{said}")


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
    first : int (default: 1)
        The round in which it begins, or goes on.
    """

    name: str
    assembly: Assembly
    options: dict[str, Scalar]
    placement: Placement
    post: Post
    drops: Drops
    timeout: float
    setup_timeout: float
    first: int = 1

    def setup(self, agents: Iterable[int]) -> Setup:
        """Return what a node must know to host these agents."""
        topology = self.assembly.topology
        return Setup(self.name, self.options, {agent: topology.place(agent) for agent in agents})

    def require_work(self, problems: Mapping[int, str]) -> None:
        """Stop a run in which nobody can work; `problems` says why not, by node.

        Raises
        ------
        ConfigError
            When no node is left that takes part and has no problem.
        """
        taking_part = self.placement.answers
        if taking_part and taking_part.keys() <= problems.keys():
            node = min(taking_part)
            raise ConfigError(f"no node can work, and the run stops: node {node} fails: {problems[node]}")
