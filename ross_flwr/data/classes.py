"""Labels as class numbers: by their value, or by the name of their class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.config import ConfigError

__all__ = ["numbered", "renumbered"]

PLAIN = 1000
"""Whole numbers below are the numbers of their classes."""

MOST = 100
"""More classes than that have, on average, at least two examples each."""


def numbered(columns: Sequence[NDArray[Any]], name: str) -> tuple[list[Tensor], tuple[str, ...]]:
    """Return the class of every label, int64 of shape [n] for each column, and what the classes are called.

    Small whole numbers stay as they are, and nothing is returned as their names. Words, fractions and numbers from
    `PLAIN` on are classes in ascending order.

    Parameters
    ----------
    columns : sequence of array
        The labels of the training data and, if there are any, of the test data.
    name : str
        What to call them in an error.

    Raises
    ------
    ConfigError
        If they are neither numbers nor words, or too many differ.

    Examples
    --------
    >>> numbered([np.array(["dog", "cat"]), np.array(["dog"])], "labels")
    ([tensor([1, 0]), tensor([1])], ('cat', 'dog'))
    >>> numbered([np.array([90002, 90000])], "labels")
    ([tensor([1, 0])], ('90000', '90002'))
    """
    columns = [_readable(column, name) for column in columns]
    if len({column.dtype.kind == "U" for column in columns}) > 1:
        raise ConfigError(f"{name} holds words in one part of the data and numbers in the other: use the same")
    together = np.concatenate(columns)
    whole = together.dtype.kind == "i"
    if whole and (together.max(initial=0) < PLAIN or together.min(initial=0) < 0):  # negative ones are refused
        return [torch.from_numpy(column) for column in columns], ()
    values, classes = np.unique(together, return_inverse=True)
    if len(values) > max(MOST, len(together) // 2):
        raise ConfigError(
            f"{name} has {len(values)} different values in {len(together)} examples, from {values[0]} to {values[-1]}: "
            "labels name classes, of which each has some examples"
        )
    parts = np.split(classes.astype(np.int64), np.cumsum([len(column) for column in columns])[:-1])
    return [torch.from_numpy(part) for part in parts], tuple(map(str, values.tolist()))


def renumbered(labels: Tensor, classes: Sequence[str], known: Sequence[str], num_known: int) -> Tensor:
    """Return labels of `classes` as numbers of the classes that models `known`.

    Classes without names are called by their numbers. Numbers count names that are not numerals.

    Parameters
    ----------
    labels : Tensor
        int64 of shape [n].
    classes, known : sequence of str
        What the two kinds of classes are called; empty if they have only numbers.
    num_known : int
        How many classes the models know.

    Raises
    ------
    ConfigError
        If an example is of a class that the models do not know.

    Examples
    --------
    >>> renumbered(torch.tensor([0, 1, 1]), ["cat", "dog"], ["dog", "cat"], 2)
    tensor([1, 0, 0])
    """
    highest = 1 + max(int(labels.max()), num_known)
    if not (classes and known) and not any(map(_numeral, (*classes, *known))):
        classes = known = ()
    own, others = (list(names or map(str, range(highest))) for names in (classes, known[:num_known]))
    places = {name: i for i, name in enumerate(others[:num_known])}
    present = torch.unique(labels).tolist()
    if unknown := [own[i] for i in present if own[i] not in places]:
        some = ", ".join(list(places)[:10]) + (", …" if len(places) > 10 else "")
        raise ConfigError(f"examples have the class '{unknown[0]}', which the models do not know: they know {some}")
    lookup = torch.zeros(highest, dtype=torch.int64)
    for i in present:
        lookup[i] = places[own[i]]
    return lookup.to(labels.device)[labels]


def _numeral(name: str) -> bool:
    return name.replace(".", "", 1).isdecimal()


def _readable(column: NDArray[Any], name: str) -> NDArray[Any]:
    """Return labels as int64, float64 or text."""
    kind = column.dtype.kind
    if kind in "biu":
        return column.astype(np.int64)
    if kind == "f":
        if not np.isfinite(column).all():
            raise ConfigError(f"{name} holds NaN or infinity: every example needs a class")
        whole = column.astype(np.int64)
        return whole if (whole == column).all() else column.astype(np.float64)
    if kind == "U":
        return column
    raise ConfigError(f"{name} holds {column.dtype}: labels are whole numbers or words")
