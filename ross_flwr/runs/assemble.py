"""From a configuration to what it names: data, partition, validation sets, model, topology, attackers, agents."""

from collections.abc import Mapping
from functools import cached_property
from logging import INFO, getLogger
from typing import Any

import torch
from torch import Tensor

from ross_flwr import data
from ross_flwr.algorithms import ALGORITHMS, Algorithm
from ross_flwr.algorithms.messages import MessageTransform
from ross_flwr.config import Config, ConfigError, require
from ross_flwr.data import Examples, Source
from ross_flwr.engine.host import Host
from ross_flwr.engine.rounds import Schedule
from ross_flwr.graph import topology
from ross_flwr.graph.options import GraphOptions
from ross_flwr.graph.topology import Place, Places, Topology
from ross_flwr.learning.agent import Agent, GradientTransform, stream
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import Batch, ModuleObjective, Objective, Split
from ross_flwr.learning.options import RobustOptions
from ross_flwr.learning.rules import AGGREGATORS, Aggregation, feasible
from ross_flwr.runs.options import MachineOptions, RunOptions
from ross_flwr.tasks import models
from ross_flwr.tasks.options import DataOptions
from ross_flwr.threats.adversary import Adversary
from ross_flwr.threats.attacks import ATTACKS, GRADIENTS_ONLY
from ross_flwr.threats.corruptions import CORRUPTIONS, Corruption, choose
from ross_flwr.threats.faults import Faults, Loss
from ross_flwr.threats.options import AttackOptions, CorruptionOptions, FaultOptions
from ross_flwr.threats.poisons import POISONS, Poisoning

__all__ = ["Experiment", "Subset", "choose_device"]

VALIDATION_SHARE = 0.1
"""At most this part of the training data is held out for validation sets."""


_MIXES = {"balanced": "class-balanced", "own-mix": "mixed as its own data", "few-classes": "of some classes only"}

logger = getLogger("ross_flwr")


class Subset:
    """Some of a source's examples, normalised when a batch is taken; the images themselves are not copied."""

    def __init__(self, source: Source, examples: Examples, indices: Tensor) -> None:
        self.source = source
        self.examples = examples
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, int64 of shape [B], of this subset."""
        taken = self.examples.take(self.indices.index_select(0, indices))
        return Batch(data.normalize(taken.images, self.source), taken.labels)


def choose_device(wanted: str) -> torch.device:
    """Return the device that the key `device` asks for."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda' is not there: use device = 'cpu', or 'auto' for whichever there is")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


class Experiment:
    """Everything a configuration stands for; each part is made when first asked for, and again alike elsewhere.

    Parameters
    ----------
    config : Config
        The configuration.
    own : ModuleObjective, optional
        The model and data of the agent here, where they are not the configuration's.

    Raises
    ------
    ConfigError
        From any part, when the configuration asks for something impossible.
    """

    def __init__(self, config: Config, own: ModuleObjective | None = None) -> None:
        self.config = config
        self._run = config.part(RunOptions)
        self._graph = config.part(GraphOptions)
        self._data = config.part(DataOptions)
        self._bad = config.part(CorruptionOptions)
        self._attack = config.part(AttackOptions)
        self._fault = config.part(FaultOptions)
        self._robust = config.part(RobustOptions)
        self.own = own
        self._drawn: dict[int, Topology] = {}
        self._told: dict[int, Place] = {}
        require("attack", self._attack.attack, ("none", *POISONS, *ATTACKS))
        require("aggregator", self._robust.aggregator, AGGREGATORS)
        require("corruption", self._bad.corruption, CORRUPTIONS)
        if self._attack.attackers >= self._run.num_agents:
            raise ConfigError(
                f"attackers = {self._attack.attackers} leaves no honest agent among num-agents = {self._run.num_agents}"
            )
        if own:
            self._check_own()

    @cached_property
    def algorithm(self) -> Algorithm:
        """The method with its hyper-parameters."""
        require("algorithm", self._run.algorithm, ALGORITHMS)
        return self.config.part(ALGORITHMS[self._run.algorithm])

    @property
    def topology(self) -> Topology:
        """Graph and mixing matrix of the first round."""
        return self.topology_at(0)

    def topology_at(self, iteration: int) -> Topology:
        """Return graph and mixing matrix of a pass over the method's steps, counted from 0."""
        if self.averages(iteration // self._run.batches_per_round + 1):
            return self._everybody
        every = self._graph.topology_every * self._run.batches_per_round
        epoch = iteration // every if every else 0
        if epoch not in self._drawn:
            self._drawn = {
                epoch: topology.build(
                    self._graph.topology,
                    self._run.num_agents,
                    degree=self._graph.topology_degree,
                    probability=self._graph.topology_probability,
                    radius=self._graph.topology_radius,
                    seed=self._run.seed,
                    epoch=epoch,
                    clusters=self._graph.topology_clusters,
                    file=self._graph.topology_file,
                    mixing=self._graph.mixing,
                )
            }
        return self._drawn[epoch]

    @cached_property
    def _everybody(self) -> Topology:
        """The graph of the rounds that average over all agents; its W is 11ᵀ / N."""
        return topology.build("complete", self._run.num_agents)

    def averages(self, number: int) -> bool:
        """Whether round `number`, counted from 1, averages over all agents."""
        every = self._graph.average_every
        return every > 0 and number % every == 0

    @property
    def changes(self) -> bool:
        """Whether the graph is not the same in all rounds."""
        return self._graph.topology_every > 0 or self._graph.average_every > 0

    @property
    def places(self) -> Places | None:
        """From an agent and a pass to the agent's row and column of W, if the graph changes."""

        def place(agent: int, iteration: int) -> Place:
            if self._graph.topology_every or self.averages(iteration // self._run.batches_per_round + 1):
                return self.topology_at(iteration).place(agent)
            return self._told[agent]  # for a node may not have what its graph was made from

        return place if self.changes else None

    @cached_property
    def adversary(self) -> Adversary | None:
        """What rewrites the messages of attackers, if anything does."""
        if not self.attackers or self._attack.attack not in ATTACKS:
            return None
        return Adversary(
            attack=self._attack.attack,
            attackers=self.attackers,
            seed=self._run.seed,
            num_agents=self._run.num_agents,
            strength=self._attack.attack_strength,
            target=self._attack.attack_target,
            since=self._attack_begins,
            omniscient=self._attack.omniscient,
            aggregation=self.aggregation or Aggregation(),
            learning_rate=self.algorithm.learning_rate,
            validation=self.validation_batch,
        )

    @property
    def _crosses(self) -> bool:
        """Whether the method takes gradients at other agents' models."""
        return "cross_gradients" in self.algorithm.steps

    @property
    def _attack_begins(self) -> int:
        """The pass (counted from 0) in which attackers begin."""
        return (self._attack.attack_from - 1) * self._run.batches_per_round

    @cached_property
    def faults(self) -> Faults | None:
        """Who is away when, and which messages get lost, if any."""
        if not (self._fault.dropout or self._fault.stopped or self._fault.slow):
            return None
        return Faults(
            self._run.seed,
            self._run.num_agents,
            self._run.num_rounds,
            self._run.batches_per_round,
            self._fault.dropout,
            self._fault.outage_rounds,
            self._fault.stopped,
            self._fault.slow,
            self._fault.slow_rounds,
        )

    @property
    def transforms(self) -> list[MessageTransform]:
        """The message chain: made, lied about, lost."""
        chain: list[MessageTransform] = [self.adversary] if self.adversary else []
        if self._fault.message_loss:
            chain.append(Loss(self._run.seed, self._fault.message_loss))
        return chain

    def gradient_chain(self, agent: int) -> list[GradientTransform]:
        """Return the gradient chain of an agent: computed, poisoned."""
        attack = self._attack
        if agent not in self.attackers or attack.attack not in POISONS:
            return []
        return [
            Poisoning(
                poison=attack.attack,
                scale=attack.attack_scale,
                since=self._attack_begins,
                target=attack.attack_target,
            )
        ]

    def host(self, run: str, places: Mapping[int, Place] | None = None) -> Host:
        """Return the host of the agents in these `places`, or of all, as at the start of the run."""
        return Host(
            run,
            self.algorithm,
            self.agents(places),
            transforms=self.transforms,
            places=self.places,
            absent=self.faults.absent if self.faults else None,
        )

    @property
    def schedule(self) -> Schedule:
        """How passes make rounds, and which rounds are tested."""
        return Schedule(self._run.num_rounds, self._run.batches_per_round, self._run.evaluate_every)

    def check(self) -> None:
        """Refuse what the method, its aggregator or the faults and bad data asked for cannot be on this topology.

        Raises
        ------
        ConfigError
            Naming the agent and the largest `byzantine` that every agent can face, if there is one.
        """
        run, graph, attack, robust = self._run, self._graph, self._attack, self._robust
        drawn = self.topology
        setting = f"topology-every = {graph.topology_every}"
        if graph.topology_every and graph.topology not in topology.redrawn():
            raise ConfigError(f"{setting} changes nothing: topology = '{graph.topology}' is always the same")
        averaging = f"average-every = {graph.average_every}"
        if graph.average_every == 1:
            raise ConfigError(f"{averaging} leaves no round to the topology: use 2 or more, or topology = 'complete'")
        if not self.changes and graph.topology in topology.CHANGING:
            remedy = "topology-every = 1" if graph.topology in topology.redrawn() else "average-every = 10, for one"
            raise ConfigError(
                f"{setting} with {averaging} keeps the first graph, and topology = '{graph.topology}' alone does not "
                f"connect all agents: use {remedy}, or another topology"
            )
        if self.changes and self.algorithm.fixed_graph:
            raise ConfigError(
                f"{run.algorithm} takes a graph that stays the same, and {setting} with {averaging} changes it: use "
                "0 for both, or another algorithm"
            )
        for key, count in (("stopped", self._fault.stopped), ("slow", self._fault.slow)):
            if count >= run.num_agents:
                raise ConfigError(f"{key} = {count} leaves nobody as usual among num-agents = {run.num_agents}")
        gradients_only = attack.attack_target == "gradients" or attack.attack in GRADIENTS_ONLY
        if self.attackers and gradients_only and not self._crosses:
            raise ConfigError(
                f"attack = '{attack.attack}' with attack-target = '{attack.attack_target}' lies about cross-gradients, "
                f"and {run.algorithm} sends none: use another attack or attack-target, or a method such as ross "
                "with beside = ''"
            )
        self.algorithm.check(drawn.mixing, self.schedule.total_passes)
        if self.aggregation and self.algorithm.invariant:
            raise ConfigError(
                f"aggregator = '{robust.aggregator}' with pre-aggregation = '{robust.pre_aggregation}' would break "
                f"{self.algorithm.invariant}, on which algorithm = '{run.algorithm}' rests: use aggregator = 'mean' "
                "with pre-aggregation = 'none'"
            )
        if self._data.validation_size == 0 and self.algorithm.needs_validation:
            raise ConfigError(
                f"validation-size = 0 leaves agents without the validation set Q_i that algorithm = "
                f"'{run.algorithm}' needs: use algorithm = 'cgsv', for one, which needs none"
            )
        self._check_corruption()
        sizes = [len(drawn.neighbors(agent)) + 1 for agent in range(run.num_agents)]

        def obstacle(size: int, f: int) -> str:
            return feasible(robust.aggregator, size, f, robust.pre_aggregation)

        for agent, size in enumerate(sizes):
            problem = obstacle(size, robust.byzantine)
            if problem:
                possible = [f for f in range(robust.byzantine) if not any(obstacle(each, f) for each in set(sizes))]
                remedy = f"byzantine = {possible[-1]} at most, " if possible else ""
                raise ConfigError(
                    f"byzantine = {robust.byzantine} is too many for aggregator = '{robust.aggregator}' at agent "
                    f"{agent}, which has {size - 1} neighbours: {problem}; use {remedy}another aggregator or topology"
                )

    def _check_corruption(self) -> None:
        if self._bad.corruption == "backdoor" and self.corrupted:
            target, classes, size = self._bad.target_class, self.source.num_classes, self._bad.trigger_size
            if target >= classes:
                raise ConfigError(f"target-class = {target} is not there: the classes count from 0 to {classes - 1}")
            if size > (side := min(self.source.image_shape[1:])):
                raise ConfigError(f"trigger-size = {size} is too large for images of {side} pixels")

    def _check_own(self) -> None:
        for key, wanted in (("corruption", "none"), ("validation-noise", 0.0)):
            if self.config.values[key] != wanted:
                raise ConfigError(
                    f"{key} = {self.config.values[key]} spoils data that the configuration names, and this app has its "
                    f"own: use {key} = {wanted}, and spoil the data where the app loads it"
                )
        if self.algorithm.pools_data:
            raise ConfigError(
                f"algorithm = '{self._run.algorithm}' pools the data of all agents, and an app with its own data has "
                "only that of its node: use algorithm = 'dpsgd', or FedAvg"
            )

    def check_nodes(self, nodes: int) -> None:
        """Refuse attackers that would have to look into other nodes.

        Raises
        ------
        ConfigError
            When they are omniscient and agents are spread over several nodes.
        """
        if self.adversary and self._attack.omniscient and nodes > 1:
            raise ConfigError(
                f"omniscient = true takes all agents in one process, and they are on {nodes} nodes: use "
                "`ross-flwr run`, num-nodes = 1, or omniscient = false"
            )

    @cached_property
    def aggregation(self) -> Aggregation | None:
        """What agents do instead of mixing with W, if anything."""
        if self._robust.aggregator == "mean" and self._robust.pre_aggregation == "none":
            return None
        return Aggregation(
            self._robust.aggregator, self._robust.pre_aggregation, self._robust.byzantine, self._robust.clip_radius
        )

    @cached_property
    def device(self) -> torch.device:
        """Where gradients are computed and agents' vectors live."""
        return choose_device(self.config.part(MachineOptions).device)

    @cached_property
    def source(self) -> Source:
        """The data set, on the device."""
        source = data.load(
            self._data.dataset,
            self._data.data_path,
            self._data.download,
            num_classes=self._data.num_classes,
            image_size=self._data.image_size,
            label_column=self._data.label_column,
            owner_column=self._data.owner_column,
        )
        return source if self.device.type == "cpu" else source.to(self.device)

    @cached_property
    def model(self) -> FlatModel:
        """The module all agents of this process compute with, and the initial model."""
        if self.own:
            return self.own.model
        module = models.build(
            self._data.model,
            self.source.image_shape,
            self.source.num_classes,
            hidden=self._data.hidden,
            seed=self._run.seed,
        )
        return FlatModel(module.to(self.device))

    @cached_property
    def attackers(self) -> frozenset[int]:
        """Who attacks: `attackers` agents drawn by the seed."""
        if self._attack.attack == "none":
            return frozenset()
        drawn = stream(self._run.seed, "attackers").permutation(self._run.num_agents)[: self._attack.attackers]
        return frozenset(int(i) for i in drawn)

    @cached_property
    def corrupted(self) -> frozenset[int]:
        """Whose data is bad; they follow the protocol and count as honest."""
        if self._bad.corruption == "none":
            return frozenset()
        return choose(
            self._bad.corrupted_agents, self._bad.corrupted, self._run.num_agents, self.attackers, self._run.seed
        )

    def _corruption(self, kind: str, rate: float) -> Corruption:
        source = self.source
        white = torch.full((source.image_shape[0], 1, 1), source.scale)
        return Corruption(
            kind=kind,
            rate=rate,
            sigma=self._bad.noise_sigma,
            trigger_size=self._bad.trigger_size,
            target=self._bad.target_class,
            num_classes=source.num_classes,
            white=data.normalize(white, source),
            seed=self._run.seed,
        )

    @cached_property
    def _validation_and_training(self) -> tuple[Tensor, Tensor]:
        """Split the training data into the pool that validation sets are drawn from, and what agents train on."""
        labels = self.source.train.labels
        most = max(self._data.validation_size, int(len(labels) * VALIDATION_SHARE))
        pool = min(self._data.validation_size * self._run.num_agents, most)
        if pool and self._data.validation != "balanced":  # some of every class
            pool = max(pool, int(labels.bincount().count_nonzero()))
        return data.class_balanced(labels, pool, stream(self._run.seed, "validation pool"))

    @cached_property
    def _dealt(self) -> tuple[list[Tensor], dict[int, int]]:
        """Indices into the source's training data by agent, and how many of them some were given to have a batch."""
        _, training = self._validation_and_training
        topped_up = self._data.too_few == "top-up"
        owners = self.source.owners
        parts = data.partition(
            self._data.partition,
            self.source.train.labels[training],
            self._run.num_agents,
            alpha=self._data.partition_alpha,
            classes_per_agent=self._data.classes_per_agent,
            minimum=0 if topped_up else self._data.batch_size,
            seed=self._run.seed,
            imbalance=self._data.imbalance,
            examples_per_agent=self._data.examples_per_agent,
            owners=None if owners is None else owners[training],
        )
        added: dict[int, int] = {}
        if topped_up:
            parts, added = data.top_up(parts, self._data.batch_size, self._run.seed)
        if added:
            logger.log(INFO, "topped up to batch-size = %d: agents %s", self._data.batch_size, sorted(added))
        return [training[part] for part in parts], added

    @cached_property
    def partition(self) -> list[Tensor]:
        """Indices into the source's training data, by agent."""
        return self._dealt[0]

    def training(self, agent: int) -> Tensor:
        """Return indices of what `agent` trains on: its part, or all sound ones where the method pools the data."""
        if not self.algorithm.pools_data:
            return self.partition[agent]
        unsound = self.attackers | self.corrupted
        return torch.cat([part for i, part in enumerate(self.partition) if i not in unsound])

    def validation(self, agent: int) -> Tensor:
        """Return indices of agent's Q_i, from training data that no agent trains on."""
        pool = self._validation_and_training[0]
        labels, draw = self.source.train.labels[pool], stream(self._run.seed, "validation set", agent)
        if self._data.validation == "balanced" or not self._data.validation_size:
            chosen, _ = data.class_balanced(labels, self._data.validation_size, draw)
            return pool[chosen]
        classes = labels.bincount().nonzero().squeeze(1).cpu().numpy()
        if self._data.validation == "own-mix":
            own = self.source.train.labels[self.partition[agent]]
            shares = own.bincount(minlength=self.source.num_classes).cpu().numpy()[classes]
        else:
            shares = draw.permutation(len(classes)) < self._data.classes_per_agent
        return pool[data.draw_classes(labels.cpu().numpy(), shares, self._data.validation_size, draw)]

    def validation_batch(self, agent: int) -> Batch:
        """Return agent's Q_i."""
        if self.own:
            return self.own.validation
        chosen = self.validation(agent)
        return Subset(self.source, self.source.train, chosen).batch(torch.arange(len(chosen)))

    @cached_property
    def test(self) -> Tensor:
        """Return indices into the test data on which accuracy is reported."""
        everything = self.source.test.labels
        if not 0 < self._data.test_size < len(everything):
            return torch.arange(len(everything))
        chosen, _ = data.class_balanced(everything, self._data.test_size, stream(self._run.seed, "test"))
        return chosen

    def objective(self, agent: int) -> Objective:
        """Return the loss of `agent` on its own data."""
        if self.own:
            return self.own
        source = self.source
        own, held_out = self.training(agent), self.validation(agent)
        training: Split = Subset(source, source.train, own)
        validation: Split = Subset(source, source.train, held_out)
        if agent in self.corrupted:
            training = self._corruption(self._bad.corruption, self._bad.corruption_rate)(
                training, source.train.labels[own], agent
            )
        if self._data.validation_noise:
            validation = self._corruption("label-noise", self._data.validation_noise)(
                validation, source.train.labels[held_out], agent
            )
        test = Subset(source, source.test, self.test)
        return ModuleObjective(self.model, training, validation, test, triggered=self._triggered)

    @cached_property
    def _triggered(self) -> Split | None:
        """The test data on which a backdoor is tried, if there is one."""
        if self._bad.corruption != "backdoor" or not self.corrupted:
            return None
        others = self.test[self.source.test.labels[self.test] != self._bad.target_class]
        labels = self.source.test.labels[others]
        return self._corruption("backdoor", 1.0).triggered(Subset(self.source, self.source.test, others), labels)

    def agents(self, places: Mapping[int, Place] | None = None) -> list[Agent]:
        """Return the agents in these `places`, or all in the topology's, their state as at the start of the run."""
        if places is None:
            places = {i: self.topology.place(i) for i in range(self._run.num_agents)}
        self._told.update(places)
        made = []
        for index, (row, column) in places.items():
            parts = (
                index,
                self.objective(index),
                row,
                self._run.seed,
                self._data.batch_size,
                self.aggregation,
                self._robust.variance,
            )
            agent = Agent(*parts)
            agent.total_passes = self.schedule.total_passes
            agent.gradient_chain = self.gradient_chain(index)
            agent.place(row, column)
            agent.attackers = self.attackers
            agent["model"] = self.model.initial.clone()
            self.algorithm.start(agent)
            made.append(agent)
        return made

    def describe(self) -> dict[str, Any]:
        """Return what the summary says of the set-up."""
        pool, training = self._validation_and_training
        share = self._data.validation_noise
        noise = f" ({share:.0%} of their labels wrong)" if share else ""
        return {
            "algorithm": self._run.algorithm,
            "topology": self._graph.topology,
            "topology-every": self._graph.topology_every,
            "average-every": self._graph.average_every,
            "edges": self.topology.graph.number_of_edges(),
            "spectral-gap": self.topology.spectral_gap,
            "parameters": self.model.size,
            "training-examples": len(training),
            "topped-up": self._dealt[1],
            "validation": f"{self._data.validation_size} examples an agent, {_MIXES[self._data.validation]}{noise}, "
            f"drawn from {len(pool)} training examples of {self._data.dataset} that no agent trains on",
            "test-examples": len(self.test),
        }
