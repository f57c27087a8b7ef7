"""The parts of a run, and the agents that they make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from ross_flwr.algorithms import Algorithm
from ross_flwr.algorithms.algorithm import TrainingData
from ross_flwr.algorithms.messages import MessageTransform
from ross_flwr.compression.link import Compression
from ross_flwr.config import ConfigError
from ross_flwr.engine.batched import choose
from ross_flwr.engine.engines import Engine
from ross_flwr.engine.host import Host
from ross_flwr.engine.rounds import Schedule
from ross_flwr.graph.schedule import Graphs
from ross_flwr.graph.topology import Place, Topology
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.objective import ModuleObjective, Objective
from ross_flwr.learning.rules import Mean, Rule, require_feasible
from ross_flwr.learning.splits import trained_on
from ross_flwr.privacy.privacy import CLIP, EPSILON, Privacy
from ross_flwr.privacy.seeds import Keys
from ross_flwr.runs.history import History
from ross_flwr.runs.promises import promised
from ross_flwr.tasks.dealt import Dealt
from ross_flwr.tasks.task import Task
from ross_flwr.threats.threats import Threats

__all__ = ["Assembly", "needs_validation"]


@dataclass(kw_only=True)
class Assembly:
    """The parts of a run. Nodes that hold equal parts make equal agents.

    Attributes
    ----------
    algorithm : Algorithm
        The method with its hyper-parameters.
    graphs : Graphs
        The graph of every pass.
    task : Task
        What is learned. If the algorithm pools data, every agent holds the data of all honest, uncorrupted agents.
    schedule : Schedule
        How passes make rounds, and which rounds are tested.
    seed : int (default: 0)
        Everything random follows from it.
    threats : Threats, optional
        Who attacks, who is away, what gets lost.
    compression : Compression, optional
        How what agents send is compressed; without it, not at all.
    privacy : Privacy, optional
        How training examples are protected; without it, they are only where the method is a private one.
    aggregator : Rule, optional
        How agents mix if the algorithm has no rule of its own; without it, by W.

    Raises
    ------
    ConfigError
        When the algorithm pools data and the task cannot.
    """

    algorithm: Algorithm
    graphs: Graphs
    task: Task
    schedule: Schedule
    seed: int = 0
    threats: Threats = field(default_factory=Threats)
    compression: Compression | None = None
    privacy: Privacy | None = None
    aggregator: Rule = field(default_factory=Mean)

    def __post_init__(self) -> None:
        if self.algorithm.private and self.privacy is None:
            self.privacy = Privacy(clip=CLIP, epsilon=EPSILON)
        if self.algorithm.trains_on == "pooled":
            if not isinstance(self.task, Dealt):
                raise ConfigError(
                    f"algorithm = '{self.algorithm.name}' pools the data of all agents, and an app with its own data "
                    "has only that of its node: use algorithm = 'dpsgd', or FedAvg"
                )
            unsound = self.threats.attackers | self.threats.corrupted
            self.task = self.task.pooled([i for i in range(self.graphs.num_agents) if i not in unsound])

    @property
    def topology(self) -> Topology:
        """Graph and mixing matrix of the first pass."""
        return self.graphs.first

    @property
    def rule(self) -> Rule:
        """How agents mix."""
        return self.algorithm.rule or self.aggregator

    @property
    def message_chain(self) -> list[MessageTransform]:
        """What happens to messages: they are lied about, compressed, lost, and carry keys for noise in common."""
        compressed = [self.compression] if self.compression else []
        noise = self.algorithm.noise
        keys = [Keys(common=noise == "joint")] if self.privacy and noise != "independent" else []
        return [*self.threats.lies, *compressed, *self.threats.losses, *keys]

    def check(self) -> None:
        """Refuse parts that do not fit each other.

        Raises
        ------
        ConfigError
            Naming the agent and the largest `byzantine` that every agent can face, if there is one.
        """
        if self.graphs.changes and self.algorithm.fixed_graph:
            raise ConfigError(
                f"{self.algorithm.name} takes a graph that stays the same, and {self.graphs.setting} changes it: use "
                "0 for both, or another algorithm"
            )
        self.threats.check(self.algorithm)
        self.algorithm.check(self.topology.mixing, self.schedule.total_passes)
        if isinstance(self.task, Dealt):
            _check_data(self.task, self.algorithm, self.rule)
        if self.privacy:
            self.privacy.check(self.algorithm, self.rule, self.task.model.module)
        if self.algorithm.invariant and self.rule != Mean():
            raise ConfigError(
                f"rule '{self.rule.name}' would break {self.algorithm.invariant}, on which algorithm = "
                f"'{self.algorithm.name}' rests: use aggregator = 'mean' with pre-aggregation = 'none'"
            )
        if self.algorithm.takes_rule:
            require_feasible(self.rule, [len(self.topology.neighbors(i)) + 1 for i in range(self.topology.num_agents)])

    def host(
        self,
        run: str,
        places: Mapping[int, Place] | None = None,
        engine: Engine | str = "auto",
        *,
        secret: bool = False,
        forking: bool = False,
    ) -> Host:
        """Return the host of the agents in these `places`, or of all, as at the start of the run.

        `engine` may be a value of the key, which forks processes if that is safe here (`forking`), unless they would
        run an app's code: what this remembers, or reads from an open file, differs by process. With `secret`,
        the noise of private agents does not follow from the seed.
        """
        places = self._places(places)
        agents = self.agents(places, secret=secret)
        if isinstance(engine, str):
            clipped = any(isfinite(agent.clip) for agent in agents)
            forking = forking and isinstance(self.task, Dealt)
            engine = choose(engine, self.task.model, len(agents), clipped=clipped, forking=forking)
        return Host(
            run,
            self.algorithm,
            agents,
            engine=engine,
            transforms=self.message_chain,
            places=self.graphs.places(places),
            absent=self.threats.absent,
            attackers=self.threats.attackers,
        )

    def agents(self, places: Mapping[int, Place] | None = None, *, secret: bool = False) -> list[Agent]:
        """Return the agents in these `places`, or all in the first topology's, their state as at the start."""
        agents = [self._agent(index, place, secret=secret) for index, place in self._places(places).items()]
        utility = getattr(self.algorithm, "utility", "")
        if agents and utility in ("accuracy", "own"):  # not every task has them
            agents[0].objective.utility(agents[0]["model"], utility, agents[0].objective.validation)
        return agents

    def describe(self) -> dict[str, Any]:
        """Return what the summary says of the parts."""
        return {**self.outline(), **self.task.describe()}

    def summary(self, history: History, host: Host) -> dict[str, Any]:
        """Return what ``summary.json`` holds of a run in this process."""
        return {**self.describe(), **history.summary(), **self.promise(history), **host.about}

    def promise(self, history: History, *, secret: bool = False) -> dict[str, Any]:
        """Return what the summary says of the privacy of a run with this history, if any; `secret` is as in `host`."""
        return {"privacy": promised(self, self.privacy, history, secret=secret)} if self.privacy else {}

    def outline(self) -> dict[str, Any]:
        """Return what the summary says of the method and the graph."""
        return {
            "algorithm": self.algorithm.name,
            "topology": self.graphs.name,
            "topology-every": self.graphs.every,
            "average-every": self.graphs.average_every,
            "edges": self.topology.graph.number_of_edges(),
            "spectral-gap": self.topology.spectral_gap,
        }

    def _places(self, places: Mapping[int, Place] | None) -> Mapping[int, Place]:
        everybody = range(self.graphs.num_agents)
        return {i: self.topology.place(i) for i in everybody} if places is None else places

    def _agent(self, index: int, place: Place, *, secret: bool) -> Agent:
        row, column = place
        objective, batch_size = self._objective(index), self.task.batch_size(index)
        agent = Agent(index, objective, row, self.seed, batch_size, self.rule, self.algorithm.validation_batch)
        agent.place(row, column)
        agent.total_passes = self.schedule.total_passes
        agent.num_agents = self.graphs.num_agents
        if index in self.threats.attackers:
            agent.undefended_from = self.threats.since
        agent.gradient_chain = self.threats.gradient_chain(index)
        if self.privacy:
            link = self.privacy.link(
                self.algorithm,
                agent,
                self.graphs.heard_by(index, len(agent.receivers), self.schedule.total_passes),
                lambda: self.topology.mixing,
                secret=secret,
                bounded=index not in self.threats.attackers,
            )
            link.begin(agent)
            agent.gradient_chain = [link, *agent.gradient_chain]
        agent["model"] = self.task.model.initial
        self.algorithm.start(agent)
        self.threats.check_agent(agent)
        return agent

    def _objective(self, index: int) -> Objective:
        """Return the loss of an agent on what the method trains on."""
        objective, data = self.task.objective(index), self._training_data
        if data in ("own", "pooled"):
            return objective
        if not isinstance(objective, ModuleObjective):
            raise ConfigError(
                f"agents cannot train on Q_i with the objective of this task, {type(objective).__name__}: use "
                "use-validation = false, and an algorithm such as dpsgd"
            )
        return trained_on(objective, own=data == "own and validation")

    @property
    def _training_data(self) -> TrainingData:
        algorithm = self.algorithm
        if algorithm.use_validation and algorithm.trains_on == "own" and not algorithm.needs_validation:
            return "own and validation"
        return algorithm.trains_on


def needs_validation(algorithm: Algorithm, rule: Rule) -> str:
    """Return what it is in a run that needs Q_i; nothing if agents can do without."""
    if algorithm.needs_validation or "validation" in algorithm.trains_on:
        return f"algorithm = '{algorithm.name}'"
    if rule.needs_validation:
        return f"rule '{rule.name}'"
    return "use-validation = true" if algorithm.use_validation else ""


def _check_data(task: Dealt, algorithm: Algorithm, rule: Rule) -> None:
    needy = needs_validation(algorithm, rule)
    if needy and task.options.validation_size == 0:
        raise ConfigError(
            f"validation-size = 0 leaves agents without the validation set Q_i that {needy} needs: use a larger "
            "validation-size, or a method that needs no Q_i, such as algorithm = 'cgsv' with use-validation = false"
        )
