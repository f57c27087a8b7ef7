"""What a run gives the ServerApp: a line for every round, the agents' models, and Flower's Result."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from logging import INFO, WARNING, getLogger
from math import isnan
from pathlib import Path
from typing import Any, TypeAlias

import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Result

from ross_flwr.config import ConfigError
from ross_flwr.engine.events import AgentReport, Round
from ross_flwr.flower.protocol import RoundReport
from ross_flwr.flower.records import tensors_of
from ross_flwr.flower.replies import REASONS, models_of, report_of
from ross_flwr.flower.run import Run
from ross_flwr.runs.history import History, consensus_distance

__all__ = ["Outcome", "consensus", "performance"]

logger = getLogger("flwr")


OnRound: TypeAlias = Callable[[dict[str, Any]], None]


class Outcome:
    """The results of a run so far.

    Parameters
    ----------
    run : Run
        The run.
    initial : ArrayRecord
        The initial model.
    on_round : iterable of callable
        Called with each line of the history.
    file : Path, optional
        Where the lines go.

    Attributes
    ----------
    history : History
        A line per round.
    result : Result
        The result that Flower expects.
    models : dict[int, ArrayRecord]
        Every agent's model, under the model's own parameter names, as last fetched.
    """

    def __init__(
        self,
        run: Run,
        initial: ArrayRecord,
        on_round: Iterable[Callable[[dict[str, Any]], None]],
        file: Path | None = None,
    ) -> None:
        assembly, num_agents = run.assembly, len(run.placement.home)
        self.run = run
        self.history = History(num_agents, assembly.threats.attackers, file, assembly.threats.corrupted)
        self.initial = initial
        self.result = Result(arrays=initial)
        self.models: dict[int, ArrayRecord] = {}
        self._on_round = on_round
        self._reasons: dict[int, set[str]] = {}

    def resume(self, first: int) -> None:
        """Restore the lines of the rounds before `first`. Of those that no file holds, all agents are absent.

        Raises
        ------
        ConfigError
            When the file is no history.
        """
        if self.history.file and self.history.file.is_file():
            try:
                self.history.restore(first - 1)
            except ValueError as error:
                raise ConfigError(f"{self.history.file} is damaged, or not from a run: {error}") from None
            self.history.rewrite()
            for line in self.history.lines:
                self._tell(line)
        for number in range(len(self.history.lines) + 1, first):
            self.history.add(Round(number, [], 0.0))

    def add(self, replies: Iterable[Message], last: int, elapsed: float) -> MetricRecord:
        """Write the history up to round `last` from the nodes' reports, and return that round's totals.

        A round's time is that of the slowest node, or `elapsed` seconds if the nodes report no time.
        """
        numbers = range(len(self.history.lines) + 1, last + 1)
        for number, told in self._told(replies, numbers, elapsed).items():
            seconds = max((each.seconds for each in told if each.seconds is not None), default=elapsed)
            line = self.history.add(Round(number, [report for each in told for report in each.agents], seconds))
            metrics = MetricRecord(
                {name: line[name] for name in ("gradients", "utilities", "work", "bytes", "seconds")}
            )
            self.result.train_metrics_clientapp[number] = metrics
            tested = performance(line)
            if tested is not None:
                self.result.evaluate_metrics_clientapp[number] = tested
            self._tell(line)
        self._log(numbers)
        return self.result.train_metrics_clientapp[last]

    def _tell(self, line: dict[str, Any]) -> None:
        for tell in self._on_round:
            tell(line)

    def require_reports(self, first: int) -> None:
        """Refuse to end well if no agent has reported, or reached a neighbour, in any round from `first` on.

        Raises
        ------
        ConfigError
            With what was lost most often.
        """
        lines, lost = self.history.lines[first - 1 :], self.run.drops.counts.most_common(3)
        said = ", ".join(f"{reason} ({count})" for reason, count in lost)
        if all(len(line["absent"]) == self.history.num_agents for line in lines):
            late = f"nothing, so {self.run.timeout:g} s are too short: raise phase-timeout (the timeout of start)"
            raise ConfigError(f"no agent reported in any round; lost: {said or late}")
        if lost and lost[0][0] == "unreachable" and all(map(self._is_alone, lines)):
            raise ConfigError(
                f"no agent heard from a neighbour in any round; lost: {said}: open the ports of all peer-address in "
                "firewalls, and see what `ross-flwr doctor --peer` says of each"
            )

    def _is_alone(self, line: Mapping[str, Any]) -> bool:
        """Return whether every agent that reported a round lacked all that its neighbours send."""
        topology, missing = self.run.assembly.topology, {tuple(pair) for pair in line["missing"]}
        reporting = [i for i in range(self.history.num_agents) if i not in line["absent"]]
        return all((i, j) in missing for i in reporting for j in topology.place(i)[0] if j != i)

    def _told(self, replies: Iterable[Message], numbers: range, elapsed: float) -> dict[int, list[RoundReport]]:
        """Return what the nodes report of each round; what they refused is counted with what was refused here."""
        told: dict[int, list[RoundReport]] = {number: [] for number in numbers}
        for reply in replies:
            report = report_of(reply, numbers, elapsed, self.run)
            if report:
                self._count(reply.metadata.src_node_id, report.dropped)
                for each in report.rounds:
                    told[each.number].append(each)
        for rounds in told.values():
            self._leave_out_lone_metrics([report for each in rounds for report in each.agents])
        return told

    def _count(self, node: int, dropped: Mapping[str, int]) -> None:
        """Count what a node refused; it cannot invent ever more reasons."""
        given = self._reasons.setdefault(node, set())
        for reason, count in dropped.items():
            if len(given) < REASONS:
                given.add(reason)
            self.run.drops.counts[reason if reason in given else "other"] += count

    def _leave_out_lone_metrics(self, reports: Iterable[AgentReport]) -> None:
        """Leave out the metrics that no more than half of those have who tested: a mean would tell of a few of them."""
        tested = [report for report in reports if report.loss is not None]
        having = Counter(name for report in tested for name in report.metrics)
        for report in tested:
            for name in [name for name in report.metrics if 2 * having[name] <= len(tested)]:
                del report.metrics[name]
                node = self.run.placement.home[report.agent]
                self.run.drops.add("lone-metric", node, f"agent {report.agent} alone, or with few, measures '{name}'")

    def _log(self, numbers: range) -> None:
        lines, of = self.history.lines[numbers.start - 1 :], self.history.num_agents
        for absent, without in groupby(lines, key=lambda line: line["absent"]):
            rounds = [line["round"] for line in without]
            if absent:
                when = f"round {rounds[0]}" if len(rounds) == 1 else f"rounds {rounds[0]}–{rounds[-1]}"
                many = f"{len(absent)} of {of}"
                logger.log(WARNING, "\t├──> %s: no report from %s agents: %s", when, many, absent)
        logger.log(INFO, "aggregate_train: Received reports of %d of %d agents", of - len(lines[-1]["absent"]), of)
        logger.log(INFO, "\t└──> Aggregated MetricRecord: %s", self.result.train_metrics_clientapp[numbers[-1]])
        if lines[-1]["loss"]:
            tested = self._of(**self.history.tested(lines[-1]))
            logger.log(INFO, "aggregate_evaluate: %s tested their own models", tested)
            logger.log(INFO, "\t└──> Aggregated MetricRecord: %s", self.result.evaluate_metrics_clientapp[numbers[-1]])

    @property
    def honest(self) -> list[ArrayRecord]:
        """The models of the honest agents, as far as they came."""
        return [self.models[i] for i in self.history.honest if i in self.models]

    def summary(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds, but for the task, which the ServerApp may not know."""
        vectors = [torch.cat([each.reshape(-1) for each in tensors_of(model).values()]) for model in self.honest]
        return {
            **self.run.assembly.outline(),
            **self.history.summary(),
            **self.run.assembly.promise(self.history, secret=True),
            "dropped": dict(self.run.drops.counts),
            "consensus-distance": consensus_distance(vectors) if vectors else None,
        }

    def _of(self, agents: int, of: int) -> str:
        """Return how many agents of all that are there; that they are honest is said where others attack."""
        return f"{agents} of {of} {'honest ' if self.history.attackers else ''}agents"

    def keep_models(self, replies: Iterable[Message]) -> None:
        """Keep the models in the replies; their consensus is the result."""
        self.models |= models_of(replies, self.initial, self.run.placement, self.run.drops.add)
        honest = self.honest
        if 0 < len(honest) < len(self.history.honest):
            came = self._of(len(honest), len(self.history.honest))
            logger.log(WARNING, "\t├──> the consensus model is the mean of %s, since no other models came", came)
        self.result.arrays = consensus(honest, self.initial)


def consensus(models: Iterable[ArrayRecord], initial: ArrayRecord) -> ArrayRecord:
    """Return the mean of the models, in the layout of `initial`; entries that agents do not learn keep their values."""
    decoded = [tensors_of(model) for model in models]
    mean = ArrayRecord()
    for name, array in initial.items():
        tensors = [model[name] for model in decoded if name in model]
        mean[name] = (
            Array(torch.stack(tensors).mean(0, dtype=torch.float64).numpy().astype(array.dtype)) if tensors else array
        )
    return mean


def performance(line: Mapping[str, Any]) -> MetricRecord | None:
    """Return loss, accuracy (where targets are classes) and the user's own metrics of a round in which agents tested.

    Each is the mean, min and max over honest agents, each tested at its own model.
    """
    if not line["loss"]:
        return None
    spreads = {"accuracy": line["accuracy"], "loss": line["loss"], **line["metrics"]}
    if isnan(line["accuracy"]["mean"]):
        del spreads["accuracy"]
    return MetricRecord({f"{name}-{key}": value for name, spread in spreads.items() for key, value in spread.items()})
