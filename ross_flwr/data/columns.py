"""Columns of a table: how they are read, and how they become the inputs of a model."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.data.classes import MOST
from ross_flwr.extras import import_extra

__all__ = ["Columns", "classes_of", "encode", "missing", "numbers", "read_columns"]

Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""A table: the values of each column by its name; None is missing."""

MISSING = {"", "?", "na", "n/a", "nan", "none", "null"}
"""How a missing value is written, in small letters."""

CATEGORIES = 50
"""At most this many categories of a column have an input of their own; rarer ones share one."""


def read_columns(file: Path) -> dict[str, list[Any]]:
    """Return the columns of a CSV or Parquet file.

    A CSV file is read as UTF-8 with commas, semicolons or tabs between columns; its first line names them.

    Raises
    ------
    ConfigError
        When the file cannot be read, is empty, or a line has another number of columns than the first.
    """
    where = f"data-path = '{file}'"
    if file.suffix == ".parquet":
        parquet = import_extra("pyarrow.parquet", "tables")
        try:
            found: dict[str, list[Any]] = parquet.read_table(file).to_pydict()
        except (OSError, ValueError, TypeError) as error:  # ArrowInvalid is a ValueError
            raise ConfigError(f"{where} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
        return found
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            first = text.readline()
            text.seek(0)
            separator = max(",;\t", key=first.count)
            rows = [row for row in csv.reader(text, delimiter=separator) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{where} cannot be read as CSV: {getattr(error, 'strerror', None) or error}") from None
    if len(rows) < 2:
        raise ConfigError(f"{where} has no rows: it takes a line of names and one for each example")
    names = [name.strip() for name in rows[0]]
    if len({*names}) < len(names):
        name, _ = Counter(names).most_common(1)[0]
        raise ConfigError(f"{where} has two columns named '{name}': give each a name of its own in the first line")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise ConfigError(f"{where} has {len(row)} values in row {number}, and {len(names)} names in the first")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(names)}


def numbers(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return a column as numbers, NaN where a value is missing; None if some value is a word.

    Examples
    --------
    >>> numbers(["1", "?", 3])
    array([ 1., nan,  3.])
    >>> numbers(["red", 2]) is None
    True
    """
    try:
        return np.array([np.nan if missing(value) else float(value) for value in values])
    except (TypeError, ValueError):
        return None


def classes_of(values: Sequence[Any]) -> tuple[Tensor, tuple[str, ...]]:
    """Return the class of every value, int64 of shape [n], and the classes' names, in ascending order.

    Examples
    --------
    >>> classes_of(["10", "9", "10"])
    (tensor([1, 0, 1]), ('9', '10'))
    """
    found = numbers(values)
    column = np.array([str(value) for value in values]) if found is None else found
    known, classes = np.unique(column, return_inverse=True)
    if len(known) > max(MOST, len(column) // 2):
        raise ConfigError(
            f"the labels have {len(known)} different values in {len(column)} rows: classes have some examples each, "
            "and numbers are predicted with target=number"
        )
    names = [str(each) if found is None else f"{each:g}" for each in known]
    return torch.from_numpy(classes.astype(np.int64)), tuple(names)


def encode(columns: Columns, train: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Return the inputs of a model, float32 of shape [n, D], and what they are called.

    A column of numbers is standardised; a missing one becomes the mean, and a further input says that it was missing.
    Any other column has an input for each category, which is 1 or 0; that a value is missing is a category too. All is
    measured on the rows `train` (int64).

    Examples
    --------
    >>> encode({"size": [1, 3, None], "colour": ["red", "blue", "red"]}, torch.arange(3))[1]
    ('size', 'size is missing', 'colour = blue', 'colour = red')
    """
    inputs, names = [], []
    for name, values in columns.items():
        found = numbers(values)
        if found is None:
            words = ["missing" if missing(value) else str(value) for value in values]
            counts = Counter(words[i] for i in train.tolist())
            known = sorted(word for word, _ in counts.most_common(CATEGORIES))
            inputs += [np.array([word == each for word in words]) for each in known]
            names += [f"{name} = {each}" for each in known]
            if len(counts) > CATEGORIES:
                inputs.append(np.array([word not in known for word in words]))
                names.append(f"{name} is rarer")
            continue
        if not np.isfinite(found[~np.isnan(found)]).all():
            raise ConfigError(
                f"column '{name}' holds an infinite number: replace it, or leave it empty if it is missing"
            )
        absent, measured = np.isnan(found), found[train.numpy()]
        measured = measured[~np.isnan(measured)]
        mean, deviation = (measured.mean(), measured.std()) if len(measured) else (0.0, 1.0)
        inputs.append(np.where(absent, 0.0, (found - mean) / (deviation or 1.0)))
        names.append(name)
        if absent.any():
            inputs.append(absent)
            names.append(f"{name} is missing")
    return torch.from_numpy(np.stack(inputs, 1).astype(np.float32)), tuple(names)


def missing(value: Any) -> bool:
    """Return whether a value stands for a missing one.

    Examples
    --------
    >>> missing("NA"), missing(0)
    (True, False)
    """
    return value is None or str(value).strip().lower() in MISSING
