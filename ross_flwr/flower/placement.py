"""Which node hosts which agents."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from logging import WARNING, getLogger
from math import inf

from flwr.serverapp import Grid

from ross_flwr.config import ConfigError
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.protocol import Answer
from ross_flwr.graph.blocks import blocks
from ross_flwr.graph.topology import Topology

__all__ = ["NODE_TIMEOUT", "Placement", "place", "wait_for_nodes"]

logger = getLogger("flwr")

NODE_TIMEOUT = 600.0
"""Seconds that a run waits for its nodes to come, and then for them to answer who they are."""

SETTLE = 1.0
"""Seconds for which the number of nodes must stay the same if num-nodes does not give it."""


@dataclass(frozen=True)
class Placement:
    """Which node hosts which agents.

    Attributes
    ----------
    blocks : mapping of int to tuple of int
        The agents of every node that has any.
    answers : dict of int to Answer
        What the nodes that take part have answered, those that come later included.
    """

    blocks: Mapping[int, tuple[int, ...]]
    answers: dict[int, Answer]

    @cached_property
    def home(self) -> dict[int, int]:
        """The node of every agent."""
        return {agent: node for node, block in self.blocks.items() for agent in block}

    def hosts(self, node: int, agent: int) -> bool:
        """Return whether `node` hosts `agent`; no other node may speak for it."""
        return self.home.get(agent) == node


def wait_for_nodes(grid: Grid, options: FlowerOptions) -> list[int]:
    """Return the nodes of a run: `num-nodes` of them, or all, once no more come.

    Raises
    ------
    ConfigError
        When too few come within `NODE_TIMEOUT`.
    """
    wanted = options.num_nodes
    deadline = time.monotonic() + NODE_TIMEOUT
    seen, since = -1, 0.0
    while time.monotonic() < deadline:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) != seen:
            seen, since = len(nodes), time.monotonic()
        if wanted and seen >= wanted:
            return nodes[:wanted]
        if not wanted and seen > 0 and time.monotonic() - since >= SETTLE:
            return nodes
        time.sleep(0.1)
    raise ConfigError(f"num-nodes = {wanted}, but {seen} nodes came within {NODE_TIMEOUT:g} s")


def place(drawn: Topology, nodes: Sequence[int], answers: Mapping[int, Answer]) -> Placement:
    """Spread the agents of a topology over the nodes, and put neighbours together where that is cheap.

    With one agent per node, agent k goes to the node with partition k. Flower draws new node numbers in every run, and
    the same data must have the same neighbours in every run.
    """
    if len(nodes) == drawn.num_agents:

        def partition(node: int) -> float:
            part = answers[node].partition if node in answers else None
            return inf if part is None else part

        nodes = sorted(nodes, key=partition)
    spread = blocks(drawn, len(nodes))
    placed = {node: block for node, block in zip(nodes, spread, strict=True) if block}
    if idle := len(nodes) - len(placed):
        logger.log(WARNING, "num-agents = %d: %d of %d nodes stay idle", drawn.num_agents, idle, len(nodes))
    return Placement(placed, {node: answers[node] for node in placed if node in answers})
