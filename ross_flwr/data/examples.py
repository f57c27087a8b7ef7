"""What every source returns: images and labels, held in memory once per process.

Images stay as published, mostly uint8. `normalize` scales one mini-batch, in a few microseconds.
"""

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError

__all__ = ["Examples", "Place", "Source", "assemble", "decode", "normalize", "tuning_split"]

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
    gain, offset = (each.to(images.device) for each in source._gain_and_offset)
    return images.to(torch.float32, copy=True).mul_(gain).add_(offset)


def assemble(
    train: Examples,
    test: Examples | None,
    num_classes: int = 0,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    owners: Tensor | None = None,
) -> Source:
    """Make a source; hold out test data if there is none, and measure mean and std if they are not given.

    Every fifth example of each class is held out, the same in every run.

    Raises
    ------
    ConfigError
        If there is no image, images differ in shape, or an example has no class.
    """
    if not len(train) or (test is not None and not len(test)):
        raise ConfigError("data-path leads to a data set without examples: it takes at least one to train on and test")
    if test is None:
        train, test, owners = _hold_out(train, owners)
    shapes = {tuple(part.images.shape[1:]) for part in (train, test)}
    if len(shapes) > 1:
        raise ConfigError(f"training and test images have the shapes {sorted(shapes)}: image-size = 32, say, resizes")
    labels = torch.cat([train.labels, test.labels])
    if labels.min() < 0:
        raise ConfigError(f"a label is {int(labels.min())}: labels count from 0, and every example needs one")
    if not mean:
        mean, std = _measured(train.images, _scale(train.images))
    return Source(train, test, max(num_classes, int(labels.max()) + 1), mean, std, _scale(train.images), owners)


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


def _hold_out(train: Examples, owners: Tensor | None) -> tuple[Examples, Examples, Tensor | None]:
    """Split every fifth example of each class off `train`; the owners left are those of the examples that stay."""
    order = np.lexsort((np.random.default_rng(_SPLIT_SEED).random(len(train)), train.labels.numpy()))
    chosen = np.zeros(len(train), dtype=bool)
    chosen[order[::_HELD_OUT]] = True
    kept, held = (torch.from_numpy(np.flatnonzero(each)) for each in (~chosen, chosen))
    return train.take(kept), train.take(held), None if owners is None else owners[kept]


def _scale(images: Tensor) -> float:
    return 255 if images.dtype == torch.uint8 else 1


def _measured(images: Tensor, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation by channel; the deviation of a constant channel is 1."""
    channels = [torch.std_mean(channel.to(torch.float32), correction=0) for channel in images.unbind(1)]
    return tuple(float(mean) / scale for _, mean in channels), tuple(float(std) / scale or 1.0 for std, _ in channels)


def decode(images: Iterable[Any], size: int) -> Tensor:
    """Stack PIL images as uint8, (n, C, H, W): grey if the first image is grey, else RGB; resized unless `size` is 0.

    Raises
    ------
    ConfigError
        If they differ in size and `size` is 0.
    """
    arrays: list[Any] = []
    mode = ""
    for image in images:
        mode = mode or ("L" if image.mode in ("1", "L") else "RGB")
        made = image if image.mode == mode else image.convert(mode)
        arrays.append(np.asarray(made.resize((size, size)) if size else made))
        if arrays[-1].shape != arrays[0].shape:
            (height, width), other = arrays[0].shape[:2], arrays[-1].shape
            raise ConfigError(
                f"image-size = 0 keeps images as they are, and these differ: {height}×{width} and "
                f"{other[0]}×{other[1]}; image-size = 32, say, makes them alike"
            )
    stacked = torch.from_numpy(np.stack(arrays)) if arrays else torch.empty(0, 1, 1, dtype=torch.uint8)
    return channels_first(stacked)


def channels_first(images: Tensor) -> Tensor:
    """Return (n, H, W) or (n, H, W, C) images as (n, C, H, W)."""
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
