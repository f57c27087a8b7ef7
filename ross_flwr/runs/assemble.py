"""From a configuration to what it names: data, partition, validation sets, model, topology, attackers, agents."""

from collections.abc import Mapping
from functools import cached_property
from logging import INFO, getLogger
from typing import Any

import torch
from torch import Tensor

from ross_flwr import data
from ross_flwr.algorithms import Algorithm, create
from ross_flwr.config import Config, ConfigError, require
from ross_flwr.data import Examples, Source
from ross_flwr.graph import topology
from ross_flwr.graph.topology import Place, Places, Topology
from ross_flwr.learning.agent import Agent, stream
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import Batch, ModuleObjective, Objective, Split
from ross_flwr.learning.rules import AGGREGATORS, Aggregation, feasible
from ross_flwr.tasks import models
from ross_flwr.threats.adversary import Adversary
from ross_flwr.threats.attacks import ATTACKS, GRADIENTS_ONLY
from ross_flwr.threats.corruptions import CORRUPTIONS, Corruption, choose
from ross_flwr.threats.faults import Faults
from ross_flwr.threats.poisons import POISONS, PoisonedAgent

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
        self.own = own
        self._drawn: dict[int, Topology] = {}
        self._told: dict[int, Place] = {}
        require("attack", config.attack, ("none", *POISONS, *ATTACKS))
        require("aggregator", config.aggregator, AGGREGATORS)
        require("corruption", config.corruption, CORRUPTIONS)
        if config.attackers >= config.num_agents:
            raise ConfigError(
                f"attackers = {config.attackers} leaves no honest agent among num-agents = {config.num_agents}"
            )
        if own:
            self._check_own()

    @cached_property
    def algorithm(self) -> Algorithm:
        """The method with its hyper-parameters."""
        return create(self.config.algorithm, self.config.options)

    @property
    def topology(self) -> Topology:
        """Graph and mixing matrix of the first round."""
        return self.topology_at(0)

    def topology_at(self, iteration: int) -> Topology:
        """Return graph and mixing matrix of a pass over the method's steps, counted from 0."""
        config = self.config
        if self.averages(iteration // config.batches_per_round + 1):
            return self._everybody
        every = config.topology_every * config.batches_per_round
        epoch = iteration // every if every else 0
        if epoch not in self._drawn:
            self._drawn = {
                epoch: topology.build(
                    config.topology,
                    config.num_agents,
                    degree=config.topology_degree,
                    probability=config.topology_probability,
                    radius=config.topology_radius,
                    seed=config.seed,
                    epoch=epoch,
                    clusters=config.topology_clusters,
                    file=config.topology_file,
                    mixing=config.mixing,
                )
            }
        return self._drawn[epoch]

    @cached_property
    def _everybody(self) -> Topology:
        """The graph of the rounds that average over all agents; its W is 11ᵀ / N."""
        return topology.build("complete", self.config.num_agents)

    def averages(self, number: int) -> bool:
        """Whether round `number`, counted from 1, averages over all agents."""
        every = self.config.average_every
        return every > 0 and number % every == 0

    @property
    def changes(self) -> bool:
        """Whether the graph is not the same in all rounds."""
        return self.config.topology_every > 0 or self.config.average_every > 0

    @property
    def places(self) -> Places | None:
        """From an agent and a pass to the agent's row and column of W, if the graph changes."""

        def place(agent: int, iteration: int) -> Place:
            if self.config.topology_every or self.averages(iteration // self.config.batches_per_round + 1):
                return self.topology_at(iteration).place(agent)
            return self._told[agent]  # for a node may not have what its graph was made from

        return place if self.changes else None

    @cached_property
    def adversary(self) -> Adversary | None:
        """What rewrites the messages of attackers, if anything does."""
        config = self.config
        if not self.attackers or config.attack not in ATTACKS:
            return None
        return Adversary(
            attack=config.attack,
            attackers=self.attackers,
            seed=config.seed,
            num_agents=config.num_agents,
            strength=config.attack_strength,
            target=config.attack_target,
            since=self._attack_begins,
            omniscient=config.omniscient,
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
        return (self.config.attack_from - 1) * self.config.batches_per_round

    @cached_property
    def faults(self) -> Faults | None:
        """Who is away when, and which messages get lost, if any."""
        config = self.config
        if not (config.dropout or config.stopped or config.slow or config.message_loss):
            return None
        return Faults(
            config.seed,
            config.num_agents,
            config.num_rounds,
            config.batches_per_round,
            config.dropout,
            config.outage_rounds,
            config.stopped,
            config.slow,
            config.slow_rounds,
            config.message_loss,
        )

    def check(self) -> None:
        """Refuse what the method, its aggregator or the faults and bad data asked for cannot be on this topology.

        Raises
        ------
        ConfigError
            Naming the agent and the largest `byzantine` that every agent can face, if there is one.
        """
        config, graph = self.config, self.topology
        setting = f"topology-every = {config.topology_every}"
        if config.topology_every and config.topology not in topology.redrawn():
            raise ConfigError(f"{setting} changes nothing: topology = '{config.topology}' is always the same")
        averaging = f"average-every = {config.average_every}"
        if config.average_every == 1:
            raise ConfigError(f"{averaging} leaves no round to the topology: use 2 or more, or topology = 'complete'")
        if not self.changes and config.topology in topology.CHANGING:
            remedy = "topology-every = 1" if config.topology in topology.redrawn() else "average-every = 10, for one"
            raise ConfigError(
                f"{setting} with {averaging} keeps the first graph, and topology = '{config.topology}' alone does not "
                f"connect all agents: use {remedy}, or another topology"
            )
        if self.changes and self.algorithm.fixed_graph:
            raise ConfigError(
                f"{config.algorithm} takes a graph that stays the same, and {setting} with {averaging} changes it: use "
                "0 for both, or another algorithm"
            )
        if config.transport == "hybrid" and not config.average_every:
            raise ConfigError(
                f"transport = 'hybrid' carries the rounds of average-every through Flower, and {averaging} has none: "
                "use average-every = 10, for one, or transport = 'direct'"
            )
        for key, count in (("stopped", config.stopped), ("slow", config.slow)):
            if count >= config.num_agents:
                raise ConfigError(f"{key} = {count} leaves nobody as usual among num-agents = {config.num_agents}")
        gradients_only = config.attack_target == "gradients" or config.attack in GRADIENTS_ONLY
        if self.attackers and gradients_only and not self._crosses:
            raise ConfigError(
                f"attack = '{config.attack}' with attack-target = '{config.attack_target}' lies about cross-gradients, "
                f"and {config.algorithm} sends none: use another attack or attack-target, or a method such as ross "
                "with beside = ''"
            )
        self.algorithm.check(graph.mixing)
        if self.aggregation and self.algorithm.invariant:
            raise ConfigError(
                f"aggregator = '{config.aggregator}' with pre-aggregation = '{config.pre_aggregation}' would break "
                f"{self.algorithm.invariant}, on which algorithm = '{config.algorithm}' rests: use aggregator = 'mean' "
                "with pre-aggregation = 'none'"
            )
        if config.validation_size == 0 and self.algorithm.needs_validation:
            raise ConfigError(
                f"validation-size = 0 leaves agents without the validation set Q_i that algorithm = "
                f"'{config.algorithm}' needs: use algorithm = 'cgsv', for one, which needs none"
            )
        self._check_corruption()
        sizes = [len(graph.neighbors(agent)) + 1 for agent in range(config.num_agents)]

        def obstacle(size: int, f: int) -> str:
            return feasible(config.aggregator, size, f, config.pre_aggregation)

        for agent, size in enumerate(sizes):
            problem = obstacle(size, config.byzantine)
            if problem:
                possible = [f for f in range(config.byzantine) if not any(obstacle(each, f) for each in set(sizes))]
                remedy = f"byzantine = {possible[-1]} at most, " if possible else ""
                raise ConfigError(
                    f"byzantine = {config.byzantine} is too many for aggregator = '{config.aggregator}' at agent "
                    f"{agent}, which has {size - 1} neighbours: {problem}; use {remedy}another aggregator or topology"
                )

    def _check_corruption(self) -> None:
        if self.config.corruption == "backdoor" and self.corrupted:
            target, classes, size = self.config.target_class, self.source.num_classes, self.config.trigger_size
            if target >= classes:
                raise ConfigError(f"target-class = {target} is not there: the classes count from 0 to {classes - 1}")
            if size > (side := min(self.source.image_shape[1:])):
                raise ConfigError(f"trigger-size = {size} is too large for images of {side} pixels")

    def _check_own(self) -> None:
        config = self.config
        for key, wanted in (("corruption", "none"), ("validation-noise", 0.0)):
            if config.options[key] != wanted:
                raise ConfigError(
                    f"{key} = {config.options[key]} spoils data that the configuration names, and this app has its "
                    f"own: use {key} = {wanted}, and spoil the data where the app loads it"
                )
        if self.algorithm.pools_data:
            raise ConfigError(
                f"algorithm = '{config.algorithm}' pools the data of all agents, and an app with its own data has only "
                "that of its node: use algorithm = 'dpsgd', or FedAvg"
            )

    def check_nodes(self, nodes: int) -> None:
        """Refuse attackers that would have to look into other nodes.

        Raises
        ------
        ConfigError
            When they are omniscient and agents are spread over several nodes.
        """
        if self.adversary and self.config.omniscient and nodes > 1:
            raise ConfigError(
                f"omniscient = true takes all agents in one process, and they are on {nodes} nodes: use "
                "`ross-flwr run`, num-nodes = 1, or omniscient = false"
            )

    @cached_property
    def aggregation(self) -> Aggregation | None:
        """What agents do instead of mixing with W, if anything."""
        config = self.config
        if config.aggregator == "mean" and config.pre_aggregation == "none":
            return None
        return Aggregation(config.aggregator, config.pre_aggregation, config.byzantine, config.clip_radius)

    @cached_property
    def device(self) -> torch.device:
        """Where gradients are computed and agents' vectors live."""
        return choose_device(self.config.device)

    @cached_property
    def source(self) -> Source:
        """The data set, on the device."""
        config = self.config
        source = data.load(
            config.dataset,
            config.data_path,
            config.download,
            num_classes=config.num_classes,
            image_size=config.image_size,
            label_column=config.label_column,
            owner_column=config.owner_column,
        )
        return source if self.device.type == "cpu" else source.to(self.device)

    @cached_property
    def model(self) -> FlatModel:
        """The module all agents of this process compute with, and the initial model."""
        if self.own:
            return self.own.model
        config = self.config
        module = models.build(
            config.model,
            self.source.image_shape,
            self.source.num_classes,
            hidden=config.hidden,
            seed=config.seed,
        )
        return FlatModel(module.to(self.device))

    @cached_property
    def attackers(self) -> frozenset[int]:
        """Who attacks: `attackers` agents drawn by the seed."""
        config = self.config
        if config.attack == "none":
            return frozenset()
        drawn = stream(config.seed, "attackers").permutation(config.num_agents)[: config.attackers]
        return frozenset(int(i) for i in drawn)

    @cached_property
    def corrupted(self) -> frozenset[int]:
        """Whose data is bad; they follow the protocol and count as honest."""
        config = self.config
        if config.corruption == "none":
            return frozenset()
        return choose(config.corrupted_agents, config.corrupted, config.num_agents, self.attackers, config.seed)

    def _corruption(self, kind: str, rate: float) -> Corruption:
        config, source = self.config, self.source
        white = torch.full((source.image_shape[0], 1, 1), source.scale)
        return Corruption(
            kind=kind,
            rate=rate,
            sigma=config.noise_sigma,
            trigger_size=config.trigger_size,
            target=config.target_class,
            num_classes=source.num_classes,
            white=data.normalize(white, source),
            seed=config.seed,
        )

    @cached_property
    def _validation_and_training(self) -> tuple[Tensor, Tensor]:
        """Split the training data into the pool that validation sets are drawn from, and what agents train on."""
        config, labels = self.config, self.source.train.labels
        most = max(config.validation_size, int(len(labels) * VALIDATION_SHARE))
        pool = min(config.validation_size * config.num_agents, most)
        if pool and config.validation != "balanced":  # some of every class
            pool = max(pool, int(labels.bincount().count_nonzero()))
        return data.class_balanced(labels, pool, stream(config.seed, "validation pool"))

    @cached_property
    def _dealt(self) -> tuple[list[Tensor], dict[int, int]]:
        """Indices into the source's training data by agent, and how many of them some were given to have a batch."""
        config = self.config
        _, training = self._validation_and_training
        topped_up = config.too_few == "top-up"
        owners = self.source.owners
        parts = data.partition(
            config.partition,
            self.source.train.labels[training],
            config.num_agents,
            alpha=config.partition_alpha,
            classes_per_agent=config.classes_per_agent,
            minimum=0 if topped_up else config.batch_size,
            seed=config.seed,
            imbalance=config.imbalance,
            examples_per_agent=config.examples_per_agent,
            owners=None if owners is None else owners[training],
        )
        added: dict[int, int] = {}
        if topped_up:
            parts, added = data.top_up(parts, config.batch_size, config.seed)
        if added:
            logger.log(INFO, "topped up to batch-size = %d: agents %s", config.batch_size, sorted(added))
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
        config, pool = self.config, self._validation_and_training[0]
        labels, draw = self.source.train.labels[pool], stream(config.seed, "validation set", agent)
        if config.validation == "balanced" or not config.validation_size:
            chosen, _ = data.class_balanced(labels, config.validation_size, draw)
            return pool[chosen]
        classes = labels.bincount().nonzero().squeeze(1).cpu().numpy()
        if config.validation == "own-mix":
            own = self.source.train.labels[self.partition[agent]]
            shares = own.bincount(minlength=self.source.num_classes).cpu().numpy()[classes]
        else:
            shares = draw.permutation(len(classes)) < config.classes_per_agent
        return pool[data.draw_classes(labels.cpu().numpy(), shares, config.validation_size, draw)]

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
        if not 0 < self.config.test_size < len(everything):
            return torch.arange(len(everything))
        chosen, _ = data.class_balanced(everything, self.config.test_size, stream(self.config.seed, "test"))
        return chosen

    def objective(self, agent: int) -> Objective:
        """Return the loss of `agent` on its own data."""
        if self.own:
            return self.own
        config, source = self.config, self.source
        own, held_out = self.training(agent), self.validation(agent)
        training: Split = Subset(source, source.train, own)
        validation: Split = Subset(source, source.train, held_out)
        if agent in self.corrupted:
            training = self._corruption(config.corruption, config.corruption_rate)(
                training, source.train.labels[own], agent
            )
        if config.validation_noise:
            validation = self._corruption("label-noise", config.validation_noise)(
                validation, source.train.labels[held_out], agent
            )
        test = Subset(source, source.test, self.test)
        return ModuleObjective(self.model, training, validation, test, triggered=self._triggered)

    @cached_property
    def _triggered(self) -> Split | None:
        """The test data on which a backdoor is tried, if there is one."""
        if self.config.corruption != "backdoor" or not self.corrupted:
            return None
        others = self.test[self.source.test.labels[self.test] != self.config.target_class]
        labels = self.source.test.labels[others]
        return self._corruption("backdoor", 1.0).triggered(Subset(self.source, self.source.test, others), labels)

    def agents(self, places: Mapping[int, Place] | None = None) -> list[Agent]:
        """Return the agents in these `places`, or all in the topology's, their state as at the start of the run."""
        config = self.config
        if places is None:
            places = {i: self.topology.place(i) for i in range(config.num_agents)}
        self._told.update(places)
        made = []
        for index, (row, column) in places.items():
            parts = (
                index,
                self.objective(index),
                row,
                config.seed,
                config.batch_size,
                self.aggregation,
                config.variance,
            )
            agent = Agent(*parts)
            if index in self.attackers and config.attack in POISONS:
                agent = PoisonedAgent(
                    *parts,
                    poison=config.attack,
                    scale=config.attack_scale,
                    since=self._attack_begins,
                    target=config.attack_target if self._crosses else "all",
                )
            agent.place(row, column)
            agent.attackers = self.attackers
            agent["model"] = self.model.initial.clone()
            self.algorithm.start(agent)
            made.append(agent)
        return made

    def describe(self) -> dict[str, Any]:
        """Return what the summary says of the set-up."""
        pool, training = self._validation_and_training
        share = self.config.validation_noise
        noise = f" ({share:.0%} of their labels wrong)" if share else ""
        return {
            "algorithm": self.config.algorithm,
            "topology": self.config.topology,
            "topology-every": self.config.topology_every,
            "average-every": self.config.average_every,
            "edges": self.topology.graph.number_of_edges(),
            "spectral-gap": self.topology.spectral_gap,
            "parameters": self.model.size,
            "training-examples": len(training),
            "topped-up": self._dealt[1],
            "validation": f"{self.config.validation_size} examples an agent, {_MIXES[self.config.validation]}{noise}, "
            f"drawn from {len(pool)} training examples of {self.config.dataset} that no agent trains on",
            "test-examples": len(self.test),
        }
