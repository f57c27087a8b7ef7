"""Segments: rounds in which nodes talk to each other directly, and only report to the ServerApp afterwards."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING, getLogger

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from ross_flwr.config import ConfigError
from ross_flwr.flower.placement import NODE_TIMEOUT, Placement, question
from ross_flwr.flower.protocol import Segment, Setup
from ross_flwr.flower.run import Run
from ross_flwr.graph.topology import Place

__all__ = ["Segments", "check_names"]

logger = getLogger("flwr")

ASK_AGAIN = 60.0
"""Seconds after which every node that has not replied is asked who it is. A busy node answers when it is done."""

LOOK_AGAIN = 1.0
"""Seconds between two checks of which nodes are connected. A lost node that is back is asked at once."""


def check_names(placement: Placement) -> None:
    """Refuse to begin unless every node has given a name and an address of its own.

    Raises
    ------
    ConfigError
        Naming a node that has not, or the name or address that two nodes share.
    """
    for node in placement.blocks:
        if node not in placement.answers:
            raise ConfigError(f"node {node} cannot take part: it did not answer within {NODE_TIMEOUT:g} s")
    answers = placement.answers.values()
    for what, values in (("name", [a.name for a in answers]), ("address", [a.address for a in answers])):
        if twice := {value for value in values if values.count(value) > 1}:
            raise ConfigError(f"two nodes have the {what} '{twice.pop()}': give each its own")


@dataclass
class Segments:
    """Tells each node its neighbours, lets it run some rounds with them, and waits for its report.

    Parameters
    ----------
    run : Run
        What is run, and where. Its timeout starts at the last report.
    """

    run: Run
    _rounds: tuple[int, int] = (1, 1)
    _questions: set[str] = field(default_factory=set)
    _lost: set[int] = field(default_factory=set)
    _looked: float = 0.0
    _asked: float = 0.0

    @property
    def ready(self) -> set[int]:
        """Nodes that have set up their agents."""
        return set(self.run.placement.blocks)

    def exchanges(self, first: int, last: int) -> Iterator[None]:
        """Yield once: a segment of rounds `first` to `last` is one exchange."""
        self._rounds = first, last
        yield

    def messages(self, initial: ArrayRecord, config: ConfigRecord) -> Iterator[Message]:
        """Yield a message for each node, which makes it run the rounds of the segment."""
        first, last = self._rounds
        passes = self.run.assembly.schedule.passes
        graphs = [self.run.assembly.graphs.at(t) for t in range((first - 1) * passes, last * passes)]
        if not self.run.assembly.graphs.changes:
            graphs = graphs[:1]
        for node, block in self.run.placement.blocks.items():
            places = {agent: [graph.place(agent) for graph in graphs] for agent in block}
            segment = Segment(first, last, self.run.assembly.topology.digest, places, self._neighbors(node, places))
            content = RecordDict({"initial": initial, "config": config})
            content[Setup.key] = self.run.setup(block).to_record()
            content[Segment.key] = segment.to_record()
            yield Message(content, node, "train.segment")

    def _neighbors(self, node: int, places: dict[int, list[Place]]) -> list[tuple[str, str, list[int]]]:
        """Return name, address and agents of the nodes that host neighbours of the agents on `node`."""
        near = {j for of_agent in places.values() for place in of_agent for side in place for j in side}
        hosts: dict[int, list[int]] = {}
        for agent in sorted(near - set(self.run.placement.blocks[node])):
            hosts.setdefault(self.run.placement.home[agent], []).append(agent)
        answers = self.run.placement.answers
        return [(answers[other].name, answers[other].address, agents) for other, agents in hosts.items()]

    def exchange(self, messages: Iterable[Message]) -> list[Message]:
        """Send the messages and return the nodes' reports.

        A node that answers a question while it should be running rounds has died and come back; it is told again. Once
        all others have reported, the missing nodes get `timeout` more seconds, and are then left to themselves. A node
        that, Flower says, the message did not reach is left at once.
        """
        post, segments = self.run.post, {message.metadata.dst_node_id: message for message in messages}
        working = self._send(segments.values())
        began = self._asked = self._looked = post.clock()
        self._questions, self._lost = set(), set()
        reports: dict[int, Message] = {}
        heard = 0.0

        def go_on(_elapsed: float) -> bool:
            waiting = segments.keys() - reports.keys()
            patient = not reports or (waiting & {*working.values()} and post.clock() - heard < self.run.timeout)
            if waiting and patient:
                self._look_for(waiting)
            return bool(waiting and patient)

        for number, reply in post.receive(go_on):
            node = reply.node
            asked = number in self._questions
            told = working.pop(number, None) is not None
            if reply.message is None:
                self._lost.add(node)
            elif told:
                reports.setdefault(node, reply.message)
                heard = post.clock()
            elif asked and node not in reports:
                logger.log(INFO, "\t├──> agents %s are back", self.run.placement.blocks[node])
                content = segments[node].content
                segment = replace(Segment.of(content), behind_by=post.clock() - began)
                content[Segment.key] = segment.to_record()
                working |= self._send([Message(content, node, "train.segment")])
        for number in {*working, *self._questions} & post.waiting.keys():
            del post.waiting[number]
        for node in segments.keys() - reports.keys():
            logger.log(WARNING, "\t├──> no word from agents %s", self.run.placement.blocks[node])
        return [*reports.values()]

    def _send(self, messages: Iterable[Message]) -> dict[str, int]:
        """Send messages; return the node of each message that Flower accepted, by the message's number."""
        return {number: self.run.post.waiting[number] for number in self.run.post.send(messages)}

    def _look_for(self, waiting: set[int]) -> None:
        """Ask lost nodes that are back who they are; from time to time ask every missing node."""
        now = self.run.post.clock()
        if now - self._looked <= LOOK_AGAIN:
            return
        self._looked = now
        there = set(self.run.post.grid.get_node_ids())
        if now - self._asked > ASK_AGAIN:
            self._asked, self._lost = now, waiting
        asked = {self.run.post.waiting[number] for number in self._questions & self.run.post.waiting.keys()}
        setup = self.run.setup(())
        questions = [question(node, setup, ConfigRecord()) for node in self._lost & there - asked]
        self._questions |= self._send(questions).keys()
        self._lost = waiting - there
