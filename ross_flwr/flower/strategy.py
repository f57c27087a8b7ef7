"""What PeerRelay, PeerDirect and PeerHybrid share."""

import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from logging import getLogger
from secrets import token_hex
from typing import Any, ClassVar, Protocol, TypeAlias

import networkx as nx
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from ross_flwr.algorithms import Algorithm
from ross_flwr.config import Config, ConfigError, Scalar, relevant, resolve
from ross_flwr.flower.grid import Post
from ross_flwr.flower.logs import Evaluate, evaluate, log_end, log_plan, log_rounds, log_start
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.outcome import Outcome
from ross_flwr.flower.patience import Patience
from ross_flwr.flower.placement import NODE_TIMEOUT, Placement, first_round, place, wait_for_nodes
from ross_flwr.flower.protocol import Setup
from ross_flwr.flower.questions import ask
from ross_flwr.flower.records import tensors_of
from ross_flwr.flower.replies import has_models
from ross_flwr.flower.results import Results
from ross_flwr.flower.run import Drops, Run
from ross_flwr.flower.settings import config_of, graphs_of
from ross_flwr.runs.assemble import assemble, refuse_impossible
from ross_flwr.runs.history import History
from ross_flwr.runs.options import RunOptions

__all__ = ["PeerStrategy", "Way"]

logger = getLogger("flwr")

FORGETTING = 60.0
"""Seconds that nodes get to empty their `state-dir` when a run is done."""


Stop: TypeAlias = Callable[[int, Result], bool]
"""Says after a round, from its number and the result so far, whether the run ends."""

Configs: TypeAlias = tuple[ConfigRecord, ConfigRecord]
"""What goes along with messages that train, and with those that evaluate."""


class Way(Protocol):
    """How messages travel in some rounds of a run: `Relay` or `Segments`."""

    @property
    def ready(self) -> set[int]:
        """Nodes that have set up their agents."""

    def exchanges(self, first: int, last: int) -> Iterator[None]:
        """Yield before each exchange between ServerApp and nodes in rounds `first` to `last`."""

    def messages(self, initial: ArrayRecord, config: ConfigRecord) -> Iterable[Message]:
        """Return the messages of the exchange at hand."""

    def exchange(self, messages: Iterable[Message]) -> list[Message]:
        """Send the messages and return the replies."""


class PeerStrategy(Strategy):
    """What the strategies share. A subclass says in `_stretches` how messages travel in which rounds."""

    transport: ClassVar[str]
    """The value of the key `transport` that stands for the strategy."""

    def __init__(
        self,
        *,
        algorithm: str | Algorithm = "ross",
        topology: str | nx.Graph = "random-regular",
        log: str = "",
        **options: Scalar,
    ) -> None:
        self._given = config_of(self.transport, algorithm, topology, options)
        self._graph = None if isinstance(topology, str) else topology
        self._agent_per_node = self._graph is None and not {"num_agents", "num-agents"} & options.keys()
        self.results = Results(self._given.part(FlowerOptions).results, log)
        self.history_file = self.results.history
        self._wants_models = self.transport == "relay" or self._given.part(FlowerOptions).return_model == "final"
        self.about: Mapping[str, Any] = {}
        self.outcome: Mapping[str, Any] = {}
        self.on_round: Callable[[dict[str, Any]], None] = lambda _line: None
        (refuse_impossible if self._agent_per_node else self._plan)(self._given)

    @property
    def history(self) -> History:
        """A line per round of the last run."""
        return self._outcome.history

    @property
    def placement(self) -> Placement:
        """Which node hosts which agents."""
        return self._run.placement

    @property
    def models(self) -> dict[int, ArrayRecord]:
        """Every agent's last fetched model, under the model's own parameter names."""
        return self._outcome.models

    @property
    def dropped(self) -> Counter[str]:
        """Messages and replies that were refused or lost, by reason."""
        return self._run.drops.counts

    def _plan(self, config: Config) -> None:
        """Make the parts of a run, once the configuration has the true number of agents."""
        self.config = config
        self.assembly = assemble(config)
        if self._graph is not None:
            self.assembly.graphs = graphs_of(self._graph, config)
        self.assembly.check()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Evaluate | None = None,
        should_stop: Stop | None = None,
    ) -> Result:
        """Run `num_rounds` rounds and return what `FedAvg` would.

        Parameters
        ----------
        grid : Grid
            Reaches the nodes.
        initial_arrays : ArrayRecord
            The initial model of every agent, under the model's own parameter names.
        num_rounds : int
            How many rounds to run; overrides the configuration.
        timeout : float
            Seconds after which a reply is missing: in each exchange of a relayed round, and once more than half of the
            nodes have reported on a segment, whose others get as long as those took, if that is longer.
        train_config, evaluate_config : ConfigRecord, optional
            Sent to the nodes with every training or evaluation message, as the record ``config``, which also gets
            ``server-round``. Mods see it; hyper-parameters are options of the strategy.
        evaluate_fn : callable, optional
            Tests the consensus model before round 1 and after each round, for which the relay fetches all models in
            every round. Not possible where nodes talk directly.
        should_stop : callable, optional
            From the round and the result so far to whether the run ends, asked when results come in.

        Returns
        -------
        Result
            ``arrays`` is the consensus model, the mean over honest agents, or `initial_arrays` if no models come.

        Raises
        ------
        ConfigError
            When the run is not possible, too few nodes come, or none of them can work.
        """
        if evaluate_fn and self.transport != "relay":
            raise ConfigError("evaluate_fn needs models at the ServerApp in every round: use PeerRelay")
        configs = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        with self.results.held(resume=bool(self._given.part(FlowerOptions).resume)):
            self._begin(grid, num_rounds, timeout, configs[0])
            return self._run_rounds(initial_arrays, configs, evaluate_fn, should_stop)

    def _run_rounds(
        self, initial: ArrayRecord, configs: Configs, evaluate_fn: Evaluate | None, stop: Stop | None
    ) -> Result:
        """Run the rounds, keep and log what they give, and return it."""
        train_config, evaluate_config = configs
        began, resume, grid = time.perf_counter(), bool(self.config.part(FlowerOptions).resume), self._run.post.grid
        num_rounds = self.config.part(RunOptions).num_rounds
        self._outcome = Outcome(self._run, initial, [self.results.add, self.on_round], self.history_file)
        log_start(self, num_rounds, initial, configs)
        self.summary()
        self.results.begin(self.config, resume=resume)
        if resume:
            self._outcome.resume(self._run.first)
        result = self._outcome.result
        if self._run.first == 1:  # the models of a run that goes on are on its nodes
            evaluate(evaluate_fn, 0, result)
        for first, last, way in self._stretches(num_rounds):
            log_rounds(first, last, num_rounds)
            self._way, self._began = way, time.perf_counter()
            for _ in way.exchanges(first, last):
                replies = way.exchange(self.configure_train(last, initial, train_config, grid))
            self.aggregate_train(last, replies)
            if evaluate_fn or last == num_rounds:
                self._keep_models(replies, last, evaluate_config)
            evaluate(evaluate_fn, last, result)
            if last < num_rounds and stop and stop(last, result):
                self._keep_models(replies, last, evaluate_config)
                break
        self._outcome.require_reports(self._run.first)
        forget(self._run, evaluate_config)
        self.outcome = {**self._outcome.summary(), **self.about}
        log_end(result, time.perf_counter() - began, self.outcome)
        self.results.finish(self.outcome, tensors_of(result.arrays) if self._outcome.honest else None)
        return result

    def _begin(self, grid: Grid, num_rounds: int, timeout: float, config: ConfigRecord) -> None:
        """Wait for the nodes, and place the agents on them."""
        drops, nodes = Drops(), wait_for_nodes(grid, self._given.part(FlowerOptions))
        agents = {"num-agents": len(nodes)} if self._agent_per_node else {}
        self._plan(resolve({**self._given.values, **agents, "num-rounds": num_rounds}))
        options, flower, assembly = self.config.part(RunOptions), self.config.part(FlowerOptions), self.assembly
        assembly.threats.check_nodes(min(len(nodes), options.num_agents))
        if flower.resume and not flower.state_dir:
            raise ConfigError(f"resume = '{flower.resume}' needs the state-dir that the run had")
        told = relevant(self.config, options.algorithm)
        name = flower.resume or f"{grid.run.run_id}-{token_hex(4)}"
        post = Post(grid, drops.add, Patience(flower.slowest))
        answers = ask(post, nodes, Setup(name, told, {}), config, direct=self.transport != "relay")
        placement = place(assembly.topology, nodes, answers)
        drops.blocks = placement.blocks
        first = min(first_round(placement, name), num_rounds) if flower.resume else 1
        self._run = Run(name, assembly, told, placement, post, drops, timeout, NODE_TIMEOUT, first)

    @abstractmethod
    def _stretches(self, num_rounds: int) -> Iterator[tuple[int, int, Way]]:
        """Yield the first and last round of each stretch between two reports, and how messages travel in it."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the messages of the exchange at hand, without those that were sent ahead.

        A round takes several exchanges where the ServerApp relays them.
        """
        config["server-round"] = server_round
        return self._way.messages(arrays, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Write the history up to `server_round` from the nodes' reports; return the round's totals and no arrays."""
        return None, self._outcome.add(replies, server_round, time.perf_counter() - self._began)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message per node that asks for its agents' models."""
        config["server-round"] = server_round
        for node in self._way.ready - self._run.post.busy:
            yield Message(RecordDict({"config": config}), node, "query.models", group_id=str(server_round))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Keep the models in the replies; return what each agent measured in the round at its own model."""
        self._outcome.keep_models(replies)
        return self._outcome.result.evaluate_metrics_clientapp.get(server_round)

    def _keep_models(self, replies: list[Message], number: int, config: ConfigRecord) -> None:
        """Keep the agents' models. A node whose reply holds none is asked for them if they are wanted."""
        said = {reply.metadata.src_node_id: has_models(reply) for reply in replies}
        if self._wants_models and not (said and all(said.values())):
            asked = self.configure_evaluate(number, self._outcome.initial, config, self._run.post.grid)
            silent = [each for each in asked if not said.get(each.metadata.dst_node_id, any(said.values()))]
            answers = self._run.post.exchange(silent, self._run.timeout)
            replies = [*replies, *(each.message for each in answers if each.message and not each.late)]
        self.aggregate_evaluate(number, replies)

    def summary(self) -> None:
        """Log what is about to run."""
        log_plan(self._run, self.config, self._outcome.initial)


def forget(run: Run, config: ConfigRecord) -> None:
    """Let the nodes empty their `state-dir`: the run is done. Those that are not done have their state yet."""
    if run.options.get("state-dir"):
        nodes = run.placement.answers.keys() - run.post.busy
        run.post.exchange([Message(RecordDict({"config": config}), node, "query.done") for node in nodes], FORGETTING)
