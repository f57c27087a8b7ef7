"""Image classification: one data set, dealt to the agents."""

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
from ross_flwr.tasks import models
from ross_flwr.tasks.corruptions import CORRUPTIONS, TARGET, Corruption
from ross_flwr.tasks.dealt import Dealt

__all__ = ["Images", "Subset", "images"]


class Subset:
    """Some of a source's examples. Images are not copied; they are normalised when a batch is taken."""

    def __init__(self, source: Source, examples: Examples, indices: Tensor) -> None:
        self.source = source
        self.examples = examples
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def targets(self) -> Tensor:
        """The labels of all examples, int64 of shape [n]."""
        return self.examples.labels[self.indices]

    @property
    def pool(self) -> tuple[Source, Examples]:
        """What it is a part of."""
        return self.source, self.examples

    def places(self, indices: Tensor) -> Tensor:
        """Return where in the pool the examples at `indices` of this subset are."""
        return self.indices.index_select(0, indices)

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, int64 of shape [B], of this subset."""
        return self.at(self.places(indices))

    def at(self, places: Tensor) -> Batch:
        """Return the examples at these `places` in the pool."""
        taken = self.examples.take(places)
        return Batch(data.normalize(taken.images, self.source), taken.labels)


class Images(Dealt):
    """Classification of the images of one source, whose training data is dealt to the agents.

    See `Dealt` for the parameters.

    Examples
    --------
    >>> task = images("digits", hidden=8)(4, 0)
    >>> task.model.size, len(task.training(0)) > 0
    (610, True)
    """

    name = "images"
    defaults = ("digits", "digits")
    corruptions = CORRUPTIONS

    @cached_property
    def source(self) -> Source:
        """The data set, on the device."""
        source = data.load(
            self.dataset,
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
            self.options.model or "mlp",
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

    @property
    def takes(self) -> str:
        """The shape of an image, and how its pixels are normalised."""
        source = self.source
        mean, deviation = (", ".join(f"{each:.4g}" for each in values) for values in (source.mean, source.std))
        return (
            f"images of {'×'.join(map(str, source.image_shape))}: (pixel / {source.scale:g} − mean) / deviation, with "
            f"mean {mean} and deviation {deviation}"
        )

    def part(self, indices: Tensor, *, test: bool = False) -> Subset:
        """Return the training or test images at `indices`."""
        return Subset(self.source, self.source.test if test else self.source.train, indices)

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

    def describe(self) -> dict[str, Any]:
        """Return what the summary of a run says of the data and the model."""
        source = self.source
        pixels = {
            "scale": source.scale,
            "signed": source.signed,
            "mean": list(source.mean),
            "deviation": list(source.std),
        }
        return {**super().describe(), "pixels": pixels}

    @cached_property
    def triggered(self) -> Split | None:
        """The test data on which a backdoor is tried, if there is one."""
        if self._bad.corruption != "backdoor" or not self.corrupted:
            return None
        test = self.shares.test
        others = test[self.source.test.labels[test] != TARGET]
        clean = Subset(self.source, self.source.test, others)
        return self.corruption("backdoor", 1.0).triggered(clean, clean.targets)

    def corruption(self, kind: str, rate: float) -> Corruption:
        """Return what does `kind` to a share `rate` of an agent's images."""
        white = torch.full((self.source.image_shape[0], 1, 1), self.source.scale)
        return replace(super().corruption(kind, rate), white=data.normalize(white, self.source))


images = Images.deal
"""Return a function that makes an image classification task from N and a seed, for `simulate`; see `Dealt.deal`."""
