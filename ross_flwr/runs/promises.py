"""What a run promises about privacy: what agents reported of releases, and what they may have released unheard."""

from collections.abc import Sequence
from typing import Any, Protocol

from ross_flwr.algorithms import Algorithm
from ross_flwr.algorithms.local_steps import AdaptThenCombine, CombineThenAdapt
from ross_flwr.compression.link import Compression
from ross_flwr.engine.rounds import Schedule
from ross_flwr.graph.schedule import Graphs
from ross_flwr.learning.rules import Mean, Rule
from ross_flwr.privacy.accounting import precision_of
from ross_flwr.privacy.privacy import Privacy
from ross_flwr.privacy.promise import promise
from ross_flwr.runs.history import History
from ross_flwr.tasks.own import Own
from ross_flwr.tasks.task import Task
from ross_flwr.threats.threats import Threats

__all__ = ["promised"]


class Parts(Protocol):
    """What is needed of the parts of a run."""

    algorithm: Algorithm
    graphs: Graphs
    task: Task
    schedule: Schedule
    threats: Threats
    compression: Compression | None

    @property
    def rule(self) -> Rule:
        """How agents mix."""


def promised(parts: Parts, privacy: Privacy, history: History, *, secret: bool = False) -> dict[str, Any]:
    """Return what the summary says of privacy.

    Parameters
    ----------
    parts, privacy, history : Parts, Privacy, History
        The run.
    secret : bool (default: False)
        Whether it ran on nodes, whose operating systems gave the noise.
    """
    absent, graphs, released, unheard = parts.threats.absent, parts.graphs, {}, []
    for i in history.honest:
        released[i], since = reported(history.lines, i)
        first, end = since * parts.schedule.passes, len(history.lines) * parts.schedule.passes
        passes = [t for t in range(first, end) if not (absent and absent(i, t))]
        if passes:
            unheard.append(i)
            released[i][since] += at_most(privacy, parts.algorithm, graphs, i, passes, sum(released[i]))
    whole = not any(line["missing"] or line["absent"] for line in history.lines)
    return promise(
        privacy,
        parts.algorithm,
        released,
        unheard=unheard,
        mixing=None if graphs.changes else graphs.first.mixing,
        gossips=whole and not secret and is_gossip(parts),
        passes=parts.schedule.passes,
        secret=secret,
    )


def is_gossip(parts: Parts) -> bool:
    """Return whether agents send nothing but models, which hold the sum of all gradients so far, mixed by W."""
    algorithm = parts.algorithm
    return (
        isinstance(algorithm, AdaptThenCombine | CombineThenAdapt)
        and algorithm.takes_own_steps
        and algorithm.optimizer == "sgd"
        and not (isinstance(parts.task, Own) and parts.task.optimizer)
        and type(algorithm).mix in (AdaptThenCombine.mix, CombineThenAdapt.mix)
        and parts.rule == Mean()
        and not (parts.compression or parts.threats.attackers)
    )


def reported(lines: Sequence[dict[str, Any]], agent: int) -> tuple[list[float], int]:
    """Return the precision that an agent reported by round, and the first round that nobody knows of, both from 0.

    What was released in rounds without a report is in the next report, and counts from the first of these rounds on.
    """
    found, known, since = [0.0] * len(lines), 0.0, None
    for number, line in enumerate(lines):
        spent = line.get("spent", {}).get(str(agent))
        if spent is not None:
            found[number if since is None else since] += max(0.0, spent - known)  # less after a node went back
            known, since = spent, None
        elif agent in line["absent"] and since is None:
            since = number
    return found, len(lines) if since is None else since


def at_most(
    privacy: Privacy, algorithm: Algorithm, graphs: Graphs, agent: int, passes: Sequence[int], known: float
) -> float:
    """Return the largest precision that an agent can have released of one example in these passes."""
    if privacy.epsilon:
        return max(0.0, precision_of(privacy.epsilon, privacy.delta) - known)  # it stops there
    degrees = graphs.heard_by(agent, len(graphs.first.receivers(agent)), passes[-1] + 1)
    queries = sum(len(algorithm.batches(t, degrees[t])) for t in passes)
    return queries * privacy.noise**-2 if privacy.noise else 0.0
