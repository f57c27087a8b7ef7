"""Which node hosts which agents."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from logging import WARNING, getLogger
from math import inf
from statistics import median_low

from flwr.serverapp import Grid

from ross_flwr.config import ConfigError
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.protocol import Answer
from ross_flwr.graph.blocks import blocks
from ross_flwr.graph.topology import Topology

__all__ = ["NODE_TIMEOUT", "Placement", "first_round", "place", "wait_for_nodes"]

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
    the same data must have the same neighbours in every run. Where a run goes on, agents go where their state is.
    """
    if len(nodes) == drawn.num_agents:

        def partition(node: int) -> float:
            part = answers[node].partition if node in answers else None
            return inf if part is None else part

        nodes = sorted(nodes, key=partition)
    spread = blocks(drawn, len(nodes))
    nodes = _where_state_is(nodes, spread, answers)
    placed = {node: block for node, block in zip(nodes, spread, strict=True) if block}
    if idle := len(nodes) - len(placed):
        logger.log(WARNING, "num-agents = %d: %d of %d nodes stay idle", drawn.num_agents, idle, len(nodes))
    return Placement(placed, {node: answers[node] for node in placed if node in answers})


def first_round(placement: Placement, run: str) -> int:
    """Return the round in which a run goes on: the one that most of its nodes have not finished.

    Raises
    ------
    ConfigError
        When no more than half of the nodes hold the state of their agents.
    """
    held = {node: placement.answers[node].held for node in placement.answers}
    finished = [held[node][block[0]] for node, block in placement.blocks.items() if block[0] in held.get(node, {})]
    if 2 * len(finished) <= len(placement.blocks):
        raise ConfigError(
            f"resume = '{run}': {len(finished)} of {len(placement.blocks)} nodes hold the state of that run: use the "
            "state-dir, num-agents and num-nodes that it had"
        )
    return max(0, median_low(finished)) + 1


def _where_state_is(
    nodes: Sequence[int], spread: Sequence[tuple[int, ...]], answers: Mapping[int, Answer]
) -> Sequence[int]:
    """Return the nodes in the order of the blocks whose state they hold; those that hold little choose first."""
    held = {node: answers[node].held for node in nodes if node in answers}
    numbers = {block[0]: number for number, block in enumerate(spread) if block}
    chosen: dict[int, int] = {}
    for node in sorted(held, key=lambda node: len(held[node])):
        free = [numbers[first] for first in held[node] if first in numbers and numbers[first] not in chosen]
        if free:
            chosen[min(free)] = node
    others = iter([node for node in nodes if node not in chosen.values()])
    return [chosen[number] if number in chosen else next(others) for number in range(len(nodes))]
