"""Segments: rounds in which nodes talk to each other directly, and only report to the ServerApp afterwards."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING, getLogger

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from ross_flwr.flower.grid import Reply
from ross_flwr.flower.patience import Wait
from ross_flwr.flower.protocol import Segment, Setup
from ross_flwr.flower.questions import Questions
from ross_flwr.flower.replies import answer_of, report_of
from ross_flwr.flower.run import Run
from ross_flwr.graph.topology import Place

__all__ = ["Segments"]

logger = getLogger("flwr")

TRIES = 3
"""The run stops once the app of every node has failed this many times in one segment."""


@dataclass
class Segments:
    """Tells each node its neighbours, lets it run some rounds with them, and waits for its report.

    A node has one segment at a time. One that still owes its report of an earlier segment is told the segment at hand
    once it has answered, so that no segments queue up for a node that is late.

    Parameters
    ----------
    run : Run
        What is run, and where. Its timeout is the shortest time that the nodes get once most have reported.

    Attributes
    ----------
    ready : set of int
        Nodes that have set up their agents.
    """

    run: Run
    ready: set[int] = field(default_factory=set)
    _rounds: range = range(1, 2)
    _owed: dict[str, int] = field(default_factory=dict)

    def exchanges(self, first: int, last: int) -> Iterator[None]:
        """Yield once: a segment of rounds `first` to `last` is one exchange."""
        self._rounds = range(first, last + 1)
        yield

    def messages(self, initial: ArrayRecord, config: ConfigRecord) -> Iterator[Message]:
        """Yield a message for each node, which makes it run the rounds of the segment."""
        first, last = self._rounds[0], self._rounds[-1]
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
        known = {other: self.run.placement.answers.get(other) for other in hosts}
        return [(answer.name, answer.address, hosts[other]) for other, answer in known.items() if answer]

    def exchange(self, messages: Iterable[Message]) -> list[Message]:
        """Send the messages and return the nodes' reports, as `Telling` waits for them."""
        telling = Telling(self.run, self._rounds, {each.metadata.dst_node_id: each for each in messages}, self._owed)
        for number, reply in self.run.post.receive(telling.go_on):
            telling.take(number, reply)
        self._owed = telling.end()
        self.ready |= telling.reports.keys()
        return [*telling.reports.values()]


class Telling:
    """Tells the nodes a segment, and those again that died and came back, and waits for their reports.

    How long it waits:

    - Until more than half of the nodes at work have reported, it waits for as long as Flower says that the others are
      there. A node that reports early, or nothing, ends the segment for nobody.
    - From then on, the others get as long as those took, `timeout` at least, from the latest report on, unless their
      budgets are spent.
    - A node that, Flower says, is not there is not waited for once there is a report.

    A node that answers a question asked after it was told the segment does not run it: it has died and come back.
    One whose app raises an error is told again after a pause, which doubles each time. If the app has raised `TRIES`
    errors on every node, and none has reported, the run stops.

    Parameters
    ----------
    run : Run
        The run.
    numbers : range
        The rounds of the segment.
    segments : dict[int, Message]
        What to tell each node.
    owed : dict[str, int]
        The nodes that have not replied to an earlier segment, by the number of that message.

    Attributes
    ----------
    reports : dict[int, Message]
        The sound reports, by node.
    """

    def __init__(self, run: Run, numbers: range, segments: dict[int, Message], owed: dict[str, int]) -> None:
        self.run, self.post = run, run.post
        self.reports: dict[int, Message] = {}
        self._numbers, self._segments = numbers, segments
        self._began = self.post.clock()
        self._wait = Wait(self.post.patience, run.timeout, self._began)
        self._took: list[float] = []
        self._refused: set[int] = set()
        self._earlier = {number: node for number, node in owed.items() if number in self.post.waiting}
        self._working: dict[str, int] = {}
        self._told_at: dict[int, float] = {}
        self._raised: dict[int, list[str]] = {}
        self._rests_until: dict[int, float] = {}
        self._questions = Questions(self.post, run.setup(()), ConfigRecord())
        for node in segments.keys() - {*self._earlier.values()}:
            if node in run.placement.answers:
                self._tell(node)
            else:
                self._questions.lose(node)

    def _tell(self, node: int, behind_by: float = 0.0) -> None:
        """Send a node its segment; others have been at it for `behind_by` seconds."""
        content = self._segments[node].content
        if behind_by:
            content[Segment.key] = replace(Segment.of(content), behind_by=behind_by).to_record()
        self._told_at[node] = self.post.clock()
        for numbers in (self._working, self._earlier):
            for number in [number for number, other in numbers.items() if other == node]:
                del numbers[number]
        for number in self.post.send([Message(content, node, "train.segment")]):
            self._working[number] = node

    def go_on(self, _elapsed: float) -> bool:
        """Return whether to wait on, and ask the silent nodes who they are if it is time."""
        waiting = self._segments.keys() - self.reports.keys() - self._refused
        if not waiting or not self._is_patient(waiting & self._at_work()):
            return False
        for node in [node for node, until in self._rests_until.items() if until <= self.post.clock()]:
            del self._rests_until[node]
            self._questions.lose(node)
        self._questions.ask_again(waiting)
        return True

    def _at_work(self) -> set[int]:
        return {*self._working.values(), *self._earlier.values()}

    def _is_patient(self, at_work: set[int]) -> bool:
        done, working = len(self._took), len(at_work)
        if not (done and working) or done <= working:
            return bool(working) or not done
        most = self._took[(done + working) // 2]  # when more than half had reported
        self._wait.longest = max(self.run.timeout, most)
        return self.post.clock() < self._wait.until(at_work)

    def take(self, number: str, reply: Reply) -> None:
        """Take a reply to a segment, or to a question."""
        node, told = reply.node, self._working.pop(number, None) is not None
        late = self._earlier.pop(number, None) is not None
        asked_at = self._questions.asked_at(number)
        if reply.raised and (told or late):
            self._rest(node, reply.problem)
        elif reply.message is None:
            self._questions.lose(node)
        elif told:
            self._report(node, reply.message)
        elif late:
            self.post.drop("late", node, "its report came after the segment")
            self._tell(node, self.post.clock() - self._began)
        elif asked_at is not None and asked_at >= self._told_at.get(node, 0.0) and node not in self.reports:
            self._come_back(node, reply.message)

    def _rest(self, node: int, problem: str) -> None:
        """Let a node rest whose app has raised an error. Stop the run when that is so of every node, time and again."""
        self._raised.setdefault(node, []).append(problem)
        times = {node: len(problems) for node, problems in self._raised.items()}
        self._rests_until[node] = self.post.clock() + 2.0 ** min(times[node], 6)
        if not self.reports:
            self.run.require_work({node: self._raised[node][-1] for node in times if times[node] >= TRIES})

    def _report(self, node: int, message: Message) -> None:
        now = self.post.clock()
        if report_of(message, self._numbers, now - self._began, self.run):
            self._wait.heard({node} | self._at_work(), now, now - self._began)
            self.reports[node] = message
            self._took.append(now - self._began)
        else:
            self._refused.add(node)

    def _come_back(self, node: int, message: Message) -> None:
        answers = self.run.placement.answers
        others = [answer for other, answer in answers.items() if other != node]
        answer = answer_of(message, others, self.post.drop, direct=True)
        if answer and not answer.problem:
            logger.log(INFO, "\t├──> agents %s are back", self.run.placement.blocks[node])
            answers[node] = answer
            self._tell(node, self.post.clock() - self._began)

    def end(self) -> dict[str, int]:
        """Wait no longer; return the nodes that owe a reply, by the number of the message."""
        self._questions.forget()
        self.post.give_up(self._wait, self._at_work())
        for node in self._segments.keys() - self.reports.keys():
            logger.log(WARNING, "\t├──> no word from agents %s", self.run.placement.blocks[node])
        return {
            number: node for number, node in {**self._earlier, **self._working}.items() if number in self.post.waiting
        }
