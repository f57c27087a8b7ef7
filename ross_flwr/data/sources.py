"""Where examples come from: the digits inside this package, and torchvision's sets by name.

Images stay as published (uint8); `normalize` is for a mini-batch, and takes a few microseconds.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError, require
from ross_flwr.data.partitions import class_balanced
from ross_flwr.vision import import_torchvision

__all__ = ["SOURCES", "Examples", "Source", "load", "normalize"]


@dataclass(frozen=True, eq=False)
class Examples:
    """Images (uint8 or float32, (n, C, H, W), from 0 to the source's `scale`) and labels (int64, (n,))."""

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
        What the agents share out, and what accuracy is reported on; labels are below `num_classes`.
    mean, std : tuple[float, ...]
        Per channel, of the training images scaled to [0, 1].
    scale : float
        The largest value a pixel can take, by which images are divided: 255, or 16 for the digits.
    """

    train: Examples
    test: Examples
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float

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
    """Return (images / scale − mean) / std by channel: a new float32 tensor of the same shape."""
    gain, offset = (each.to(images.device) for each in source._gain_and_offset)
    return images.to(torch.float32, copy=True).mul_(gain).add_(offset)


def digits(_path: str, _download: bool) -> Source:
    """Handwritten digits, 8×8 grey, inside this package: 1,437 to train on and 360 to test, 36 of each."""
    lines = files("ross_flwr.data").joinpath("digits.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines[1:]]  # the first says where the others come from
    pixels = [[int(pixel, 17) for pixel in record["pixels"]] for record in records]
    images = torch.tensor(pixels, dtype=torch.uint8).view(-1, 1, 8, 8)
    examples = Examples(images, torch.tensor([record["label"] for record in records]))
    test, train = class_balanced(examples.labels, 360, np.random.default_rng(1998))  # for every run the same
    return Source(examples.take(train), examples.take(test), 10, mean=(0.3050,), std=(0.3759,), scale=16)


Loader = Callable[[str, bool], Source]
"""Reads a source from a folder; True lets it fetch what the folder lacks."""


def _vision(name: str, mean: tuple[float, ...], std: tuple[float, ...], summary: str) -> Loader:
    """Make the loader of a torchvision set from the name of its class."""

    def read(path: str, download: bool) -> Source:
        kind = getattr(import_torchvision().datasets, name)
        folder = Path(path).expanduser().resolve()
        try:
            train, test = (kind(folder, train=part, download=download) for part in (True, False))
        except (RuntimeError, OSError, ValueError, AssertionError) as error:  # absent, unreachable, cut short
            lacks = f"does not hold all of {name}, which download = true fetches"
            outcome = f"could not be filled with {name}: {error}" if download else lacks
            raise ConfigError(f"data-path = '{path}', the folder {folder}, {outcome}") from error
        return Source(_examples(train), _examples(test), len(train.classes), mean, std, scale=255)

    read.__doc__ = summary
    return read


def _examples(dataset: Any) -> Examples:
    images = torch.as_tensor(dataset.data)  # (n, H, W) grey, or (n, H, W, C)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return Examples(images, torch.as_tensor(dataset.targets))


SOURCES: dict[str, Loader] = {
    "digits": digits,
    "mnist": _vision("MNIST", (0.1307,), (0.3081,), "70,000 handwritten digits, 28×28 grey."),
    "fashion-mnist": _vision("FashionMNIST", (0.2860,), (0.3530,), "70,000 clothes, 28×28 grey."),
    "cifar10": _vision("CIFAR10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "60,000 photos, 32×32."),
}
"""Loaders by the name that the key `dataset` takes."""


def load(name: str, path: str = "", download: bool = False) -> Source:
    """Read the source `name` of `SOURCES`; asked again in the same process, return the same object.

    `path` is the folder of the files as torchvision lays them out (the digits need none); `download` fetches
    into it what it lacks.

    Raises
    ------
    ConfigError
        If no source has that name, or files are missing or incomplete and not fetched.
    """
    require("dataset", name, SOURCES)
    return _load(name, path, download)


_load = functools.lru_cache(lambda name, path, download: SOURCES[name](path, download))
