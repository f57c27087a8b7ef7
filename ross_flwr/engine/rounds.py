"""The round loop and the evaluation schedule of every transport."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.events import AgentReport, Round
from ross_flwr.engine.host import Host

__all__ = ["InProcess", "Schedule", "Transport", "end_pass", "rounds"]


@dataclass(frozen=True)
class Schedule:
    """How passes make rounds, and which rounds are tested.

    Attributes
    ----------
    num_rounds : int
        Rounds of the run. The last is always tested.
    passes : int (default: 1)
        Passes over the algorithm's steps in one round.
    evaluate_every : int (default: 1)
        Rounds between two tests of the agents.
    evaluate_at : set of int
        Further rounds to test.
    """

    num_rounds: int
    passes: int = 1
    evaluate_every: int = 1
    evaluate_at: frozenset[int] = frozenset()

    @property
    def total_passes(self) -> int:
        """The passes of the run."""
        return self.num_rounds * self.passes

    def tests(self, number: int) -> bool:
        """Return whether the agents are tested at the end of round `number`, counted from 1."""
        return number % self.evaluate_every == 0 or number == self.num_rounds or number in self.evaluate_at


class Transport(Protocol):
    """Carries the messages of one node's agents to the other nodes of the run, and theirs to it."""

    def send(self, pass_number: int, number: int, leaving: Sequence[Envelope]) -> None:
        """Send what leaves the node after step `number` of a pass."""

    def collect(self, pass_number: int, number: int) -> Sequence[Envelope] | None:
        """Return what arrives for step `number` of a pass; None when the neighbours have gone on without this node.

        Nothing arrives for step 0.
        """

    def catch_up(self, pass_number: int, end: int) -> int:
        """Rejoin the run where the neighbours are, and return the pass to go on with, `end` at most."""


class InProcess:
    """The transport of a run in one process: nothing leaves, and nothing arrives."""

    def send(self, pass_number: int, number: int, leaving: Sequence[Envelope]) -> None:
        """Send nothing."""

    def collect(self, pass_number: int, number: int) -> Sequence[Envelope]:
        """Return nothing."""
        return ()

    def catch_up(self, pass_number: int, end: int) -> int:
        """Return the same pass."""
        return pass_number


def rounds(
    host: Host, schedule: Schedule, first: int, last: int, transport: Transport | None = None
) -> Iterator[Round]:
    """Run rounds `first` … `last` (counted from 1, both included), yielding each as it ends.

    Rounds in which the node was away are left out.

    Parameters
    ----------
    host : Host
        The agents of this node, their state as it was at the end of round ``first - 1``.
    schedule : Schedule
        The run's schedule.
    transport : Transport, optional
        What carries messages to other nodes; without it, all agents of the run are here.
    """
    transport = transport or InProcess()
    pass_number, end = (first - 1) * schedule.passes, last * schedule.passes
    began = perf_counter()
    while pass_number < end:
        if not _run_pass(host, pass_number, transport):
            pass_number = transport.catch_up(pass_number, end)
            continue
        ended = end_pass(host, schedule, pass_number)
        pass_number += 1
        if ended:
            number, reports = ended
            models = {i: agent["model"] for i, agent in host.agents.items()} if schedule.tests(number) else None
            yield Round(number, reports, perf_counter() - began, models)
            began = perf_counter()


def _run_pass(host: Host, pass_number: int, transport: Transport) -> bool:
    """Run all steps of a pass; return False when the neighbours have gone on without this node."""
    last = len(host.algorithm.steps) - 1
    for number in range(last + 1):
        arrived = transport.collect(pass_number, number)
        if arrived is None:
            return False
        leaving = host.activate(pass_number, number, arrived)
        if number < last:
            transport.send(pass_number, number, leaving)
    return True


def end_pass(host: Host, schedule: Schedule, pass_number: int) -> tuple[int, list[AgentReport]] | None:
    """End a pass that has run all its steps; where it ends a round, return the round's number and its reports."""
    host.end_pass()
    number, inside = divmod(pass_number + 1, schedule.passes)
    return None if inside else (number, host.end_round(evaluate=schedule.tests(number)))
