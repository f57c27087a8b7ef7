"""What attackers make of the messages they send."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from ross_flwr.learning.agent import Agent

__all__ = ["Adversary"]

Messages = Mapping[int, Mapping[str, Tensor]]
"""Named tensors, by the agent at the other end."""


class Adversary(Protocol):
    """Rewrites what attackers send. It is asked once a step, when every agent hosted here has run it."""

    def tamper(
        self,
        step: str,
        agents: Mapping[int, Agent],
        inboxes: Mapping[int, Messages],
        outboxes: dict[int, dict[int, dict[str, Tensor]]],
    ) -> None:
        """Change in place the `outboxes` of attackers, by source and destination.

        Parameters
        ----------
        step : str
            The step just run.
        agents : mapping of int to Agent
            The agents hosted here that ran it.
        inboxes : mapping of int to mapping
            What each of them received in it, by source.
        outboxes : dict
            What each of them is about to send, its message to itself included. Messages are shared between receivers:
            a changed one is a new dictionary, with new tensors.
        """
