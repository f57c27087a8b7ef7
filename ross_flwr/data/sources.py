"""Where examples come from: `dataset` names a source, and `data-path` says where its data is.

| dataset | data-path |
|---|---|
| ``digits`` | nothing: they are inside this package |
| a set of torchvision by name | the folder of its files, which ``download = true`` fills |
| ``image-folder`` | a folder with one subfolder of images per class, or two such folders, train and test |
| ``file`` | a .npz or .pt file of arrays |
| ``huggingface`` | a folder as the hub stores it, or, with ``download = true``, a name on the hub |
"""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError, require
from ross_flwr.data.cache import cached, stamps
from ross_flwr.data.draws import class_balanced
from ross_flwr.data.examples import Examples, Place, Source, assemble
from ross_flwr.data.files import array_file, from_tensors
from ross_flwr.data.folders import image_folder
from ross_flwr.data.huggingface import huggingface
from ross_flwr.data.pixels import channels_first, decode
from ross_flwr.extras import lacking
from ross_flwr.vision import import_torchvision

__all__ = ["SOURCES", "load"]

Loader = Callable[[Place], Source]


def digits(_place: Place) -> Source:
    """Handwritten digits, 8×8 grey, shipped with this package: 1,437 to train on and 360 to test on, 36 of each."""
    lines = files("ross_flwr.data").joinpath("digits.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines[1:]]  # the first line names their origin
    pixels = [[int(pixel, 17) for pixel in record["pixels"]] for record in records]
    images = torch.tensor(pixels, dtype=torch.uint8).view(-1, 1, 8, 8)
    examples = Examples(images, torch.tensor([record["label"] for record in records]))
    test, train = class_balanced(examples.labels, 360, np.random.default_rng(1998))  # the same for every run
    return Source(examples.take(train), examples.take(test), 10, mean=(0.3050,), std=(0.3759,), scale=16)


_SPLITS: dict[str, tuple[dict[str, Any], ...]] = {
    "train": ({"train": True}, {"train": False}),
    "split": ({"split": "train"}, {"split": "test"}),
    "trainval": ({"split": "trainval"}, {"split": "test"}),
    "val": ({"split": "train"}, {"split": "val"}),
    "whole": ({},),
}
"""Arguments of torchvision's classes for training and test data. If there is no test data, a fifth is held out."""


def _vision(
    name: str,
    splits: str,
    summary: str,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    **arguments: Any,
) -> Loader:
    """Make the loader of a torchvision set from its class's name. Mean and std are measured if they are not given."""

    def read(place: Place) -> Source:
        kind = getattr(import_torchvision().datasets, name)
        folder = place.located.resolve()
        try:
            parts = [kind(folder, download=place.download, **arguments, **which) for which in _SPLITS[splits]]
        except (RuntimeError, OSError, ValueError, AssertionError) as error:  # absent, unreachable or incomplete
            lacks = f"does not hold all of {name}, which download = true fetches"
            outcome = f"could not be filled with {name}: {error}" if place.download else lacks
            raise ConfigError(f"data-path = '{place.path}', the folder {folder}, {outcome}") from error
        except ModuleNotFoundError as error:
            raise lacking(error.name or name, "data") from error
        num_classes, classes = len(getattr(parts[0], "classes", ())), _names(parts[0])
        if not hasattr(parts[0], "data"):
            key = ["torchvision", name, place.image_size, stamps(file for file in folder.rglob("*") if file.is_file())]
            tensors = cached(key, lambda: _iterated(parts, place.image_size))
            return from_tensors(tensors, classes, num_classes)
        train, *test = (_arrays_of(part) for part in parts)
        return assemble(train, test[0] if test else None, num_classes, mean, std, classes=classes)

    read.__doc__ = summary
    return read


def _names(dataset: Any) -> tuple[str, ...]:
    """Return what torchvision calls the classes of a set; MNIST's digits without their words."""
    names = getattr(dataset, "classes", ())
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return ()
    return tuple(name.split(" - ")[0] for name in names)


def _arrays_of(dataset: Any) -> Examples:
    """Return the arrays of one of torchvision's small sets, whose labels have one of two names."""
    images = torch.as_tensor(dataset.data)
    if images.ndim == 3 or images.shape[1] != 3:  # otherwise channels come first already
        images = channels_first(images)
    return Examples(images, torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels).long())


def _iterated(parts: list[Any], size: int) -> dict[str, Tensor]:
    """Decode torchvision's sets of image files."""
    tensors = {}
    for prefix, part in zip(("", "test-"), parts, strict=False):
        labels: list[int] = []

        def images(part: Any = part, labels: list[int] = labels) -> Any:
            for i in range(len(part)):
                name = f"image {i} of {type(part).__name__}"
                try:
                    image, label = part[i]
                except OSError as error:
                    raise ConfigError(f"{name} cannot be read: {error}; replace the file or remove it") from None
                labels.append(label)
                yield name, image

        tensors[f"{prefix}images"] = decode(images(), size)
        tensors[f"{prefix}labels"] = torch.tensor(labels)
    return tensors


_CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

SOURCES: dict[str, Loader] = {
    "digits": digits,
    "mnist": _vision("MNIST", "train", "70,000 handwritten digits, 28×28 grey.", (0.1307,), (0.3081,)),
    "fashion-mnist": _vision("FashionMNIST", "train", "70,000 clothes, 28×28 grey.", (0.2860,), (0.3530,)),
    "kmnist": _vision("KMNIST", "train", "70,000 Japanese characters of ten classes, 28×28 grey."),
    "emnist": _vision("EMNIST", "train", "131,600 letters and digits of 47 classes, 28×28 grey.", split="balanced"),
    "emnist-letters": _vision("EMNIST", "train", "145,600 letters, 28×28 grey.", split="letters"),
    "usps": _vision("USPS", "train", "9,298 handwritten digits, 16×16 grey."),
    "semeion": _vision("SEMEION", "whole", "1,593 handwritten digits, 16×16 grey; a fifth is held out as test data."),
    "cifar10": _vision("CIFAR10", "train", "60,000 photos, 32×32.", *_CIFAR10),
    "cifar100": _vision("CIFAR100", "train", "60,000 photos of 100 classes, 32×32."),
    "svhn": _vision("SVHN", "split", "99,289 house numbers, 32×32."),
    "stl10": _vision("STL10", "split", "13,000 photos of ten classes, 96×96."),
    "eurosat": _vision("EuroSAT", "whole", "27,000 satellite images of ten classes, 64×64; a fifth is held out."),
    "gtsrb": _vision("GTSRB", "split", "39,270 traffic signs of 43 classes; takes image-size."),
    "food101": _vision("Food101", "split", "101,000 dishes of 101 classes; takes image-size."),
    "flowers102": _vision("Flowers102", "split", "7,169 flowers of 102 classes; takes image-size."),
    "dtd": _vision("DTD", "split", "3,760 textures of 47 classes; takes image-size."),
    "fgvc-aircraft": _vision("FGVCAircraft", "trainval", "10,000 aircraft of 100 variants; takes image-size."),
    "country211": _vision("Country211", "split", "52,750 photos of 211 countries; takes image-size."),
    "rendered-sst2": _vision("RenderedSST2", "split", "8,741 film reviews as pictures, good or bad; takes image-size."),
    "oxford-pets": _vision("OxfordIIITPet", "trainval", "7,349 cats and dogs of 37 breeds; takes image-size."),
    "caltech101": _vision("Caltech101", "whole", "8,677 objects of 101 classes; holds out a fifth; takes image-size."),
    "caltech256": _vision("Caltech256", "whole", "30,607 objects of 257 classes; holds out a fifth; takes image-size."),
    "sun397": _vision("SUN397", "whole", "108,754 scenes of 397 classes; holds out a fifth; takes image-size."),
    "imagenette": _vision("Imagenette", "val", "13,394 photos of ten classes; takes image-size.", size="160px"),
    "image-folder": image_folder,
    "file": array_file,
    "huggingface": huggingface,
}
"""Loaders, by the name that the key `dataset` takes."""


def load(name: str, path: str = "", download: bool = False, *, num_classes: int = 0, **settings: Any) -> Source:
    """Read the source `name` of `SOURCES`. Later calls in the same process return the same object.

    Parameters
    ----------
    name, path, download : str, str, bool
        What to read, from where, and whether it may be downloaded. The table above says what each source takes.
    num_classes : int
        The number of classes, if the data contains fewer.
    **settings : int or str
        The other fields of `Place`.

    Raises
    ------
    ConfigError
        If no source has that name, or files are missing or incomplete and cannot be fetched.

    Examples
    --------
    >>> load("digits") is load("digits")
    True
    """
    require("dataset", name, SOURCES)
    return _load(name, Place(path, download, **settings), num_classes)


@functools.lru_cache
def _load(name: str, place: Place, num_classes: int) -> Source:
    source = SOURCES[name](place)
    if 0 < num_classes < source.num_classes:
        raise ConfigError(f"num-classes = {num_classes} is too few: dataset = '{name}' has {source.num_classes}")
    return replace(source, num_classes=num_classes) if num_classes > source.num_classes else source
