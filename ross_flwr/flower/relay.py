"""PeerRelay: a Flower strategy that carries messages between agents along the edges of the topology."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from logging import INFO, WARNING, getLogger
from math import inf, isnan
from secrets import token_hex
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from ross_flwr.config import Config, ConfigError, Scalar, relevant, resolve
from ross_flwr.engine.events import AgentReport, Round
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.records import from_json, route_of, routes, to_json
from ross_flwr.graph import topology
from ross_flwr.graph.options import GraphOptions
from ross_flwr.runs.assemble import Experiment
from ross_flwr.runs.history import History
from ross_flwr.runs.options import RunOptions

__all__ = ["PeerRelay"]

logger = getLogger("flwr")

SETTLE = 1.0
"""Seconds for which the number of nodes has to stay the same when num-nodes does not say how many there are."""

TRIES = 3
"""A message expires, and its node is written to again, after this many times the time an exchange may take."""


class PeerRelay(Strategy):
    """Peer-to-peer rounds through Flower's Grid.

    The relay decodes no message on its way: it moves records from one node's reply into another node's next message,
    refuses what has no edge, and goes on without an agent whose reply is late or an error. A round is one activation of
    every node per exchange of the algorithm; the last step of a round and the first of the next share one.

    Parameters
    ----------
    **options : bool, int, float or str
        Configuration keys (``ross-flwr config`` lists them), written with ``-`` or ``_``. Without `num_agents` there is
        one agent for each node that is there at the start; without `attackers` nobody attacks.

    Attributes
    ----------
    history : History
        A line per round; there from the start on, where `num_agents` was left out.
    on_round : callable
        Called with each line.
    models : dict[int, ArrayRecord]
        Every agent's model, under the model's own parameter names, as last fetched: after the last round.
    dropped : Counter
        Messages refused here, by reason.

    Raises
    ------
    ConfigError
        When an option is not known or not possible.
    """

    def __init__(self, **options: Scalar) -> None:
        given = {name.replace("_", "-"): value for name, value in options.items()}
        self.config = resolve({"attackers": 0, **given})
        self._agent_per_node = "num-agents" not in given
        if not self._agent_per_node:
            self._plan(self.config)
        self.on_round: Callable[[dict[str, Any]], None] = lambda _line: None
        self.models: dict[int, ArrayRecord] = {}
        self.dropped: Counter[str] = Counter()
        self.blocks: dict[int, tuple[int, ...]] = {}
        self._ready: set[int] = set()
        self._mail: dict[int, RecordDict] = {}
        self._late: dict[str, int] = {}
        self._home: dict[int, int] = {}
        self._who: dict[int, dict[str, Any]] = {}
        self._call: dict[str, int] = {}
        self._began = 0.0
        self._patience = 0.0
        self._run = ""

    def _plan(self, config: Config) -> None:
        """Make what the relay goes by of a configuration with its true number of agents."""
        self.config = config
        self.experiment = Experiment(config)
        self.experiment.check()
        self.steps = self.experiment.algorithm.steps
        self.topology = self.experiment.topology
        agents = config.part(RunOptions).num_agents
        self.history = History(agents, self.experiment.attackers, corrupted=self.experiment.corrupted)

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
            Seconds after which an agent's reply counts as missing in an exchange.
        train_config, evaluate_config : ConfigRecord, optional
            Sent to the nodes, as the record ``config``, with every training or evaluation message, and ``server-round``
            with it. Mods see it; hyper-parameters are options of the strategy.
        evaluate_fn : callable, optional
            Tests the consensus model at the ServerApp before the first and after each round; for this the relay fetches
            all models in every round.

        Returns
        -------
        Result
            ``arrays`` is the consensus model: the mean over the honest agents heard last.
        """
        result = Result(arrays=initial_arrays)
        train_config = ConfigRecord() if train_config is None else train_config
        evaluate_config = ConfigRecord() if evaluate_config is None else evaluate_config

        def test_centrally(server_round: int) -> None:
            metrics = evaluate_fn(server_round, result.arrays) if evaluate_fn else None
            if metrics is not None:
                result.evaluate_metrics_serverapp[server_round] = metrics

        self._place(grid, train_config)
        self.summary()
        test_centrally(0)
        for server_round in range(1, num_rounds + 1):
            logger.log(INFO, "[ROUND %d/%d]", server_round, num_rounds)
            together = range(1, num_rounds + 1)
            replies = self._run_round(
                grid, server_round, together, num_rounds, initial_arrays, train_config, timeout, result
            )
            if evaluate_fn is not None or server_round == num_rounds:
                messages = self.configure_evaluate(server_round, result.arrays, evaluate_config, grid)
                self._collect(self._exchange(grid, messages, timeout))
                result.arrays = self._consensus(initial_arrays)
            self._note_evaluation(server_round, replies, result)
            test_centrally(server_round)
        return result

    def _run_round(
        self,
        grid: Grid,
        server_round: int,
        together: range,
        num_rounds: int,
        initial: ArrayRecord,
        config: ConfigRecord,
        timeout: float,
        result: Result,
    ) -> list[Message]:
        """Carry the messages of one round, one of those that are carried `together`; return the last replies."""
        run, steps = self.config.part(RunOptions), len(self.steps)
        passes = run.batches_per_round
        self._began = time.perf_counter()
        for pass_number in range((server_round - 1) * passes, server_round * passes):
            # All but the first pass have had their first step run along with the last step of the pass before.
            first = pass_number == (together.start - 1) * passes
            for step in range(0 if first or steps == 1 else 1, steps):
                self._call = {
                    "pass": pass_number,
                    "step": step,
                    "end": (together.stop - 1) * passes,
                    "total": num_rounds,
                }
                ready = self._ready | set(self._late.values())
                longer = max(timeout, self.config.part(FlowerOptions).node_timeout)
                self._patience = timeout if len(ready) == len(self.blocks) else longer
                replies = self._exchange(
                    grid, self.configure_train(server_round, initial, config, grid), self._patience
                )
                self._mail = self._forward(replies)
        _, metrics = self.aggregate_train(server_round, replies)
        if metrics is not None:
            result.train_metrics_clientapp[server_round] = metrics
        return replies

    def _note_evaluation(self, server_round: int, replies: Iterable[Message], result: Result) -> None:
        metrics = self.aggregate_evaluate(server_round, replies)
        if metrics is not None:
            result.evaluate_metrics_clientapp[server_round] = metrics

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message a node for the step at hand: what arrived for its agents, and the set-up if it is new."""
        config["server-round"] = server_round
        for node, block in self.blocks.items():
            if node in self._late.values():
                continue
            content = self._mail.get(node, RecordDict())
            content["call"] = to_json(self._call)
            content["config"] = config
            if node not in self._ready:
                content["setup"] = self._setup_of(block)
                content["initial"] = arrays
            step = self.steps[self._call["step"]]
            yield Message(content, node, f"train.{step}", ttl=self._patience * TRIES, group_id=str(server_round))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Write the round's line of the history from the agents' reports; return its totals and no arrays."""
        reports = []
        for reply in replies:
            node = reply.metadata.src_node_id
            if "report" in reply.content.config_records:
                try:
                    entries = from_json(reply.content.config_records["report"])
                    told = [AgentReport.from_json(entry) for entry in entries]
                except (AttributeError, KeyError, TypeError, ValueError):
                    self._drop("malformed", node)
                    continue
                reports += [report for report in told if self._home.get(report.agent) == node]
        line = self.history.add(Round(server_round, reports, time.perf_counter() - self._began))
        if line["absent"]:
            logger.log(WARNING, "\t├──> no report from agents %s", line["absent"])
        self.on_round(line)
        return None, MetricRecord({name: line[name] for name in ("gradients", "utilities", "bytes", "seconds")})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message a node that asks for its agents' models."""
        config["server-round"] = server_round
        for node in self._ready - set(self._late.values()):
            yield Message(RecordDict({"config": config}), node, "query.models", group_id=str(server_round))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return what honest agents measured, each at its own model, in a round that tested them.

        Loss, accuracy (where targets are classes) and the users' own metrics, each as mean, min and max over agents.
        """
        line = self.history.lines[-1]
        if not line["loss"]:
            return None
        spreads = {"accuracy": line["accuracy"], "loss": line["loss"], **line["metrics"]}
        if isnan(line["accuracy"]["mean"]):
            del spreads["accuracy"]
        for name, spread in spreads.items():
            logger.log(INFO, "\t├──> %s over honest agents: %.4f", name, spread["mean"])
        return MetricRecord(
            {f"{name}-{key}": value for name, spread in spreads.items() for key, value in spread.items()}
        )

    def summary(self) -> None:
        """Log what is about to run."""
        logger.log(INFO, "Starting %s strategy:", type(self).__name__)
        run, graph = self.config.part(RunOptions), self.config.part(GraphOptions).topology
        gap = self.topology.spectral_gap
        logger.log(INFO, "\t├──> algorithm: %s", run.algorithm)
        logger.log(INFO, "\t├──> topology: %s of %d agents, spectral gap %.4f", graph, run.num_agents, gap)
        logger.log(INFO, "\t└──> agents by node: %s", [len(block) for block in self.blocks.values()])

    def _place(self, grid: Grid, config: ConfigRecord) -> None:
        """Wait for the nodes and spread the agents over them, neighbours together where that is cheap."""
        self._run = f"{grid.run.run_id}-{token_hex(4)}"
        self._ready, self._mail, self._late = set(), {}, {}
        nodes = self._wait_for_nodes(grid)
        if self._agent_per_node:
            self._plan(resolve({**self.config.values, "num-agents": len(nodes)}))
        self._who = {}
        if len(nodes) == self.config.part(RunOptions).num_agents:
            # Flower draws the numbers of nodes; who holds the same data shall have the same neighbours in every run.
            self._who = self._ask(grid, nodes, config)
            nodes.sort(key=lambda node: self._who.get(node, {}).get("partition", inf))
        blocks = topology.blocks(self.topology, len(nodes))
        self.blocks = {node: block for node, block in zip(nodes, blocks, strict=True) if block}
        self.experiment.check_nodes(len(self.blocks))
        self._home = {agent: node for node, block in self.blocks.items() for agent in block}
        idle = len(nodes) - len(self.blocks)
        if idle:
            logger.log(WARNING, "num-agents = %d: %d of %d nodes stay idle", len(self._home), idle, len(nodes))

    def _wait_for_nodes(self, grid: Grid) -> list[int]:
        wanted, limit = self.config.part(FlowerOptions).num_nodes, self.config.part(FlowerOptions).node_timeout
        deadline = time.monotonic() + limit
        seen, since = -1, 0.0
        while time.monotonic() < deadline:
            nodes = sorted(grid.get_node_ids())
            if len(nodes) != seen:
                seen, since = len(nodes), time.monotonic()
            if wanted and seen >= wanted:
                return nodes[:wanted]
            if not wanted and seen > 0 and time.monotonic() - since >= SETTLE:
                return nodes
            time.sleep(0.1)
        raise ConfigError(f"num-nodes = {wanted}, but {seen} nodes came within node-timeout = {limit} s")

    def _ask(self, grid: Grid, nodes: Iterable[int], config: ConfigRecord) -> dict[int, dict[str, Any]]:
        """Return what each of the nodes says of itself, those left out that do not answer."""
        config["server-round"] = 0
        questions = [self._question(node, config) for node in nodes]
        replies = self._exchange(grid, questions, self.config.part(FlowerOptions).node_timeout)
        self._ready.clear()  # they have answered, and know of no agents yet
        return {reply.metadata.src_node_id: from_json(reply.content.config_records["who"]) for reply in replies}

    def _question(self, node: int, config: ConfigRecord) -> Message:
        content = RecordDict({"options": to_json(self._options), "config": config})
        return Message(content, node, "query.who")

    @property
    def _options(self) -> dict[str, Scalar]:
        """The values that a node has to know."""
        return relevant(self.config, self.config.part(RunOptions).algorithm)

    def _setup_of(self, block: Iterable[int]) -> ConfigRecord:
        """Return what a node has to know of the run and of its agents' places."""
        places = {agent: self.topology.place(agent) for agent in block}
        return to_json({"run": self._run, "options": self._options, "places": places})

    def _exchange(self, grid: Grid, messages: Iterable[Message], timeout: float) -> list[Message]:
        """Send the messages and return the sound replies that come within `timeout` seconds.

        A node that is later gets no message until its reply has come, or has expired: it does one thing at a time.
        The pause between two looks grows with the wait from 2 ms to 0.1 s, and after ten seconds on to a hundredth
        of it.
        """
        pending: dict[str, int] = {}
        for message in messages:
            accepted = [number for number in grid.push_messages([message]) if number]
            pending.update(dict.fromkeys(accepted, message.metadata.dst_node_id))
            if not accepted:
                self._drop("unreachable", message.metadata.dst_node_id)
        nobody = not pending  # was free to be written to: then wait until somebody late is
        began = time.monotonic()
        replies: list[Message] = []
        while (pending or (nobody and self._late)) and (elapsed := time.monotonic() - began) < timeout:
            for reply in grid.pull_messages([*pending, *self._late]):
                number = reply.metadata.reply_to_message_id
                late = number in self._late
                node = self._late.pop(number) if late else pending.pop(number)
                nobody = False
                if reply.has_error():
                    self.dropped["error"] += 1
                    self._ready.discard(node)
                    logger.log(WARNING, "\t├──> agents %s: %s", self.blocks.get(node), reply.error.reason)
                    continue
                self._ready.add(node)
                if late:
                    self.dropped["late"] += 1
                else:
                    replies.append(reply)
            if pending or nobody:
                time.sleep(max(0.002, min(elapsed / 20, max(0.1, elapsed / 100))))
        if pending:
            logger.log(WARNING, "\t├──> %d nodes are later than %.1f s", len(pending), timeout)
            self._late.update(pending)
        return replies

    def _forward(self, replies: Iterable[Message]) -> dict[int, RecordDict]:
        """Lay what leaves each node into the next message of the node where it is due, as it is."""
        mail: dict[int, RecordDict] = {}
        sent = self._call["pass"] + (self._call["step"] == len(self.steps) - 1)  # with it, the next pass begins
        topology = self.experiment.topology_at(sent)
        for number, reply in enumerate(replies):
            content, node = reply.content, reply.metadata.src_node_id
            route, records = content.config_records.get("route"), content.array_records
            if route is None:
                continue
            try:
                envelopes = routes(route)
            except ValueError:
                self._drop("malformed", node)
                continue
            accepted: dict[int, list[tuple[int, int, str]]] = {}
            for source, destination, key in envelopes:
                if self._home.get(source) != node:
                    self._drop("not-hosted", node)
                elif destination not in topology.receivers(source):
                    self._drop("no-edge", node)
                elif key not in records:
                    self._drop("malformed", node)
                elif route["pass"] != sent:
                    self._drop("other-step", node)
                else:
                    accepted.setdefault(self._home[destination], []).append((source, destination, key))
            for target, entries in accepted.items():
                letter = mail.setdefault(target, RecordDict())
                letter[f"{number}.route"] = route_of(entries, route)
                for _, _, key in entries:
                    letter[f"{number}.{key}"] = records[key]
        return mail

    def _drop(self, reason: str, node: int) -> None:
        self.dropped[reason] += 1
        logger.log(WARNING, "\t├──> no message for or from agents %s: %s", self.blocks.get(node), reason)

    def _collect(self, replies: Iterable[Message]) -> None:
        self.models = {
            int(key.removeprefix("agent.")): record
            for reply in replies
            for key, record in reply.content.array_records.items()
        }

    def _consensus(self, initial: ArrayRecord) -> ArrayRecord:
        """Return the mean over honest agents, in the layout of `initial`; what agents do not mix stays as it was."""
        records = [self.models[i] for i in self.history.honest if i in self.models]
        consensus = ArrayRecord()
        for name, array in initial.items():
            tensors = [torch.from_numpy(record[name].numpy()) for record in records if name in record]
            mean = torch.stack(tensors).mean(0).numpy() if tensors else None
            consensus[name] = array if mean is None else Array(mean.astype(array.dtype))
        return consensus
