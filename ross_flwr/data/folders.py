"""A source of image files: a folder with one subfolder per class, or two such folders, for training and tests."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.data.cache import cached, stamps
from ross_flwr.data.examples import Place, Source
from ross_flwr.data.files import from_tensors
from ross_flwr.data.pixels import decode

__all__ = ["image_folder"]

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
"""Names of folders that hold parts of a data set, in any case; the first test folder of these names is the one."""

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def image_folder(place: Place) -> Source:
    """Images in a folder with one subfolder per class, or with two such folders, train and test."""
    folder = place.located
    if not place.path or not folder.is_dir():
        raise ConfigError(f"data-path = '{place.path}' is not a folder, which dataset = 'image-folder' takes")
    parts = [{each.name: list(_images(each)) for each in _folders(part)} for part in _parts(folder, place)]
    classes = sorted(parts[0])
    if not any(parts[0].values()):
        read = ", ".join(sorted(SUFFIXES))
        raise ConfigError(f"data-path = '{place.path}' holds no class folders with images in them: {read} are read")
    if unknown := sorted({name for part in parts for name in part if part[name]} - set(classes)):
        raise ConfigError(
            f"data-path = '{place.path}' has different class folders in test and train: '{unknown[0]}' is in test alone"
        )

    def decoded() -> dict[str, Tensor]:
        tensors = {}
        for prefix, part in zip(("", "test-"), parts, strict=False):
            files = [(file, label) for label, name in enumerate(classes) for file in part.get(name, [])]
            tensors[f"{prefix}images"] = decode(((str(file), file) for file, _ in files), place.image_size)
            tensors[f"{prefix}labels"] = torch.tensor([label for _, label in files], dtype=torch.int64)
        return tensors

    found = (file for part in parts for files in part.values() for file in files)
    return from_tensors(cached(["image-folder", classes, place.image_size, stamps(found)], decoded), classes)


def _parts(folder: Path, place: Place) -> list[Path]:
    """Return the folder of the class folders, or those of the training and the test data."""
    inside = _folders(folder)
    while (
        len(inside) == 1 and _folders(inside[0]) and not any(map(_is_image, inside[0].iterdir()))
    ):  # a folder around all others
        inside = _folders(inside[0])
    parts = {each.name.lower(): each for each in inside if _folders(each)}  # class folders hold files instead
    train = next((parts[name] for name in TRAIN if name in parts), None)
    test = next((parts[name] for name in TEST if name in parts), None)
    if train is None and test is not None and len(parts) == len(inside) and parts.keys() <= set(TEST):
        raise ConfigError(f"data-path = '{place.path}' holds {', '.join(parts)} and no training data: call it train")
    if train is not None:
        return [train] if test is None else [train, test]
    return [inside[0].parent if inside else folder]


def _images(folder: Path) -> Iterator[Path]:
    """Yield the image files in a folder and in the folders in it."""
    for each in sorted(folder.iterdir()):
        if _wanted(each.name) and each.is_dir():
            yield from _images(each)
        elif _is_image(each):
            yield each


def _wanted(name: str) -> bool:
    """Return whether a name is that of a part of the data, not of what file managers, archivers and notebooks leave."""
    return not name.startswith(".") and name != "__MACOSX"


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and _wanted(each.name))


def _is_image(file: Path) -> bool:
    return _wanted(file.name) and file.suffix.lower() in SUFFIXES
