"""Sources for your own files: a folder of class folders, an array file, a Hugging Face data set."""

import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.data.cache import cached, stamps
from ross_flwr.data.examples import Examples, Place, Source, assemble, channels_first, decode
from ross_flwr.extras import import_extra
from ross_flwr.vision import import_torchvision

__all__ = ["array_file", "from_tensors", "huggingface", "image_folder"]


def from_tensors(tensors: Mapping[str, Tensor]) -> Source:
    """Make a source from named tensors: images, labels, test-images, test-labels, owners, and num-classes (0-d)."""
    test = Examples(tensors["test-images"], tensors["test-labels"]) if "test-images" in tensors else None
    train = Examples(tensors["images"], tensors["labels"])
    return assemble(train, test, int(tensors["num-classes"]), owners=tensors.get("owners"))


def _folder(place: Place, name: str) -> Path:
    folder = Path(place.path).expanduser()
    if not place.path or not folder.is_dir():
        raise ConfigError(f"data-path = '{place.path}' is not a folder, which dataset = '{name}' takes")
    return folder


def image_folder(place: Place) -> Source:
    """Images in a folder with one subfolder per class, or with two such folders, train and test."""
    folder = _folder(place, "image-folder")
    parts = [folder / name for name in ("train", "test")] if (folder / "train").is_dir() else [folder]
    read = import_torchvision().datasets.ImageFolder
    try:
        found = [read(part, allow_empty=True) for part in parts if part.is_dir()]
    except FileNotFoundError as error:
        raise ConfigError(f"data-path = '{place.path}' holds no class folders with images in them: {error}") from error
    if found[0].classes != found[-1].classes:
        raise ConfigError(f"data-path = '{place.path}' has different class folders in test and train: use the same")

    def decoded() -> dict[str, Tensor]:
        from PIL import Image  # torchvision brings it

        tensors = {"num-classes": torch.tensor(len(found[0].classes))}
        for prefix, part in zip(("", "test-"), found, strict=False):
            tensors[f"{prefix}images"] = decode((Image.open(file) for file, _ in part.samples), place.image_size)
            tensors[f"{prefix}labels"] = torch.tensor(part.targets, dtype=torch.int64)
        return tensors

    files = (Path(file) for part in found for file, _ in part.samples)
    return from_tensors(cached(["image-folder", found[0].classes, place.image_size, stamps(files)], decoded))


_NAMES = (
    ("images", "labels", "test_images", "test_labels"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)
"""The names of the arrays: ours, MedMNIST's and Keras's."""


def array_file(place: Place) -> Source:
    """One .npz or .pt file with the arrays images and labels, and optionally test_images, test_labels, owners."""
    arrays = _arrays(place)
    names = next((names for names in _NAMES if {*names[:2]} <= set(arrays)), None)
    if names is None:
        wanted = "; ".join(", ".join(each) for each in _NAMES)
        raise ConfigError(f"data-path = '{place.path}' holds {', '.join(arrays) or 'no arrays'}: call them {wanted}")
    tensors = {"num-classes": torch.tensor(0)}
    for ours, name in zip(("images", "labels", "test-images", "test-labels"), names, strict=True):
        if name in arrays:
            tensors[ours] = (_images if ours.endswith("images") else _labels)(arrays[name], name)
    owners = place.owner_column or "owners"
    if owners in arrays:
        tensors["owners"] = _labels(arrays[owners], owners)
    for prefix in ("", "test-"):
        images, labels = (len(tensors.get(f"{prefix}{name}", ())) for name in ("images", "labels"))
        if images != labels:
            raise ConfigError(f"data-path = '{place.path}' holds {images} {prefix}images and {labels} labels of them")
    return from_tensors(tensors)


def _arrays(place: Place) -> dict[str, Tensor]:
    """Return the arrays in a file. Nothing is unpickled: anything but plain arrays is refused."""
    file = Path(place.path).expanduser()
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as stored:
                return {name: torch.from_numpy(stored[name]) for name in stored.files}
        if file.suffix == ".pt":
            found = torch.load(file, map_location="cpu", weights_only=True)
            return {name: each for name, each in found.items() if isinstance(each, Tensor)}
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, EOFError) as error:
        raise ConfigError(f"data-path = '{place.path}' cannot be read as arrays by name: {error}") from error
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ConfigError(f"data-path = '{place.path}' holds more than plain arrays, or is damaged") from error
    raise ConfigError(f"data-path = '{place.path}' is not a .npz or .pt file, which dataset = 'file' takes")


def _images(array: Tensor, name: str) -> Tensor:
    shape = tuple(array.shape)
    if array.ndim == 4 and shape[1] not in (1, 3, 4) and shape[3] in (1, 3, 4):
        array = channels_first(array)
    if array.ndim == 3:
        array = array.unsqueeze(1)
    if array.ndim != 4:
        raise ConfigError(f"{name} has shape {shape}: it takes n × height × width, with channels first or last or none")
    if array.is_floating_point():
        return array.to(torch.float32)
    if array.numel() and not 0 <= int(array.min()) <= int(array.max()) <= 255:
        raise ConfigError(f"{name} holds whole numbers from {array.min()} to {array.max()}: pixels go from 0 to 255")
    return array.to(torch.uint8)


def _labels(array: Tensor, name: str) -> Tensor:
    array = array.flatten(1).squeeze(1) if array.ndim > 1 else array
    if array.ndim != 1 or array.is_floating_point():
        raise ConfigError(f"{name} has shape {tuple(array.shape)} of {array.dtype}: it takes n whole numbers")
    return array.to(torch.int64)


def huggingface(place: Place) -> Source:
    """Images of a Hugging Face data set: data-path is its folder or, with download = true, its name on the hub."""
    folder = Path(place.path).expanduser()
    local = bool(place.path) and folder.is_dir()
    if not local and not (place.path and place.download):
        raise ConfigError(
            f"data-path = '{place.path}' is not a folder: dataset = 'huggingface' takes one, or with download = true "
            "a name on the Hugging Face hub"
        )
    key = ["huggingface", place.image_size, place.label_column, place.owner_column]
    if local:
        files = [file for file in folder.rglob("*") if file.is_file()]
        return from_tensors(cached([*key, stamps(files)], lambda: _decoded(_splits(place), place)))
    splits = _splits(place)
    files = [Path(entry["filename"]) for split in splits for entry in split.cache_files]
    return from_tensors(cached([*key, stamps(files)], lambda: _decoded(splits, place)))


def _splits(place: Place) -> list[Any]:
    """Return the training data and, if there are any, the test data."""
    datasets = import_extra("datasets", "data")
    folder = Path(place.path).expanduser()
    datasets.disable_progress_bars()
    try:
        saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
        found = datasets.load_from_disk(str(folder)) if saved else datasets.load_dataset(place.path)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(f"data-path = '{place.path}' is not readable as a Hugging Face data set: {error}") from error
    finally:
        datasets.enable_progress_bars()
    if isinstance(found, datasets.Dataset):
        return [found]
    train = found["train"] if "train" in found else next(iter(found.values()))
    test = next((found[name] for name in ("test", "validation", "valid") if name in found), None)
    return [train] if test is None or test is train else [train, test]


def _decoded(splits: Sequence[Any], place: Place) -> dict[str, Tensor]:
    datasets = import_extra("datasets", "data")
    features = splits[0].features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image) or _is_image(kind)]
    if not images:
        raise ConfigError(f"data-path = '{place.path}' has the columns {', '.join(features)}, and none holds images")
    label = place.label_column or _label_column(features, datasets.ClassLabel, place)
    owner = place.owner_column
    for key, name in {"label-column": label, "owner-column": owner}.items():
        if name and name not in features:
            raise ConfigError(
                f"{key} = '{name}' is not a column of data-path = '{place.path}': {', '.join(features)} are"
            )
    kind = features[label]
    names = (
        None
        if kind.dtype not in ("string", "large_string")
        else sorted({name for split in splits for name in split.unique(label)})
    )
    tensors = {"num-classes": torch.tensor(getattr(kind, "num_classes", 0) or len(names or ()))}
    for prefix, split in zip(("", "test-"), splits, strict=False):
        stored = split.select_columns(images[0]).cast_column(images[0], datasets.Image(decode=False))
        tensors[f"{prefix}images"] = decode((_opened(row[images[0]]) for row in stored), place.image_size)
        column = np.asarray(split[label][:])
        tensors[f"{prefix}labels"] = torch.from_numpy(
            column.astype(np.int64) if names is None else np.searchsorted(names, column)
        )
    if owner:
        tensors["owners"] = torch.from_numpy(np.unique(np.asarray(splits[0][owner][:]), return_inverse=True)[1])
    return tensors


def _is_image(kind: Any) -> bool:
    """Return whether a column holds encoded images without being declared as an image column."""
    return isinstance(kind, dict) and set(kind) == {"bytes", "path"}


def _label_column(features: Mapping[str, Any], class_label: type, place: Place) -> str:
    known = [name for name, kind in features.items() if isinstance(kind, class_label)]
    known = known or [name for name in ("label", "labels", "fine_label", "class") if name in features]
    if len(known) != 1 and "label" not in known:
        raise ConfigError(
            f"label-column = '' does not say which column of data-path = '{place.path}' holds the classes: "
            f"use one of {', '.join(known or features)}"
        )
    return "label" if "label" in known else known[0]


def _opened(row: Mapping[str, Any]) -> Any:
    return import_extra("PIL.Image", "data").open(io.BytesIO(row["bytes"]) if row["bytes"] is not None else row["path"])
