"""What a comparison tunes: the table ``[tuning]`` of an experiment file.

::

    [tuning]
    seeds = [1000, 1001, 1002]          # none of the comparison's own
    scenarios = ["clean", "poisoned"]   # keys are chosen by the mean accuracy over these and the seeds
    configurations = 8                  # how many every method tries
    rounds = 20                         # with a [budget]: of its method; all others take as many example passes

    [tuning.grid]                       # a method takes the keys that it has and that its row does not set
    learning-rate = [0.03, 0.1, 0.3]
    local-steps = [1, 5]

    [tuning.own.balance]                # the grid of one row alone
    similarity = [0.3, 1.0, 3.0]
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from numpy.random import default_rng

from ross_flwr.config import ConfigError, Scalar, relevant, resolve
from ross_flwr.typed_json import MalformedError, reader_of

__all__ = ["RATE", "Grid", "Tuning", "read_tuning"]

RATE = "learning-rate"

WIDER = 3.0
"""The next learning rate beyond an edge of its list is this many times the last one, or the last one divided by it."""

Point = dict[str, Scalar]


@dataclass(frozen=True)
class Grid:
    """The keys that one method tunes: a list of values for each."""

    lists: Mapping[str, tuple[Scalar, ...]]

    def points(self, count: int) -> list[Point]:
        """Return `count` points, or all where there are fewer; always the same ones, and the same for equal grids.

        Each next point is the one whose values have been used least, so all values of a list are tried about as often.

        Examples
        --------
        >>> Grid({"learning-rate": (0.1, 0.3), "local-steps": (1, 5)}).points(2)
        [{'learning-rate': 0.3, 'local-steps': 1}, {'learning-rate': 0.1, 'local-steps': 5}]
        """
        rows = list(product(*self.lists.values()))
        left = [rows[k] for k in default_rng(0).permutation(len(rows))]
        used: Counter[tuple[int, Scalar]] = Counter()
        chosen: list[Point] = []
        while left and len(chosen) < count:
            least = min(left, key=lambda row: sum(used[pair] for pair in enumerate(row)))
            left.remove(least)
            used.update(enumerate(least))
            chosen.append(dict(zip(self.lists, least, strict=True)))
        return chosen

    def beyond(self, point: Point) -> "tuple[Grid, Point] | None":
        """Return the grid widened by a learning rate, and `point` with it, where its rate is the last of its list.

        Examples
        --------
        >>> grid = Grid({"learning-rate": (0.1, 0.3)})
        >>> grid.beyond({"learning-rate": 0.3, "local-steps": 5})[1]
        {'learning-rate': 0.9, 'local-steps': 5}
        """
        rates = self.lists.get(RATE, ())
        if len(rates) < 2 or point[RATE] not in (min(rates), max(rates)):
            return None
        rate = float(point[RATE])
        rate = float(f"{rate * WIDER if rate == max(rates) else rate / WIDER:.2g}")
        return Grid({**self.lists, RATE: (*rates, rate)}), point | {RATE: rate}


@dataclass(frozen=True)
class Tuning:
    """How the methods of a comparison are tuned.

    Attributes
    ----------
    seeds : tuple[int, ...]
        Seeds that the comparison does not have.
    scenarios : dict[str, dict]
        Keys by name; a configuration is judged by the mean accuracy over these and the seeds.
    configurations : int
        How many every method tries.
    rounds : int
        How long a run is; with a budget, how long a run of the budget's method is.
    grids : dict of str to Grid
        By method.
    """

    seeds: tuple[int, ...]
    scenarios: Mapping[str, dict[str, Any]]
    configurations: int
    rounds: int
    grids: Mapping[str, Grid]


KINDS: dict[str, Any] = {
    "seeds": list[int],
    "scenarios": list[str],
    "configurations": int,
    "rounds": int,
    "grid": dict[str, Any],
    "own": dict[str, dict[str, Any]],
}
"""The entries of ``[tuning]``."""


def read_tuning(raw: Mapping[str, Any]) -> Tuning:
    """Read the table ``[tuning]`` of an experiment file, all of which is `raw`.

    Raises
    ------
    ConfigError
        When an entry is missing, unknown or wrong, or a method has none of the keys.
    """
    table = raw["tuning"]
    for name, value in table.items():
        try:
            reader_of(KINDS[name])(value)
        except (KeyError, MalformedError):
            raise ConfigError(f"[tuning] has the entry {name} = {value}: it takes {', '.join(KINDS)}") from None
    for name in ("seeds", "scenarios", "configurations", "rounds"):
        if not table.get(name):
            raise ConfigError(f"[tuning] has no {name}")
    for name, names in (("scenarios", table["scenarios"]), ("methods", table.get("own", ()))):
        if unknown := [each for each in names if each not in raw[name]]:
            raise ConfigError(f"[tuning] names {unknown[0]}, which is not one of the {name}: {', '.join(raw[name])}")
    if common := set(table["seeds"]) & set(raw.get("seeds", [0])):
        raise ConfigError(f"[tuning] has the seed {min(common)}, which the comparison is run with: take other seeds")
    own = table.get("own", {})
    return Tuning(
        tuple(table["seeds"]),
        {name: raw["scenarios"][name] for name in table["scenarios"]},
        table["configurations"],
        table["rounds"],
        {method: _grid(method, keys, table.get("grid", {}), own) for method, keys in raw["methods"].items()},
    )


def _grid(method: str, row: Mapping[str, Any], common: Mapping[str, Any], own: Mapping[str, Any]) -> Grid:
    """Return the grid of a method whose row in the file is `row`."""
    lists = {}
    for key, values in {**common, **own.get(method, {})}.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"[tuning] has {key} = {values}: it takes a list of values to choose from")
        parsed = tuple(resolve({key: value}).values[key] for value in values)
        has = key in relevant(resolve({**row, key: parsed[0]}), row.get("algorithm", method))
        if key in own.get(method, {}) and not has:
            raise ConfigError(f"[tuning.own.{method}] has {key}, which is not a key of this method")
        if has and key not in row:
            lists[key] = parsed
    if not lists:
        raise ConfigError(f"[tuning] has no key that {method} could tune: give it a list in [tuning.own.{method}]")
    return Grid(lists)
