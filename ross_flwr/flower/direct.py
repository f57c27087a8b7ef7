"""PeerDirect: a Flower strategy that tells nodes of their neighbours, and lets them talk to each other."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from logging import INFO, WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from ross_flwr.config import Config, ConfigError
from ross_flwr.engine.events import AgentReport, Round
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.records import from_json, to_json
from ross_flwr.flower.relay import PeerRelay, logger
from ross_flwr.graph.options import GraphOptions
from ross_flwr.runs.options import RunOptions

__all__ = ["PeerDirect", "PeerHybrid"]

ASK_AGAIN = 60.0
"""Seconds after which every node that has not answered is asked who it is: one at work answers when it is done."""

LOOK_AGAIN = 1.0
"""Seconds between two looks at which nodes are there: one that was lost and is there is asked at once."""


class PeerDirect(PeerRelay):
    """Peer-to-peer rounds in which nodes talk to each other directly.

    The ServerApp sends each node one message per segment of `segment-rounds` rounds: its agents' mixing rows, and the
    names and addresses of the nodes that host their neighbours. It gets back what happened in each round, and no model
    unless `return-model` asks for the last.

    Parameters
    ----------
    **options : bool, int, float or str
        Configuration keys (``ross-flwr config`` lists them), written with ``-`` or ``_``.
    """

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run `num_rounds` rounds and return what `FedAvg` would.

        Parameters
        ----------
        grid : Grid
            Reaches the nodes.
        initial_arrays : ArrayRecord
            The initial model of every agent, under the model's own parameter names.
        num_rounds : int
            Rounds.
        timeout : float
            Seconds that nodes which are later than all others with a segment are still waited for.
        train_config, evaluate_config : ConfigRecord, optional
            Not used.
        evaluate_fn : callable, optional
            Not possible: there are no models to test here.

        Returns
        -------
        Result
            ``arrays`` is the consensus model, or `initial_arrays` if no models come back.
        """
        if evaluate_fn is not None:
            raise ConfigError("evaluate_fn needs models at the ServerApp in every round: use transport = 'relay'")
        self._place(grid, ConfigRecord())
        self.summary()
        result = Result(arrays=initial_arrays)
        who = self._names(self._who or self._ask(grid, self.blocks, ConfigRecord()))
        for first, last in self._segments(num_rounds):
            logger.log(INFO, "[ROUNDS %d–%d/%d]", first, last, num_rounds)
            self._run_rounds(grid, initial_arrays, who, first, last, num_rounds, timeout, result)
        if self.models:
            result.arrays = self._consensus(initial_arrays)
        return result

    def _segments(self, num_rounds: int) -> Iterator[tuple[int, int]]:
        """Yield the first and the last round of each segment."""
        length = self.config.part(FlowerOptions).segment_rounds
        for first in range(1, num_rounds + 1, length):
            yield first, min(first + length - 1, num_rounds)

    def _run_rounds(
        self,
        grid: Grid,
        initial: ArrayRecord,
        who: dict[int, tuple[str, str]],
        first: int,
        last: int,
        num_rounds: int,
        timeout: float,
        result: Result,
    ) -> None:
        """Run a segment, and note what came of it."""
        replies = self._run_segment(grid, initial, who, first, last, timeout)
        self._note(replies, first, last, result)
        self._collect(replies)

    def _names(self, answers: Mapping[int, Mapping[str, Any]]) -> dict[int, tuple[str, str]]:
        """Return name and address of every node, and refuse to begin without one of them."""
        silent = {"problem": f"it did not answer within {self.config.part(FlowerOptions).node_timeout:g} s"}
        for node in self.blocks:
            answer = answers.get(node, silent)
            if "problem" in answer:
                raise ConfigError(f"node {node} cannot take part: {answer['problem']}")
        who = {node: (answer["name"], answer["address"]) for node, answer in answers.items()}
        for what, values in (("name", [name for name, _ in who.values()]), ("address", [at for _, at in who.values()])):
            if twice := {value for value in values if values.count(value) > 1}:
                raise ConfigError(f"two nodes have the {what} '{twice.pop()}': give each its own")
        return who

    def _run_segment(
        self,
        grid: Grid,
        initial: ArrayRecord,
        who: dict[int, tuple[str, str]],
        first: int,
        last: int,
        timeout: float,
    ) -> list[Message]:
        """Let all nodes run rounds `first` … `last`; return the replies.

        A node that died and is back, which shows in that it has time for a question, is told again. Once all others
        have replied, nodes that have not are waited for `timeout` seconds more, and then left to themselves; those of
        which Flower says that the message did not reach them, at once.
        """
        passes = self.config.part(RunOptions).batches_per_round
        graphs = [self.experiment.topology_at(t) for t in range((first - 1) * passes, last * passes)]
        if not self.experiment.changes:
            graphs = graphs[:1]
        replies: list[Message] = []
        tasks: dict[str, int] = {}
        questions: dict[str, int] = {}
        waiting = set(self.blocks)

        def tell(node: int) -> None:
            content = self._segment_of(node, graphs, who, first, last)
            content["initial"] = initial
            numbers = grid.push_messages([Message(content, node, "train.segment")])
            tasks.update({number: node for number in numbers if number})  # none for a node that was unregistered

        for node in self.blocks:
            tell(node)
        lost: set[int] = set()
        heard = asked = looked = time.monotonic()
        while waiting and (not replies or (waiting & {*tasks.values()} and time.monotonic() - heard < timeout)):
            for reply in grid.pull_messages([*tasks, *questions]):
                number = reply.metadata.reply_to_message_id
                node = tasks.pop(number) if number in tasks else questions.pop(number)
                if reply.has_error():
                    logger.log(WARNING, "\t├──> agents %s: %s", self.blocks[node], reply.error.reason)
                    self.dropped["error"] += 1
                    lost.add(node)
                elif "rounds" in reply.content.config_records:
                    replies.append(reply)
                    waiting.discard(node)
                    heard = time.monotonic()
                elif node in waiting:
                    logger.log(INFO, "\t├──> agents %s are back", self.blocks[node])
                    tell(node)
            if (now := time.monotonic()) - looked > LOOK_AGAIN:
                looked = now
                there = set(grid.get_node_ids())
                if now - asked > ASK_AGAIN:
                    asked, lost = now, waiting
                for node in lost & there - {*questions.values()}:
                    questions.update(dict.fromkeys(grid.push_messages([self._question(node, ConfigRecord())]), node))
                lost = waiting - there
            time.sleep(0.05)
        for node in waiting:
            logger.log(WARNING, "\t├──> no word from agents %s", self.blocks[node])
        return replies

    def _segment_of(
        self, node: int, graphs: list[Any], who: dict[int, tuple[str, str]], first: int, last: int
    ) -> RecordDict:
        """Return what a node has to know: its agents' places, and who hosts their neighbours."""
        block = self.blocks[node]
        places = {i: [graph.place(i) for graph in graphs] for i in block}
        near = {j for of_agent in places.values() for place in of_agent for side in place for j in side}
        hosts: dict[int, list[int]] = {}
        for agent in sorted(near - set(block)):
            hosts.setdefault(self._home[agent], []).append(agent)
        call = {
            "first": first,
            "last": last,
            "begins": (first - 1) * self.config.part(RunOptions).batches_per_round,
            "topology": self.topology.digest,
            "places": places,
            "neighbors": [[*who[other], agents] for other, agents in hosts.items()],
        }
        return RecordDict({"setup": self._setup_of(block), "segment": to_json(call)})

    def _note(self, replies: Iterable[Message], first: int, last: int, result: Result) -> None:
        """Write the lines of the history of a segment."""
        seconds: dict[int, float] = {}
        reports: dict[int, list[AgentReport]] = {number: [] for number in range(first, last + 1)}
        for reply in replies:
            self.dropped.update(from_json(reply.content.config_records["dropped"]))
            for number, took, entries in from_json(reply.content.config_records["rounds"]):
                seconds[number] = max(took, seconds.get(number, 0.0))
                reports[number] += [AgentReport.from_json(entry) for entry in entries]
        lines = []
        for number, heard in reports.items():
            line = self.history.add(Round(number, heard, seconds.get(number, 0.0)))
            result.train_metrics_clientapp[number] = MetricRecord(
                {name: line[name] for name in ("gradients", "utilities", "bytes", "seconds")}
            )
            self._note_evaluation(number, [], result)
            self.on_round(line)
            lines.append(line)
        for absent, without in groupby(lines, key=lambda line: line["absent"]):
            numbers = [line["round"] for line in without]
            if absent:
                logger.log(WARNING, "\t├──> rounds %d–%d: no report from agents %s", numbers[0], numbers[-1], absent)


class PeerHybrid(PeerDirect):
    """Rounds of gossip from node to node, and rounds of averaging over all agents through Flower.

    Nodes need an address for those alone with whom they gossip: with ``topology="islands"``, for the nodes of their own
    cluster. A round of `average-every` is one of `PeerRelay`. It takes the state that the gossip left, and is always
    the last before the next segment.
    """

    def _plan(self, config: Config) -> None:
        if not config.part(GraphOptions).average_every:
            raise ConfigError(
                "transport = 'hybrid' carries the rounds of average-every through Flower, and average-every = 0 has "
                "none: use average-every = 10, say, or transport = 'direct'"
            )
        super()._plan(config)

    def _segments(self, num_rounds: int) -> Iterator[tuple[int, int]]:
        every, length = self.config.part(GraphOptions).average_every, self.config.part(FlowerOptions).segment_rounds
        first = 1
        while first <= num_rounds:
            last = first
            if not self.experiment.averages(first):
                last = min(first + length - 1, first // every * every + every - 1, num_rounds)
            yield first, last
            first = last + 1

    def _run_rounds(
        self,
        grid: Grid,
        initial: ArrayRecord,
        who: dict[int, tuple[str, str]],
        first: int,
        last: int,
        num_rounds: int,
        timeout: float,
        result: Result,
    ) -> None:
        if not self.experiment.averages(first):
            super()._run_rounds(grid, initial, who, first, last, num_rounds, timeout, result)
            return
        self._ready = set(self.blocks)  # the segments have told them of their agents
        alone = range(first, first + 1)
        replies = self._run_round(grid, first, alone, num_rounds, initial, ConfigRecord(), timeout, result)
        self._note_evaluation(first, replies, result)
        if first == num_rounds and self.config.part(FlowerOptions).return_model == "final":
            messages = self.configure_evaluate(first, initial, ConfigRecord(), grid)
            self._collect(self._exchange(grid, messages, timeout))
