"""What tasks have in common whose training data is one source, dealt to the agents."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from copy import copy
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from ross_flwr.config import ConfigError, options_of, shown
from ross_flwr.data import Records
from ross_flwr.learning.examples import Batch, Split
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.outputs import Loss, Metric, Test
from ross_flwr.tasks.corruptions import CORRUPTIONS, Corruption
from ross_flwr.tasks.options import CorruptionOptions, DataOptions
from ross_flwr.tasks.shares import Dealable, Shares

__all__ = ["Dealt", "Part", "Targeted"]

_MIXES = {"balanced": "class-balanced", "own-mix": "mixed as its own data", "few-classes": "of some classes only"}


class Targeted(Split, Protocol):
    """Some of a source's examples, whose targets are known."""

    @property
    def targets(self) -> Tensor:
        """The targets of all examples: int64 classes of shape [n], or whatever else the task predicts."""


class Part:
    """Some of the training or test examples of records."""

    def __init__(self, found: Records, indices: Tensor, *, test: bool = False) -> None:
        self.rows = found.test if test else found.train
        self.indices = indices
        self._grouped = found.grouped

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def targets(self) -> Tensor:
        """The targets of all examples, shape [n, ...]."""
        return self.rows.targets[self.indices]

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, int64 of shape [B]."""
        taken = self.rows.take(self.indices.index_select(0, indices))
        return Batch(taken.inputs, taken.targets, taken.labels if self._grouped else None)


class Dealt(ABC):
    """A task whose training data is one source, dealt to the agents.

    Data and model are read, dealt and built when first asked for, and are the same on every node.

    Parameters
    ----------
    options : DataOptions
        Source, partition, validation sets and model.
    num_agents, seed : int
        N, and the run's seed.
    device : torch.device, optional
        Where data and model live; the CPU without.
    corruption, corrupted : CorruptionOptions, optional, and collection of int
        What is wrong with the data of corrupted agents, and who they are. They follow the protocol.

    Examples
    --------
    >>> from ross_flwr import tasks
    >>> isinstance(tasks.images("digits")(2, 0), Dealt)
    True
    """

    name: ClassVar[str]
    """The value of the key `task`."""

    defaults: ClassVar[tuple[str, str]]
    """What the empty text stands for in the key `dataset`: without a data-path, and with one."""

    first_run: ClassVar[Mapping[str, str | float]] = MappingProxyType({})
    """The keys that ``ross-flwr run`` sets with this task, unless ``-c`` does."""

    unused: ClassVar[frozenset[str]] = frozenset()
    """The keys of the data that mean nothing here."""

    def __init__(
        self,
        options: DataOptions,
        *,
        num_agents: int,
        seed: int = 0,
        device: torch.device | None = None,
        corruption: CorruptionOptions | None = None,
        corrupted: Collection[int] = (),
    ) -> None:
        for key in options_of(DataOptions):
            value = getattr(options, key.name.replace("-", "_"))
            if key.name in self.unused and value != key.default:
                raise ConfigError(
                    f"{key.name} = {shown(value)} means nothing with task = '{self.name}': leave the key out"
                )
        self.options = options
        self.num_agents = num_agents
        self.seed = seed
        self.device = device or torch.device("cpu")
        self.corrupted = frozenset(corrupted)
        self._bad = corruption or CorruptionOptions()
        self._pooled: Collection[int] = ()

    @classmethod
    def deal(
        cls,
        dataset: str = "",
        *,
        corruption: CorruptionOptions | None = None,
        corrupted: Collection[int] = (),
        device: torch.device | None = None,
        **options: Any,
    ) -> Callable[[int, int], Self]:
        """Return a function that makes the task from N and a seed, for `simulate`.

        `dataset` is a name in ``ross-flwr list datasets``, by default the task's own. `options` are other fields of
        `DataOptions`, such as ``partition_alpha=0.1`` or ``model="cnn"``. The rest is as for the class.
        """
        chosen = DataOptions(task=cls.name, dataset=dataset, **options)
        return lambda num_agents, seed: cls(
            chosen, num_agents=num_agents, seed=seed, device=device, corruption=corruption, corrupted=corrupted
        )

    @property
    def dataset(self) -> str:
        """The name of the data."""
        return self.options.dataset or self.defaults[bool(self.options.data_path)]

    @property
    @abstractmethod
    def takes(self) -> str:
        """What the model takes, in words."""

    @property
    @abstractmethod
    def source(self) -> Dealable:
        """The data set, on the device."""

    @property
    @abstractmethod
    def model(self) -> FlatModel:
        """The module that all agents of this process compute with, and the model that each starts from."""

    @property
    @abstractmethod
    def corruptions(self) -> Collection[str]:
        """What can be wrong with this data, of `CORRUPTIONS`."""

    @abstractmethod
    def part(self, indices: Tensor, *, test: bool = False) -> Targeted:
        """Return the training or test examples at `indices`, int64 of shape [n]."""

    @property
    def loss(self) -> Loss:
        """The mean loss of outputs and targets of a batch: the cross-entropy of classes, in nats."""
        return nn.functional.cross_entropy

    def corruption(self, kind: str, rate: float) -> Corruption:
        """Return what does `kind` to a share `rate` of an agent's examples."""
        sigma, classes = self._bad.noise_sigma, self.num_outputs
        return Corruption(kind=kind, rate=rate, sigma=sigma, num_classes=classes, seed=self.seed)

    @property
    def num_outputs(self) -> int:
        """The number of scores for each prediction."""
        return self.source.num_classes

    def batch_size(self, agent: int) -> int:
        """Return how many examples a mini-batch of `agent` has."""
        return self.options.batch_size

    def pooled(self, agents: Collection[int]) -> "Dealt":
        """Return the task in which every agent trains on the data of all these `agents`."""
        other = copy(self)
        other._pooled = agents
        return other

    def objective(self, agent: int) -> ModuleObjective:
        """Return the loss of `agent` on its own data."""
        own, held_out = self.part(self.training(agent)), self.part(self.shares.validation(agent))
        training: Split = own
        validation: Split = held_out
        if agent in self.corrupted:
            training = _corrupt(self, "corruption", own, self._bad.corruption, self._bad.corruption_rate, agent)
        if self.options.validation_noise:
            validation = _corrupt(
                self, "validation-noise", held_out, "label-noise", self.options.validation_noise, agent
            )
        return ModuleObjective(
            self.model,
            training,
            validation,
            self.part(self.shares.test, test=True),
            self.loss,
            self.chunk,
            triggered=self.triggered,
            metrics=self.metrics,
            own_test=self.own_test(),
        )

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What a test measures beside loss and accuracy."""
        return {}

    @property
    def chunk(self) -> int:
        """Examples of test and validation data that are computed on at once."""
        return 1000

    def own_test(self) -> Test | None:
        """Return how the task itself tests a module; None for loss, accuracy and `metrics`."""
        return None

    @property
    def triggered(self) -> Split | None:
        """The test data on which a backdoor is tried, if there is one."""
        return None

    @cached_property
    def shares(self) -> Shares:
        """Which examples are whose."""
        return Shares(self.source, self.options, self.num_agents, self.seed)

    def training(self, agent: int) -> Tensor:
        """Return indices of what `agent` trains on: its part, or those of all agents whose data is pooled."""
        if not self._pooled:
            return self.shares.parts[agent]
        return torch.cat([part for i, part in enumerate(self.shares.parts) if i in self._pooled])

    def describe(self) -> dict[str, Any]:
        """Return what the summary of a run says of the data and the model."""
        options, shares = self.options, self.shares
        noise = f" ({options.validation_noise:.0%} of their labels wrong)" if options.validation_noise else ""
        return {
            "parameters": self.model.size,
            "classes": self.num_outputs,
            "training-examples": len(shares.training_pool),
            "topped-up": shares.topped_up,
            "validation": f"{options.validation_size} examples an agent, {_MIXES[options.validation]}{noise}, drawn "
            f"from {len(shares.validation_pool)} training examples of {self.dataset} that no agent trains on",
            "test-examples": len(shares.test),
        }


def _corrupt(task: Dealt, key: str, examples: Targeted, kind: str, rate: float, agent: int) -> Split:
    """Return the examples as `kind` leaves them, or refuse it by the name of its key."""
    if kind not in task.corruptions:
        others = ", ".join(each for each in CORRUPTIONS if each == "none" or each in task.corruptions)
        raise ConfigError(f"{key} cannot do '{kind}' to the data of this task: it can do {others}")
    return task.corruption(kind, rate)(examples, examples.targets, agent)
