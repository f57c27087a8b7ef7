"""Faults without bad intent: agents that are away, and messages that get lost."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TypeAlias

from ross_flwr.algorithms.messages import Exchange, Message, MessageTransform, Refused
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.streams import stream

__all__ = ["FAULTS", "Absence", "Attendance", "Away", "Dropout", "Loss", "Slow", "Stopped"]

Away: TypeAlias = Callable[[int, int], bool]
"""From an agent and a round (counted from 0) to whether the agent is away."""


class Absence(ABC):
    """A reason for agents to be away. It depends only on the seed, so it is the same on every transport."""

    @abstractmethod
    def drawn(self, seed: int, num_agents: int, num_rounds: int) -> Away:
        """Return which agents are away in which rounds of a run with this seed."""


@dataclass(frozen=True)
class Dropout(Absence):
    """Each agent misses a random share of the rounds, some rounds at a time.

    Parameters
    ----------
    rate : float
        The share of the rounds.
    rounds : int (default: 1)
        How many rounds an agent then stays away.
    """

    rate: float
    rounds: int = 1

    def drawn(self, seed: int, num_agents: int, num_rounds: int) -> Away:
        """Return who is away when."""
        return lambda agent, number: bool(stream(seed, "dropout", agent, number // self.rounds).random() < self.rate)


@dataclass(frozen=True)
class Stopped(Absence):
    """Some agents stop for ever, each after a round that the seed draws.

    Parameters
    ----------
    count : int
        How many agents.
    """

    count: int

    def drawn(self, seed: int, num_agents: int, num_rounds: int) -> Away:
        """Return who is away when."""
        generator = stream(seed, "stopped")
        agents = generator.permutation(num_agents)[: self.count].tolist()
        last = {agent: int(generator.integers(1, max(2, num_rounds))) for agent in agents}
        return lambda agent, number: number >= last.get(agent, inf)


@dataclass(frozen=True)
class Slow(Absence):
    """Some agents take part in one of several rounds only.

    Parameters
    ----------
    count : int
        How many agents.
    rounds : int (default: 3)
        How many rounds they need for one.
    """

    count: int
    rounds: int = 3

    def drawn(self, seed: int, num_agents: int, num_rounds: int) -> Away:
        """Return who is away when."""
        generator = stream(seed, "slow")
        agents = generator.permutation(num_agents)[: self.count].tolist()
        phases = {agent: int(generator.integers(self.rounds)) for agent in agents}
        return lambda agent, number: agent in phases and number % self.rounds != phases[agent]


@dataclass(frozen=True)
class Attendance:
    """Which agents take part in which passes.

    An agent that is away computes and sends nothing in that round. It keeps its state, and continues with it on return.

    Parameters
    ----------
    absences : sequence of Absence
        Why agents are away.
    seed, num_agents, num_rounds : int
        Of the run.
    passes : int (default: 1)
        Passes over the method's steps in one round.

    Examples
    --------
    >>> attendance = Attendance([Slow(1, rounds=2)], seed=0, num_agents=1, num_rounds=4)
    >>> [attendance.absent(0, t) for t in range(4)]
    [False, True, False, True]
    """

    absences: Sequence[Absence]
    seed: int
    num_agents: int
    num_rounds: int
    passes: int = 1

    def absent(self, agent: int, pass_number: int) -> bool:
        """Whether `agent` is away in the round of this pass (counted from 0)."""
        number = pass_number // self.passes
        return any(away(agent, number) for away in self._drawn)

    @cached_property
    def _drawn(self) -> list[Away]:
        return [absence.drawn(self.seed, self.num_agents, self.num_rounds) for absence in self.absences]


@dataclass(frozen=True)
class Loss(MessageTransform):
    """A link of the message chain that loses messages at random.

    Parameters
    ----------
    rate : float
        The share of the messages.
    """

    rate: float

    def receive(self, agent: Agent, source: int, message: Message, exchange: Exchange) -> Message:
        """Return the message, or refuse it as lost."""
        draw = stream(agent.seed, f"loss {exchange.number}", source, exchange.pass_number, agent.index).random()
        if draw < self.rate:
            raise Refused("lost")
        return message


FAULTS: dict[str, type[Absence | MessageTransform]] = {
    "dropout": Dropout,
    "stopped": Stopped,
    "slow": Slow,
    "message-loss": Loss,
}
"""Faults by the key that asks for them."""
