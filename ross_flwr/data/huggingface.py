"""A source of Hugging Face: a data set in a folder or on the hub, with a column of images and one of labels."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.data.cache import cached, stamps
from ross_flwr.data.classes import numbered
from ross_flwr.data.examples import Place, Source
from ross_flwr.data.files import from_tensors
from ross_flwr.data.pixels import decode
from ross_flwr.extras import import_extra

__all__ = ["huggingface", "splits"]

LABELS = ("bool", "int", "uint", "float", "string", "large_string")
"""How the types of columns of labels begin."""


def huggingface(place: Place) -> Source:
    """Images of a Hugging Face data set: data-path is its folder or, with download = true, its name on the hub."""
    local = _is_local(place)
    key = ["huggingface", place.image_size, place.label_column, place.owner_column]
    if local:
        files = [file for file in place.located.rglob("*") if file.is_file()]
        tensors = cached([*key, stamps(files)], lambda: _decoded(splits(place), place))
    else:
        found = splits(place)
        files = [Path(entry["filename"]) for split in found for entry in split.cache_files]
        tensors = cached([*key, stamps(files)], lambda: _decoded(found, place))
    names, count = json.loads(bytes(tensors["classes"].tolist()))
    return from_tensors(tensors, names, count)


def _is_local(place: Place) -> bool:
    """Return whether data-path is a folder, and not a name on the hub; refuse it if it is neither."""
    local = bool(place.path) and place.located.is_dir()
    if not local and not (place.path and place.download):
        raise ConfigError(
            f"data-path = '{place.path}' is not a folder: dataset = 'huggingface' takes one, or with download = true "
            "a name on the Hugging Face hub"
        )
    return local


def splits(place: Place) -> list[Any]:
    """Return the training data of a Hugging Face data set and, if there are any, the test data."""
    _is_local(place)
    datasets = import_extra("datasets", "data")
    folder = place.located
    datasets.disable_progress_bars()
    try:
        saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
        found = (
            datasets.load_from_disk(str(folder))
            if saved
            else datasets.load_dataset(str(folder) if folder.is_dir() else place.path)
        )
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
    for name in (images[0], label):
        if name not in splits[-1].features:
            raise ConfigError(f"the test data of data-path = '{place.path}' has no column '{name}', as training has")
    tensors = {}
    for prefix, split in zip(("", "test-"), splits, strict=False):
        stored = split.select_columns(images[0]).cast_column(images[0], datasets.Image(decode=False))
        tensors[f"{prefix}images"] = decode(_encoded(stored, images[0], prefix, place), place.image_size)
    labels, names, count = _numbered(splits, label, place)
    tensors |= dict(zip(("labels", "test-labels"), labels, strict=False))
    if owner:
        tensors["owners"] = torch.from_numpy(np.unique(_column(splits[0], owner, place), return_inverse=True)[1])
    return {**tensors, "classes": torch.tensor(list(json.dumps([names, count]).encode()), dtype=torch.uint8)}


def _encoded(stored: Any, column: str, prefix: str, place: Place) -> Iterator[tuple[str, Any]]:
    """Yield a name for each image, and its file, opened or by its path."""
    for i, row in enumerate(stored):
        found = row[column] or {}
        name = f"the image in {prefix}row {i} of data-path = '{place.path}'"
        if found.get("bytes") is not None:
            yield name, io.BytesIO(found["bytes"])
        elif found.get("path"):
            yield f"{name}, {found['path']},", found["path"]
        else:
            raise ConfigError(f"{name} is missing: remove the row")


def _numbered(splits: Sequence[Any], label: str, place: Place) -> tuple[list[Tensor], Sequence[str], int]:
    """Return the labels of each part as class numbers, the names of the classes, and how many there are at least."""
    kinds = [split.features[label] for split in splits]
    columns = [_column(split, label, place) for split in splits]
    names = [list(getattr(kind, "names", None) or ()) for kind in kinds]
    if all(names):  # the parts may have the same names in different orders
        known = list(dict.fromkeys(name for each in names for name in each))
        place_of = {name: i for i, name in enumerate(known)}
        lookups = [np.array([*map(place_of.get, each), -1], dtype=np.int64) for each in names]  # -1, no class, stays
        labels = [lookup[column] for lookup, column in zip(lookups, columns, strict=True)]
        return [torch.from_numpy(each) for each in labels], known, len(known)
    if any(column.dtype.kind == "U" for column in columns):
        columns = [np.array(each)[column] if each else column for each, column in zip(names, columns, strict=True)]
    labels, classes = numbered(columns, f"column '{label}'")
    return labels, classes, max([len(classes), *(getattr(kind, "num_classes", 0) or 0 for kind in kinds)])


def _column(split: Any, name: str, place: Place) -> Any:
    """Return a column of numbers or words as an array."""
    kind = getattr(split.features[name], "dtype", None)
    where = f"column '{name}' of data-path = '{place.path}'"
    if not isinstance(kind, str) or not kind.startswith(LABELS):
        raise ConfigError(f"{where} holds {kind or 'lists'}: it takes whole numbers or words")
    values = split[name][:]
    if absent := sum(value is None for value in values):
        raise ConfigError(f"{where} is empty in {absent} of {len(values)} rows: remove them")
    return np.asarray(values)


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
