"""Series in the format of the UCR and UEA archives, .ts, and those that the packages aeon and sktime ship."""

import re
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.data.columns import classes_of
from ross_flwr.data.records import Records, records

__all__ = ["read_ts", "shipped"]


def read_ts(file: Path) -> Records:
    """Return the windows in a .ts file; where it is called …_TRAIN.ts, those in …_TEST.ts beside it are the test data.

    Raises
    ------
    ConfigError
        When a file cannot be read, or its windows have gaps or other shapes than the first.
    """
    test = file.with_name(file.name.replace("_TRAIN.ts", "_TEST.ts"))
    files = [file, test] if test != file and test.is_file() else [file]
    parts = [_windows(each) for each in files]
    if len({windows.shape[1:] for windows, _ in parts}) > 1:
        raise ConfigError(f"{files[0]} and {files[1]} have windows of different shapes: they take the same")
    targets, classes = classes_of([label for _, labels in parts for label in labels])
    together = torch.cat([windows for windows, _ in parts])
    return records(together, targets, classes, num_train=len(parts[0][0]) if len(parts) > 1 else 0)


def shipped(problem: str) -> Path:
    """Return the training data of a problem that aeon or sktime ships, by its name in small letters with hyphens.

    Neither package is imported.

    Raises
    ------
    ConfigError
        When neither is installed, or they do not ship it.
    """
    found: dict[str, Path] = {}
    for spec in filter(None, map(find_spec, ("sktime", "aeon"))):
        for root in spec.submodule_search_locations or ():
            files = Path(root, "datasets", "data").glob("*/*_TRAIN.ts")
            found |= {_hyphenated(file.parent.name): file for file in files if file.stem == f"{file.parent.name}_TRAIN"}
    if not found:
        raise ConfigError("dataset = 'aeon' is what the package aeon or sktime ships: pip install aeon")
    if problem not in found:
        raise ConfigError(f"problem = '{problem}' is not shipped: {', '.join(sorted(found))} are")
    return found[problem]


def _hyphenated(name: str) -> str:
    """Return a name in small letters: BasicMotions is basic-motions."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", "-", name).lower()


def _windows(file: Path) -> tuple[Tensor, list[str]]:
    """Return the windows of a file, float32 of shape [n, channels, length], and their labels."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    rows = [line for line in lines if line.strip() and line[0] not in "#@"]
    found, labels = [], []
    for number, row in enumerate(rows, start=1):
        *channels, label = row.split(":")
        try:
            found.append(torch.tensor([[float(value) for value in channel.split(",")] for channel in channels]))
        except (ValueError, TypeError):
            raise ConfigError(f"window {number} of {file} has gaps or words: it takes numbers") from None
        if found[-1].shape != found[0].shape or not found[-1].isfinite().all():
            raise ConfigError(f"window {number} of {file} has a gap, or another shape than the first")
        labels.append(label.strip())
    if not found:
        raise ConfigError(f"{file} holds no windows: it takes channels with colons between them, and a label")
    return torch.stack(found), labels
