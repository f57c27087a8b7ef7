"""The mail of one node: it sorts, checks and counts what its agents send each other, what leaves and what arrives."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from logging import getLogger
from typing import TypeAlias

from ross_flwr.algorithms.messages import (
    Exchange,
    Forms,
    Inbox,
    Message,
    MessageTransform,
    Refused,
    on_the_wire,
    require_form,
)
from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.refusals import Refusals
from ross_flwr.learning.agent import Agent

__all__ = ["Mailroom"]

Sacks: TypeAlias = dict[int, dict[int, Message]]
"""Messages as they travel, by destination and source."""


class Mailroom:
    """Sorts, checks and counts the messages of the agents of one node.

    Parameters
    ----------
    run : str
        Name of the run, on every envelope.
    transforms : sequence of MessageTransform
        The message chain: what happens to messages between two steps. Receivers apply it in reverse order.
    attackers : collection of int
        The agents that attack, which the log tells.

    Attributes
    ----------
    waiting : dict
        Messages for agents here that no step has read yet, by destination and source.
    sent : dict[int, dict[int, dict[str, int]]]
        Bytes since the last report, by source, destination and tensor.
    missing : dict[int, set[int]]
        Neighbours whose message did not arrive since the last report, by agent.
    refusals : Refusals
        Messages refused so far.
    """

    def __init__(self, run: str, transforms: Sequence[MessageTransform] = (), attackers: Collection[int] = ()) -> None:
        self.run = run
        self.transforms = transforms
        self.attackers = attackers
        self.waiting: Sacks = {}
        self.sent: dict[int, dict[int, dict[str, int]]] = {}
        self.missing: dict[int, set[int]] = {}
        self.refusals = Refusals(getLogger("ross_flwr"))
        self._checked: dict[int, str] = {}

    def post(
        self,
        agents: Mapping[int, Agent],
        outbox: Mapping[int, Message],
        source: Agent,
        exchange: Exchange,
        *,
        silence: bool,
    ) -> list[Envelope]:
        """Keep what `source` sends to the `agents` of this node; count all, and return what leaves the node.

        With `silence`, receivers to which the step sends nothing get an empty message, so that they do not wait.
        """
        if not (outbox or self.transforms or silence):
            return []
        if source.index in outbox:
            self.waiting.setdefault(source.index, {})[source.index] = outbox[source.index]
        others = {j: message for j, message in outbox.items() if j != source.index}
        for transform in self.transforms:
            others = transform.send(source, others, exchange)
        if silence:
            others = {**{j: {} for j in source.receivers}, **others}
        sent = self.sent.setdefault(source.index, {})
        leaving = []
        for destination, message in others.items():
            if destination not in source.mixing_column:
                self.drop("no-edge", source.index, destination)
                continue
            kinds = sent.setdefault(destination, {})
            for name, tensor in message.items():
                kinds[name] = kinds.get(name, 0) + tensor.nbytes
            if destination in agents:
                self.waiting.setdefault(destination, {})[source.index] = message
            else:
                where = exchange.pass_number, exchange.step, source.index, destination
                leaving.append(Envelope(self.run, *where, message))
        return leaving

    def sort(self, agents: Mapping[int, Agent], arrived: Iterable[Envelope], exchange: Exchange | None) -> Sacks:
        """Return all that came of `exchange` for the `agents` here, by destination and source; None is for nothing."""
        sacks, self.waiting = self.waiting, {}
        self._checked.clear()
        for envelope in arrived:
            destination, source = envelope.destination, envelope.source
            sack = sacks.setdefault(destination, {})
            if envelope.run != self.run:
                self.drop("other-run", source, destination)
            elif destination not in agents:
                self.drop("not-hosted", source, destination)
            elif source not in agents[destination].neighbors:
                self.drop("no-edge", source, destination)
            elif not exchange or (envelope.pass_number, envelope.step) != (exchange.pass_number, exchange.step):
                self.drop("other-step", source, destination)
            elif source in sack:
                self.drop("duplicate", source, destination)
            else:
                sack[source] = envelope.tensors
        return sacks

    def open(self, agent: Agent, sack: Mapping[int, Message], exchange: Exchange, *, optional: bool) -> Inbox:
        """Return the sound messages in the `sack` of `agent`, all transforms undone, and note whose are missing."""
        inbox, silent = Inbox(), set()
        wire = on_the_wire(exchange.forms, self.transforms)
        for source, message in sorted(sack.items()):
            if source == agent.index:
                inbox[source] = message
                continue
            if optional and not message:
                silent.add(source)
                continue
            try:
                inbox[source] = self._read(agent, source, message, exchange, wire)
            except Refused as error:
                self.drop(error.reason, source, agent.index)
        if lacking := {j for j in agent.neighbors if j not in inbox and j not in silent}:
            self.missing.setdefault(agent.index, set()).update(lacking)
        return inbox

    def preview(self, agent: Agent, source: int, message: Message, exchange: Exchange) -> Message:
        """Return what `agent` would read of a message of `exchange`, and leave its state as it was.

        Raises
        ------
        Refused
            When it would drop the message.
        """
        before = dict(agent.state)
        try:
            return self._read(agent, source, message, exchange, on_the_wire(exchange.forms, self.transforms))
        finally:
            agent.state = before

    def _read(self, agent: Agent, source: int, message: Message, exchange: Exchange, wire: Forms) -> Message:
        self._check(message, wire)
        for transform in reversed(self.transforms):
            message = transform.receive(agent, source, message, exchange)
        if wire is not exchange.forms:
            require_form(message, exchange.forms)
        return message

    def _check(self, message: Message, forms: Forms) -> None:
        """Refuse a message of another form. One that goes to several agents here is looked at once."""
        if id(message) not in self._checked:
            self._checked[id(message)] = ""
            try:
                require_form(message, forms)
            except Refused as error:
                self._checked[id(message)] = error.reason
        if reason := self._checked[id(message)]:
            raise Refused(reason)

    def drop(self, reason: str, source: int, destination: int) -> None:
        """Count a refused message, and log it; a reader must not take what an attack does for a fault."""
        role = "attacks, as configured" if source in self.attackers else "does not attack, but others do, as configured"
        told = f" ({role})" if self.attackers else ""
        self.refusals.add(reason, f"dropped a message from agent {source}{told} to agent {destination}")
