"""The relay: messages between agents travel through the ServerApp."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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

    Within a round, exchanges overlap: a node gets its next message as soon as all nodes that send to it have replied,
    while others are still at work. No node is ahead by more than an exchange.

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
    _next: Call | None = None
    _mail: dict[int, RecordDict] = field(default_factory=dict)
    _initial: ArrayRecord = field(default_factory=ArrayRecord)
    _config: ConfigRecord = field(default_factory=ConfigRecord)
    _late: set[int] = field(default_factory=set)

    def exchanges(self, first: int, last: int) -> Iterator[None]:
        """Yield before each exchange of rounds `first` to `last`."""
        schedule, steps = self.run.assembly.schedule, len(self.run.assembly.algorithm.steps)
        begins, ends = (first - 1) * schedule.passes, last * schedule.passes
        end = ends if self.alone else schedule.total_passes
        calls = []
        for pass_number in range(begins, ends):
            # In all but the first pass, the first step has already run with the last step of the previous pass.
            early = pass_number > (begins if self.alone else (self.run.first - 1) * schedule.passes) and steps > 1
            calls += [Call(pass_number, step, end) for step in range(int(early), steps)]
        for self._call, self._next in zip(calls, [*calls[1:], None], strict=True):
            yield

    def messages(self, initial: ArrayRecord, config: ConfigRecord) -> Iterator[Message]:
        """Yield a message for every free node: what arrived for its agents, and the set-up if the node is new."""
        self._initial, self._config = initial, config
        told = self.run.post.busy | self.run.post.ahead
        for node in self.run.placement.blocks:
            if node not in told:
                yield self._message(node, self._call, self._mail.get(node, RecordDict()))

    def _message(self, node: int, call: Call, content: RecordDict, before: float = 0.0) -> Message:
        """Return the message of an exchange that begins in at most so many seconds."""
        content[Call.key] = call.to_record()
        content["config"] = self._config
        if node not in self.ready:
            content[Setup.key] = self.run.setup(self.run.placement.blocks[node]).to_record()
            content["initial"] = self._initial
        ttl = before + TRIES * self._longest(new=node not in self.ready)
        step = self.run.assembly.algorithm.steps[call.step]
        number = call.pass_number // self.run.assembly.schedule.passes + 1
        return Message(content, node, f"train.{step}", ttl=ttl, group_id=str(number))

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
        mail: dict[int, RecordDict] = {}
        replies, came = [], self.run.post.exchange(messages, longest, self._onward(mail, longest))
        self._mail = mail
        if self.run.post.clock() - began >= longest:
            self._late |= self.run.post.busy - self.run.post.ahead
        # A node that was set up before may have restarted, and is set up anew.
        self.run.require_work({each.node: each.problem for each in came if each.raised and each.node not in self.ready})
        for reply in came:
            if reply.message is None:
                self.ready.discard(reply.node)
                continue
            self.ready.add(reply.node)
            if not reply.late:
                replies.append(reply.message)
        if self._ends_round():
            self._log_late()
        return replies

    def _onward(self, mail: dict[int, RecordDict], longest: float) -> Callable[[Message], Iterator[Message]]:
        """Return what puts a reply into `mail`, and yields the messages of the next exchange that it completes."""
        following = self._next
        reach = self._reach() if following else {}
        owing = Counter(node for reached in reach.values() for node in reached)

        def forward(reply: Message) -> Iterator[Message]:
            self._forward(reply, mail)
            self.ready.add(reply.metadata.src_node_id)
            for node in reach.get(reply.metadata.src_node_id, ()):
                owing[node] -= 1
                if following and not owing[node]:
                    yield self._message(node, following, mail.get(node, RecordDict()), longest)

        return forward

    def _reach(self) -> dict[int, set[int]]:
        """Return the nodes that may get mail from each node now, itself among them."""
        home, topology = self.run.placement.home, self.run.assembly.graphs.at(self._sent()[0])
        reach = {node: {node} for node in self.run.placement.blocks}
        for source, node in home.items():
            reach[node].update(home[destination] for destination in topology.receivers(source))
        return reach

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

    def _sent(self) -> tuple[int, str]:
        """Return the pass and the step of what nodes send now: with the last step of a pass, the next one begins."""
        steps = self.run.assembly.algorithm.steps
        last = self._call.step == len(steps) - 1
        return (self._call.pass_number + 1, steps[0]) if last else (self._call.pass_number, steps[self._call.step])

    def _forward(self, reply: Message, mail: dict[int, RecordDict]) -> None:
        """Put what leaves a node, unchanged, into the next message to the node where it is due."""
        records, (sent, step) = reply.content.array_records, self._sent()
        accepted: dict[int, list[tuple[int, int, str]]] = {}
        for source, destination, key in mail_of(reply, sent, step, self._initial, self.run):
            accepted.setdefault(self.run.placement.home[destination], []).append((source, destination, key))
        for target, entries in accepted.items():
            letter, sender = mail.setdefault(target, RecordDict()), reply.metadata.src_node_id
            letter[f"{sender}.route"] = route_of(entries, {"run": self.run.name, "pass": sent, "step": step})
            for key in dict.fromkeys(key for _, _, key in entries):
                letter[f"{sender}.{key}"] = records[key]
