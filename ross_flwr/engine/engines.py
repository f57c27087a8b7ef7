"""What runs a step for many agents."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ross_flwr.algorithms.algorithm import Algorithm
from ross_flwr.algorithms.messages import Inbox, Outbox
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.requests import Request, compute

__all__ = ["Engine", "Loop"]


class Engine(Protocol):
    """Runs one step of an algorithm for the agents of a node.

    A step asks its agent for gradients and utilities, and the agent asks its `compute`. An engine that sets `compute`
    before it runs a step can collect the requests of all agents and answer them together.

    Attributes
    ----------
    name : str
        What the summary calls it.
    """

    name: str

    def run(
        self, algorithm: Algorithm, step: str, agents: Mapping[int, Agent], inboxes: Mapping[int, Inbox]
    ) -> dict[int, Outbox]:
        """Return what each agent sends after the step called `step`, given what it received."""

    def answer(self, requests: Sequence[Request]) -> list[Any]:
        """Return the answers to requests that are made outside of steps, as those for tests are."""

    def close(self) -> None:
        """Give back processes, if it has some; it may be used again."""


class Loop:
    """Runs the agents one after the other.

    Parameters
    ----------
    reason : str
        Why not together, if that was asked for.
    """

    def __init__(self, reason: str = "") -> None:
        self.name = f"loop, since {reason}" if reason else "loop"

    def run(
        self, algorithm: Algorithm, step: str, agents: Mapping[int, Agent], inboxes: Mapping[int, Inbox]
    ) -> dict[int, Outbox]:
        """Return what each agent sends, by agent."""
        return {index: algorithm.run_step(step, agent, inboxes[index]) for index, agent in agents.items()}

    def answer(self, requests: Sequence[Request]) -> list[Any]:
        """Return the answers, one after the other."""
        return [compute(request) for request in requests]

    def close(self) -> None:
        """Do nothing."""
