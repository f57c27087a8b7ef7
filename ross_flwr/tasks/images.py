"""Image classification: one data set, dealt to the agents."""

from collections.abc import Callable, Collection
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ross_flwr import data
from ross_flwr.data import Examples, Source
from ross_flwr.data.classes import renumbered
from ross_flwr.data.pixels import common_scale
from ross_flwr.learning.buffers import still_buffers
from ross_flwr.learning.examples import Batch, Split
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.tasks import models
from ross_flwr.tasks.corruptions import TARGET, Corruption
from ross_flwr.tasks.options import CorruptionOptions, DataOptions
from ross_flwr.tasks.shares import Shares

__all__ = ["Images", "Subset", "images"]

_MIXES = {"balanced": "class-balanced", "own-mix": "mixed as its own data", "few-classes": "of some classes only"}


class Subset:
    """Some of a source's examples. Images are not copied; they are normalised when a batch is taken."""

    def __init__(self, source: Source, examples: Examples, indices: Tensor) -> None:
        self.source = source
        self.examples = examples
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        """The labels of all examples, int64 of shape [n]."""
        return self.examples.labels[self.indices]

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, int64 of shape [B], of this subset."""
        taken = self.examples.take(self.indices.index_select(0, indices))
        return Batch(data.normalize(taken.images, self.source), taken.labels)


def images(
    dataset: str = "digits",
    *,
    corruption: CorruptionOptions | None = None,
    corrupted: Collection[int] = (),
    device: torch.device | None = None,
    **options: Any,
) -> Callable[[int, int], "Images"]:
    """Return a function that makes an image classification task from N and a seed, for `simulate`.

    Parameters
    ----------
    dataset : str (default: "digits")
        The data, by its name in ``ross-flwr list datasets``.
    corruption : CorruptionOptions, optional
        What is wrong with the data of corrupted agents.
    corrupted : collection of int
        Whose data is bad.
    device : torch.device, optional
        Where data and model live; the CPU without.
    **options
        Other fields of `DataOptions`, such as ``partition_alpha=0.1`` or ``model="cnn"``.

    Examples
    --------
    >>> images("digits", hidden=8)(4, 0).model.size
    610
    """
    chosen = DataOptions(dataset=dataset, **options)

    def make(num_agents: int, seed: int) -> Images:
        return Images(
            chosen, num_agents=num_agents, seed=seed, device=device, corruption=corruption, corrupted=corrupted
        )

    return make


class Images:
    """Classification of the images of one source, whose training data is dealt to the agents.

    Data and model are read, dealt and built when first asked for, and are the same on every node.

    Parameters
    ----------
    options : DataOptions
        Source, partition, validation sets and model.
    num_agents : int
        N.
    seed : int
        Of the run.
    device : torch.device, optional
        Where data and model live; the CPU without.
    corruption : CorruptionOptions, optional
        What is wrong with the data of corrupted agents.
    corrupted : collection of int
        Whose data is bad. They follow the protocol.

    Raises
    ------
    ConfigError
        From any part, when the options ask for something impossible.

    Examples
    --------
    >>> task = Images(DataOptions(dataset="digits", hidden=8), num_agents=4)
    >>> task.model.size, len(task.training(0)) > 0
    (610, True)
    """

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
        self.options = options
        self.num_agents = num_agents
        self.seed = seed
        self.device = device or torch.device("cpu")
        self.corrupted = frozenset(corrupted)
        self._bad = corruption or CorruptionOptions()
        self._pooled: Collection[int] = ()

    def batch_size(self, agent: int) -> int:
        """Return how many examples a mini-batch of `agent` has."""
        return self.options.batch_size

    def pooled(self, agents: Collection[int]) -> "Images":
        """Return the task in which every agent trains on the data of all these `agents`."""
        other = copy(self)
        other._pooled = agents
        return other

    @cached_property
    def source(self) -> Source:
        """The data set, on the device."""
        source = data.load(
            self.options.dataset,
            self.options.data_path,
            self.options.download,
            num_classes=self.options.num_classes,
            image_size=self.options.image_size,
            label_column=self.options.label_column,
            owner_column=self.options.owner_column,
        )
        if self.options.test_split == "tuning":
            source = data.tuning_split(source)
        return source if self.device.type == "cpu" else source.to(self.device)

    @cached_property
    def model(self) -> FlatModel:
        """The module that all agents of this process compute with, and the model that each starts from."""
        module = models.build(
            self.options.model,
            self.source.image_shape,
            self.source.num_classes,
            hidden=self.options.hidden,
            seed=self.seed,
            batch_size=self.options.batch_size,
        )
        module = module.to(self.device)
        still = still_buffers(module, lambda: torch.zeros(2, *self.source.image_shape, device=self.device))
        classes = self.source.classes
        return FlatModel(module, still, () if classes == tuple(map(str, range(len(classes)))) else classes)

    def objective(self, agent: int) -> ModuleObjective:
        """Return the loss of `agent` on its own data."""
        source = self.source
        own = Subset(source, source.train, self.training(agent))
        held_out = Subset(source, source.train, self.shares.validation(agent))
        training: Split = own
        validation: Split = held_out
        if agent in self.corrupted:
            training = self._corruption(self._bad.corruption, self._bad.corruption_rate)(own, own.labels, agent)
        if self.options.validation_noise:
            noise = self._corruption("label-noise", self.options.validation_noise)
            validation = noise(held_out, held_out.labels, agent)
        test = Subset(source, source.test, self.shares.test)
        return ModuleObjective(self.model, training, validation, test, triggered=self._triggered)

    def test_split(self, known: Source) -> Subset:
        """Return the test data with pixels normalised and classes numbered as in `known`, from which models learned.

        Raises
        ------
        ConfigError
            When the pixels cannot be compared, or there is a class that `known` has not.
        """
        found = self.source
        scale = common_scale((found.scale, found.signed), (known.scale, known.signed))
        labels = renumbered(found.test.labels, found.classes, known.classes, known.num_classes)
        alike = replace(found, mean=known.mean, std=known.std, scale=scale)
        return Subset(alike, Examples(found.test.images, labels), self.shares.test)

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
        options, shares, source = self.options, self.shares, self.source
        share = options.validation_noise
        noise = f" ({share:.0%} of their labels wrong)" if share else ""
        return {
            "parameters": self.model.size,
            "classes": source.num_classes,
            "pixels": {
                "scale": source.scale,
                "signed": source.signed,
                "mean": list(source.mean),
                "deviation": list(source.std),
            },
            "training-examples": len(shares.training_pool),
            "topped-up": shares.topped_up,
            "validation": f"{options.validation_size} examples an agent, {_MIXES[options.validation]}{noise}, drawn "
            f"from {len(shares.validation_pool)} training examples of {options.dataset} that no agent trains on",
            "test-examples": len(shares.test),
        }

    @cached_property
    def _triggered(self) -> Split | None:
        """The test data on which a backdoor is tried, if there is one."""
        if self._bad.corruption != "backdoor" or not self.corrupted:
            return None
        test = self.shares.test
        others = test[self.source.test.labels[test] != TARGET]
        clean = Subset(self.source, self.source.test, others)
        return self._corruption("backdoor", 1.0).triggered(clean, clean.labels)

    def _corruption(self, kind: str, rate: float) -> Corruption:
        source = self.source
        white = torch.full((source.image_shape[0], 1, 1), source.scale)
        return Corruption(
            kind=kind,
            rate=rate,
            sigma=self._bad.noise_sigma,
            num_classes=source.num_classes,
            white=data.normalize(white, source),
            seed=self.seed,
        )
