"""The relay: messages between agents travel through the ServerApp."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from logging import WARNING, getLogger

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from ross_flwr.flower.protocol import Call, Setup
from ross_flwr.flower.records import route_of
from ross_flwr.flower.replies import mail_of
from ross_flwr.flower.run import Run

__all__ = ["Relay"]

logger = getLogger("flwr")

TRIES = 3
"""After this many times the seconds that a node gets, a message expires and the node is sent a new one."""


@dataclass
class Relay:
    """Carries the messages of agents from node to node, undecoded, along the edges of the topology.

    It moves records from one node's reply into another node's next message, refuses messages without an edge, and goes
    on without agents whose reply is late or an error. A pass activates every node once per step, except that the last
    step of a pass and the first of the next share an activation.

    Parameters
    ----------
    run : Run
        What is run, and where.
    alone : bool (default: False)
        Whether nodes run rounds among themselves between the relayed ones.

    Attributes
    ----------
    ready : set of int
        Nodes that have set up their agents.
    """

    run: Run
    alone: bool = False
    ready: set[int] = field(default_factory=set)
    _call: Call = field(default_factory=lambda: Call(0, 0, 0))
    _mail: dict[int, RecordDict] = field(default_factory=dict)
    _initial: ArrayRecord = field(default_factory=ArrayRecord)
    _late: set[int] = field(default_factory=set)

    def exchanges(self, first: int, last: int) -> Iterator[None]:
        """Yield before each exchange of rounds `first` to `last`."""
        schedule, steps = self.run.assembly.schedule, len(self.run.assembly.algorithm.steps)
        begins, ends = (first - 1) * schedule.passes, last * schedule.passes
        end = ends if self.alone else schedule.total_passes
        for pass_number in range(begins, ends):
            # In all but the first pass, the first step has already run with the last step of the previous pass.
            early = pass_number > (begins if self.alone else (self.run.first - 1) * schedule.passes) and steps > 1
            for step in range(int(early), steps):
                self._call = Call(pass_number, step, end)
                yield

    def messages(self, initial: ArrayRecord, config: ConfigRecord) -> Iterator[Message]:
        """Yield a message for every free node: what arrived for its agents, and the set-up if the node is new."""
        self._initial = initial
        step = self.run.assembly.algorithm.steps[self._call.step]
        number = self._call.pass_number // self.run.assembly.schedule.passes + 1
        for node, block in self.run.placement.blocks.items():
            if node in self.run.post.busy:
                continue
            content = self._mail.get(node, RecordDict())
            content[Call.key] = self._call.to_record()
            content["config"] = config
            if node not in self.ready:
                content[Setup.key] = self.run.setup(block).to_record()
                content["initial"] = initial
            ttl = TRIES * self._longest(new=node not in self.ready)
            yield Message(content, node, f"train.{step}", ttl=ttl, group_id=str(number))

    def _longest(self, *, new: bool) -> float:
        """Return the seconds that a node gets, which may be new and has to set up its agents first."""
        return max(self.run.timeout, self.run.setup_timeout) if new else self.run.timeout

    def exchange(self, messages: Iterable[Message]) -> list[Message]:
        """Send the messages; return the replies that come in time, and keep their mail for the next exchange.

        Raises
        ------
        ConfigError
            When the app fails on every node, right after each was set up.
        """
        # A node that has to be set up once others are at work is late, and takes part when it is ready.
        began, longest = self.run.post.clock(), self._longest(new=not self.ready)
        replies, came = [], self.run.post.exchange(messages, longest)
        if self.run.post.clock() - began >= longest:
            self._late |= self.run.post.busy
        # A node that was set up before may have restarted, and is set up anew.
        self.run.require_work({each.node: each.problem for each in came if each.raised and each.node not in self.ready})
        for reply in came:
            if reply.message is None:
                self.ready.discard(reply.node)
                continue
            self.ready.add(reply.node)
            if not reply.late:
                replies.append(reply.message)
        self._mail = self._forward(replies)
        if self._ends_round():
            self._log_late()
        return replies

    def _ends_round(self) -> bool:
        last = self._call.step == len(self.run.assembly.algorithm.steps) - 1
        return last and (self._call.pass_number + 1) % self.run.assembly.schedule.passes == 0

    def _log_late(self) -> None:
        """Log how many were late in the round that ends, or have been since an earlier one."""
        late = sum(len(self.run.placement.blocks[node]) for node in self._late)
        if late:
            logger.log(
                WARNING,
                "\t├──> %d of %d agents did not finish an exchange within %g s: if their nodes are slow or busy, raise "
                "phase-timeout (the timeout of start)",
                late,
                len(self.run.placement.home),
                self.run.timeout,
            )
        self._late &= self.run.post.busy

    def _forward(self, replies: Iterable[Message]) -> dict[int, RecordDict]:
        """Put what leaves each node, unchanged, into the next message to the node where it is due."""
        mail: dict[int, RecordDict] = {}
        steps = self.run.assembly.algorithm.steps
        last = self._call.step == len(steps) - 1
        # The next pass begins with the last step.
        sent, step = (
            (self._call.pass_number + 1, steps[0]) if last else (self._call.pass_number, steps[self._call.step])
        )
        for number, reply in enumerate(replies):
            records = reply.content.array_records
            accepted: dict[int, list[tuple[int, int, str]]] = {}
            for source, destination, key in mail_of(reply, sent, step, self._initial, self.run):
                accepted.setdefault(self.run.placement.home[destination], []).append((source, destination, key))
            for target, entries in accepted.items():
                letter = mail.setdefault(target, RecordDict())
                letter[f"{number}.route"] = route_of(entries, {"run": self.run.name, "pass": sent, "step": step})
                for key in dict.fromkeys(key for _, _, key in entries):
                    letter[f"{number}.{key}"] = records[key]
        return mail
