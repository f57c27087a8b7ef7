"""The graphs by name, and what their builders share."""

from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import networkx as nx

from ross_flwr.config import ConfigError

__all__ = ["TOPOLOGIES", "check_degree", "check_probability", "connected", "draws", "named"]

TOPOLOGIES: dict[str, Callable[..., nx.Graph]] = {}
"""From num_agents and some settings of `build` to a graph on 0 … N−1."""

_TRIES = 100
_Function = TypeVar("_Function", bound=Callable[..., Any])


def named(registry: dict[str, _Function]) -> Callable[[_Function], _Function]:
    """Return a decorator that enters a function into `registry` under its own name, in kebab-case."""

    def enter(function: _Function) -> _Function:
        registry[function.__name__.replace("_", "-")] = function
        return function

    return enter


def draws(seed: int, epoch: int) -> Random:
    """Return the random generator for the graph of an epoch."""
    return Random(f"{seed} {epoch}" if epoch else seed)


def connected(draw: Callable[[Random], nx.Graph], num_agents: int, random: Random, setting: str) -> nx.Graph:
    """Draw until the graph connects all agents; after many tries, ask for a higher `setting`."""
    for _try in range(_TRIES):  # one generator for all tries: with a new seed per try, nearby seeds would share graphs
        graph = draw(random)
        if nx.is_strongly_connected(graph) if graph.is_directed() else nx.is_connected(graph):
            return graph
    raise ConfigError(f"{setting} gave no connected graph of num-agents = {num_agents} in {_TRIES} tries: raise it")


def check_degree(num_agents: int, degree: int) -> None:
    """Refuse a degree that is impossible for this number of agents."""
    if not 1 <= degree < num_agents:
        raise ConfigError(
            f"topology-degree = {degree} is not allowed: with num-agents = {num_agents} it takes from 1 to "
            f"{num_agents - 1}"
        )


def check_probability(probability: float) -> None:
    """Refuse a number that is not a probability, and 0."""
    if not 0 < probability <= 1:  # refuses NaN, too
        raise ConfigError(f"probability = {probability} is not allowed: it takes above 0, at most 1")
