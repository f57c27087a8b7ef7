"""What every source returns: images and labels, held in memory once per process.

Images stay as published, mostly uint8. `normalize` scales one mini-batch, in a few microseconds.
"""

import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.data.pixels import common_scale, pixel_range

__all__ = ["Examples", "Place", "Source", "assemble", "held_out", "normalize", "tuning_split"]

_HELD_OUT = 5  # if a source has no test data, one in this many examples of each class becomes test data
_SPLIT_SEED = 1998  # seeds the splits made here, the same for every run


@dataclass(frozen=True)
class Place:
    """Where a source is read from, and how. Each field is the configuration key of the same name.

    Examples
    --------
    >>> Place("data/mnist", download=True).path
    'data/mnist'
    """

    path: str = ""
    download: bool = False
    image_size: int = 0
    label_column: str = ""
    owner_column: str = ""

    @property
    def located(self) -> Path:
        """The path, with the home folder in place of ``~``."""
        return Path(os.path.expanduser(self.path))


@dataclass(frozen=True, eq=False)
class Examples:
    """Images (uint8 or float32, (n, C, H, W), from 0 to the source's `scale`) and labels (int64, (n,)).

    Examples
    --------
    >>> examples = Examples(images=torch.zeros(3, 1, 8, 8), labels=torch.tensor([7, 8, 9]))
    >>> len(examples), examples.take(torch.tensor([2, 0])).labels
    (3, tensor([9, 7]))
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Examples":
        """Copy the examples at `indices` (int64, shape (m,)), in that order."""
        return Examples(self.images.index_select(0, indices), self.labels.index_select(0, indices))


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as published.

    Attributes
    ----------
    train, test : Examples
        The examples dealt to the agents, and those used for testing. Labels are below `num_classes`.
    mean, std : tuple[float, ...]
        Per channel, of the training images scaled to [0, 1].
    scale : float
        The largest value that a pixel can have. Images are divided by it: 255, or 16 for the digits.
    signed : bool
        Whether images come standardised, with values of both signs.
    classes : tuple[str, ...]
        What the classes are called; empty if they have only numbers.
    owners : Tensor, optional
        The writer, device or other owner of each training example: int64, (n,), from 0.

    Examples
    --------
    >>> from ross_flwr.data import load
    >>> digits = load("digits")
    >>> digits.image_shape, digits.num_classes, len(digits.train), len(digits.test)
    ((1, 8, 8), 10, 1437, 360)
    """

    train: Examples
    test: Examples
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    owners: Tensor | None = None
    signed: bool = False
    classes: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Source":
        """Return this source with its examples on `device`."""
        train, test = (Examples(part.images.to(device), part.labels.to(device)) for part in (self.train, self.test))
        return dataclasses.replace(self, train=train, test=test)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @functools.cached_property
    def _gain_and_offset(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (self.mean, self.std))
        return 1 / (self.scale * std), -mean / std


def normalize(images: Tensor, source: Source) -> Tensor:
    """Return (images / scale − mean) / std by channel: a new float32 tensor of the same shape.

    Examples
    --------
    >>> from ross_flwr.data import load
    >>> digits = load("digits")
    >>> images = normalize(digits.train.images, digits)
    >>> images.shape, round(float(images.std()), 2)
    (torch.Size([1437, 1, 8, 8]), 1.0)
    """
    gain, offset = source._gain_and_offset
    if images.device != gain.device:
        gain, offset = gain.to(images.device), offset.to(images.device)
    return images.to(torch.float32, copy=True).mul_(gain).add_(offset)


def assemble(
    train: Examples,
    test: Examples | None,
    num_classes: int = 0,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    owners: Tensor | None = None,
    classes: tuple[str, ...] = (),
) -> Source:
    """Make a source; hold out test data if there is none, and measure mean and std if they are not given.

    Every fifth example of each class is held out, the same in every run. Test images are brought to the scale of the
    training images, and grey images beside coloured ones get three equal channels.

    Raises
    ------
    ConfigError
        If there is no image, images differ in shape or cannot be compared, or an example has no class.
    """
    if not len(train) or (test is not None and not len(test)):
        raise ConfigError("data-path leads to a data set without examples: it takes at least one to train on and test")
    values, signed = pixel_range(train.images)
    if test is None:
        train, test, owners = _hold_out(train, owners)
    else:
        factor = values / common_scale(pixel_range(test.images), (values, signed))
        test = test if factor == 1 else dataclasses.replace(test, images=test.images * factor)
        channels = max(part.images.shape[1] for part in (train, test))
        train, test = (_coloured(part) if channels == 3 else part for part in (train, test))
    shapes = {tuple(part.images.shape[1:]) for part in (train, test)}
    if len(shapes) > 1:
        raise ConfigError(f"training and test images have the shapes {sorted(shapes)}: image-size = 32, say, resizes")
    labels = torch.cat([train.labels, test.labels])
    if labels.min() < 0:
        raise ConfigError(f"a label is {int(labels.min())}: labels count from 0, and every example needs one")
    if not mean:
        mean, std = _measured(train.images, values)
    num_classes = max(num_classes, int(labels.max()) + 1)
    return Source(train, test, num_classes, mean, std, values, owners, signed, classes)


def _coloured(examples: Examples) -> Examples:
    """Return the examples with three channels, if they have one."""
    grey = examples.images.shape[1] == 1
    return dataclasses.replace(examples, images=examples.images.repeat(1, 3, 1, 1)) if grey else examples


@functools.lru_cache
def tuning_split(source: Source) -> Source:
    """Return `source` with every fifth training example of each class as its test data, the same in every run.

    Hyper-parameters are chosen on it: agents hold the rest of the training data, and the real test data is not read.

    Examples
    --------
    >>> from ross_flwr.data import load
    >>> source = load("digits")
    >>> held_out = tuning_split(source)
    >>> len(source.train), len(held_out.train), len(held_out.test)
    (1437, 1149, 288)
    """
    train, test, owners = _hold_out(source.train, source.owners)
    return dataclasses.replace(source, train=train, test=test, owners=owners)


def held_out(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of the examples that stay, and those of every fifth of each class, ascending.

    Examples
    --------
    >>> kept, held = held_out(torch.zeros(10, dtype=torch.int64))
    >>> len(kept), len(held)
    (8, 2)
    """
    order = np.lexsort((np.random.default_rng(_SPLIT_SEED).random(len(labels)), labels.numpy()))
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[order[::_HELD_OUT]] = True
    kept, held = (torch.from_numpy(np.flatnonzero(each)) for each in (~chosen, chosen))
    return kept, held


def _hold_out(train: Examples, owners: Tensor | None) -> tuple[Examples, Examples, Tensor | None]:
    """Split every fifth example of each class off `train`; the owners left are those of the examples that stay."""
    kept, held = held_out(train.labels)
    return train.take(kept), train.take(held), None if owners is None else owners[kept]


def _measured(images: Tensor, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation by channel; the deviation of a constant channel is 1.

    All images as real numbers would take eight times their memory, so they are read 1,024 at a time, into one place:
    glibc before 2.38 often takes new memory for a tensor where another of its size was freed.
    """
    parts, count = torch.split(images, 1024), images.numel() // images.shape[1]
    place = torch.empty(parts[0].shape, dtype=torch.float64)
    mean = torch.stack([place[: len(part)].copy_(part).sum((0, 2, 3)) for part in parts]).sum(0) / count
    deviations = (place[: len(part)].copy_(part).sub_(mean.view(-1, 1, 1)) for part in parts)
    squares = [each.square_().sum((0, 2, 3)) for each in deviations]
    deviation = (torch.stack(squares).sum(0) / count).sqrt()
    return tuple((mean / scale).tolist()), tuple(each or 1.0 for each in (deviation / scale).tolist())
