"""What the ServerApp believes of the nodes' replies: all that a node says is checked here, on every transport.

A node speaks for the agents that it hosts and for nobody else, of the rounds that it was told to run, in the types,
shapes and ranges that its words can have. Whatever else it says is refused, counted by reason and logged once per node.
That costs this reply, or this message in it, and nothing more; nothing here raises. The reasons are

- ``malformed``: a record, or a value in it, is not what it can be
- ``not-hosted``: it speaks for an agent that the node does not host
- ``not-finite``: a model holds a NaN or an infinite number
- ``duplicate``: another node has this name already, or a message comes twice
- ``no-edge``, ``other-run``, ``other-step``, ``oversize``: a message to another agent has no edge, is of another run or
  step, or is larger than `MODELS` models
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from math import isnan
from typing import TypeAlias

from flwr.app import ArrayRecord, ConfigRecord, Message
from torch import Tensor

from ross_flwr.algorithms.messages import is_finite
from ross_flwr.config import host_and_port, one_line
from ross_flwr.direct.neighborhood import MODELS
from ross_flwr.direct.revoked import NAME
from ross_flwr.engine.events import AgentReport
from ross_flwr.flower.grid import PROBLEM
from ross_flwr.flower.placement import Placement
from ross_flwr.flower.protocol import Answer, MalformedError, Report, RoundReport, model_key
from ross_flwr.flower.records import routes, tensors_of
from ross_flwr.flower.run import Run

__all__ = ["REASONS", "answer_of", "has_models", "mail_of", "models_of", "report_of"]

Drop: TypeAlias = Callable[[str, int, str], None]
"""Counts a refusal: its reason, the node and an explanation."""

MOST = 2**44
"""What an agent counts in a round is below this, so that what a run counts has 64 bits, as its reader wants."""

PRECISION = 1e-100, 1e100
"""Between them is what a private agent has spent, if it is not 0: beyond them, ε could not be computed."""

LENGTH = 2**14, 2**8
"""Letters that a report may have for each round of each agent, and besides for each other agent of the run."""

LONGEST_ANSWER = 2**17
"""Letters that the answer to who a node is may have."""

REASONS = 64
"""The reasons for which a node may have refused messages."""

_REASON = re.compile(r"[a-z0-9-]{1,64}")


class _RefusedError(ValueError):
    """A reply is refused for another reason than its form."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def answer_of(reply: Message, others: Iterable[Answer], drop: Drop, *, direct: bool) -> Answer | None:
    """Return what a node answers to who it is, or None if that is refused.

    Parameters
    ----------
    reply : Message
        The node's reply.
    others : iterable of Answer
        What other nodes have answered. A name belongs to the node that gave it first.
    drop : callable
        Counts a refusal.
    direct : bool
        Whether nodes talk directly, so that each needs a name and an address.
    """
    try:
        _check_length(reply, Answer.key, LONGEST_ANSWER)
        answer = Answer.of(reply.content)
        if direct and not answer.problem:
            _check_name(answer, others)
    except ValueError as error:
        _refuse(reply, error, drop)
        return None
    return replace(answer, problem=one_line(answer.problem[:PROBLEM]))


def _check_name(answer: Answer, others: Iterable[Answer]) -> None:
    _require(NAME.fullmatch(answer.name) is not None, f"{answer.name[:64]!r} is no node's name")
    if any(answer.name == other.name for other in others):
        raise _RefusedError("duplicate", f"another node has the name '{answer.name}' too: give each its own")
    host_and_port(answer.address, f"peer-address = {answer.address[:64]!r}")


def report_of(reply: Message, numbers: range, elapsed: float, run: Run) -> Report | None:
    """Return what a node reports of rounds `numbers`, which took `elapsed` seconds, or None if that is refused."""
    block = run.placement.blocks.get(reply.metadata.src_node_id, ())
    agents = run.placement.home.keys()
    try:
        of_agent = LENGTH[0] + LENGTH[1] * len(agents)
        _check_length(reply, Report.key, LENGTH[0] + len(numbers) * len(block) * of_agent)
        report = Report.of(reply.content)
        _check_rounds(report.rounds, numbers, elapsed)
        for each in report.rounds:
            _check_block([agent.agent for agent in each.agents], block)
            for agent in each.agents:
                _check_agent(agent, agents, tested=run.assembly.schedule.tests(each.number))
        reasons = report.dropped
        _require(len(reasons) <= REASONS and all(map(_REASON.fullmatch, reasons)), "it gives reasons that are none")
        _check_counts("dropped", reasons.values())
    except ValueError as error:
        _refuse(reply, error, run.drops.add)
        return None
    return report


def _check_length(reply: Message, key: str, limit: int) -> None:
    """Refuse a record before it is read if its text is longer than it can be."""
    record = reply.content.get(key)
    text = record.get("json") if isinstance(record, ConfigRecord) else None
    _require(not isinstance(text, str) or len(text) <= limit, f"its {key} is endless")


def _check_rounds(rounds: Iterable[RoundReport], numbers: range, elapsed: float) -> None:
    before = 0
    for each in rounds:
        asked = f"rounds {numbers.start} to {numbers[-1]}"
        _require(each.number in numbers, f"it reports of round {each.number} instead of {asked}")
        _require(each.number > before, f"it reports of round {each.number} after round {before}")
        _require(each.seconds is None or 0 <= each.seconds <= elapsed, f"round {each.number} took {each.seconds} s")
        before = each.number


def _check_block(agents: Collection[int], block: Collection[int]) -> None:
    """Refuse agents that are not on the node, or come twice."""
    for agent in agents:
        if agent not in block:
            raise _RefusedError("not-hosted", f"it reports of agent {agent}")
    _require(len(set(agents)) == len(agents), "it reports twice of an agent")


def _check_agent(report: AgentReport, agents: Collection[int], *, tested: bool) -> None:
    """Refuse what no agent does in a round: above all, a test in a round without tests."""
    who = f"agent {report.agent}"
    for others in (report.sent, report.missing):
        strange = [j for j in others if j == report.agent or j not in agents]
        _require(not strange, f"{who} has no neighbour {strange[:1]}")
    _require(all(j in agents for j in report.weights), f"{who} weighs strangers")
    _require(len(set(report.missing)) == len(report.missing), f"{who} lacks a neighbour twice")
    _require(not report.spent or PRECISION[0] < report.spent < PRECISION[1], f"{who} has spent {report.spent}")
    _check_counts(who, [report.gradients, report.utilities, report.work, *report.time.values()])
    sent = [count for kinds in report.sent.values() for count in kinds.values()]
    _check_counts(who, [*sent, sum(sent)])
    has = {report.loss is not None, report.accuracy is not None, tested}
    _require(
        len(has) == 1, f"{who} has {'no test' if tested else 'a test'} in a round {'with' if tested else 'without'}"
    )
    for share in (report.accuracy, report.attack_success):
        _require(share is None or (tested and (isnan(share) or 0 <= share <= 1)), f"{who} has a share of {share}")
    own = {"loss", "accuracy", "attack-success"}.isdisjoint(report.metrics)
    _require(own and (tested or not report.metrics), f"{who} has metrics that nobody measures")


def _check_counts(what: str, counts: Iterable[float]) -> None:
    _require(all(0 <= count < MOST for count in counts), f"{what} counts what cannot be")


def has_models(reply: Message) -> bool:
    """Return whether a reply says that it holds models."""
    return any(map(_names_model, reply.content))


def _names_model(name: str) -> bool:
    return name.startswith("agent.")


def models_of(
    replies: Iterable[Message], layout: ArrayRecord, placement: Placement, drop: Drop
) -> dict[int, ArrayRecord]:
    """Return the models in the replies, by agent, without those of replies that are refused and those that diverged.

    A model has arrays of the initial model, `layout`. Which of them agents learn, most of the models tell.
    """
    found: list[tuple[Message, Mapping[int, ArrayRecord]]] = []
    for reply in replies:
        try:
            found.append((reply, _models_in(reply, layout, placement, drop)))
        except ValueError as error:
            _refuse(reply, error, drop)
    kinds = Counter(frozenset(model) for _, models in found for model in models.values())
    usual = max(kinds, key=lambda names: (kinds[names], len(names)), default=frozenset())
    sound: dict[int, ArrayRecord] = {}
    for reply, models in found:
        if all(model.keys() == usual for model in models.values()):
            sound |= models
        else:
            drop("malformed", reply.metadata.src_node_id, "its models have other arrays than most")
    return sound


def _models_in(reply: Message, layout: ArrayRecord, placement: Placement, drop: Drop) -> dict[int, ArrayRecord]:
    """Return the finite models in a reply, by agent; other arrays are messages between agents."""
    block = placement.blocks.get(reply.metadata.src_node_id, ())
    keys = {model_key(agent): agent for agent in block}
    models = {}
    for name, record in reply.content.items():
        if not _names_model(name):
            continue
        if name not in keys:
            raise _RefusedError("not-hosted", f"it sends a model '{name}'")
        if not isinstance(record, ArrayRecord):
            raise MalformedError(f"'{name}' is no model")
        if bad := next((key for key, tensor in _read(name, record, layout).items() if not is_finite(tensor)), None):
            drop("not-finite", reply.metadata.src_node_id, f"'{bad}' of '{name}'")
        else:
            models[keys[name]] = record
    return models


def _read(name: str, record: ArrayRecord, layout: ArrayRecord) -> dict[str, Tensor]:
    """Return the tensors of a model, or refuse what no model here can be."""
    for key, array in record.items():
        fits = key in layout and array.shape == layout[key].shape and array.dtype in ("float32", layout[key].dtype)
        _require(fits, f"'{key}' of '{name}', {array.dtype} of shape {array.shape}, is not in the initial model")
    try:
        tensors = tensors_of(record)
    except ValueError as error:
        raise MalformedError(f"'{name}' cannot be read: {error}") from None
    for key, tensor in tensors.items():
        _require(tensor.is_floating_point(), f"'{key}' of '{name}' is of {tensor.dtype}")
    return tensors


def mail_of(reply: Message, sent: int, step: str, layout: ArrayRecord, run: Run) -> Iterator[tuple[int, int, str]]:
    """Yield source, destination and record of every message in a reply that may travel, and refuse the others.

    Parameters
    ----------
    reply : Message
        A reply to an exchange of relayed rounds.
    sent, step : int, str
        The pass and the step that the messages are of.
    layout : ArrayRecord
        The initial model, by which the size of a message is measured.
    run : Run
        The run.
    """
    node, route, records = reply.metadata.src_node_id, reply.content.get("route"), reply.content.array_records
    topology = run.assembly.graphs.at(sent)
    limit = MODELS * _size(layout)
    if route is None:
        return
    try:
        if not isinstance(route, ConfigRecord):
            raise MalformedError("its route is no route")
        envelopes = routes(route)
    except ValueError as error:
        _refuse(reply, error, run.drops.add)
        return
    come = set()
    for source, destination, key in envelopes:
        reason = ""
        if not run.placement.hosts(node, source):
            reason = "not-hosted"
        elif destination not in topology.receivers(source):
            reason = "no-edge"
        elif (source, destination) in come:
            reason = "duplicate"
        elif key not in records:
            reason = "malformed"
        elif route["run"] != run.name:
            reason = "other-run"
        elif route["pass"] != sent or route["step"] != step:
            reason = "other-step"
        elif _size(records[key]) > limit:
            reason = "oversize"
        if reason:
            run.drops.add(reason, node, f"'{key}' from agent {source} to agent {destination}")
            continue
        come.add((source, destination))
        yield source, destination, key


def _size(record: ArrayRecord) -> int:
    """Return how many bytes the arrays of a record take, some for the name of each included."""
    return sum(len(array.data) + len(name) for name, array in record.items())


def _refuse(reply: Message, error: ValueError, drop: Drop) -> None:
    drop(getattr(error, "reason", "malformed"), reply.metadata.src_node_id, str(error))


def _require(sound: bool, text: str) -> None:
    if not sound:
        raise MalformedError(text)
