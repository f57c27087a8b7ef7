"""Tuning before a comparison: every method gets the best of the same number of configurations on every topology.

All runs are tested on a part of the training data (``test-split = "tuning"``), with seeds that the comparison does not
have. The configurations of a method first run with one seed, and the better half of them with the others too. Where the
best one's learning rate is the last of its list, the next rate is tried, at most twice. In a comparison with a budget,
every run takes as many example passes as the budget's method, not tuned, takes in the ``rounds`` of ``[tuning]``.

``tuning.csv`` in the folder tells what was tried, and ``tuned.toml`` what was chosen: an experiment file that holds its
tables is not tuned again.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import ceil, inf, isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from ross_flwr.config import Scalar
from ross_flwr.files import fresh
from ross_flwr.runs.budgets import probe
from ross_flwr.runs.compare import Budget, Cell, Plan
from ross_flwr.runs.grids import RATE, Point, Tuning
from ross_flwr.runs.measures import measure_of

__all__ = ["tune", "without_tuning"]

COSTS = "costs"
"""What stands for a method in the place of the run that measures what the budget's method costs."""

WIDENINGS = 2
"""How often the list of learning rates grows at most."""

Work = Callable[[str, list[Cell]], None]
"""Runs cells, under a word that says what for."""


def tune(plan: Plan, root: Path, work: Work) -> Plan:
    """Return `plan` with keys chosen for every method and topology that has none yet, as its ``[tuning]`` says.

    Parameters
    ----------
    plan : Plan
        The comparison.
    root : Path
        The folder of its results.
    work : callable
        Runs cells.
    """
    if plan.tuning is None or not plan.untuned:
        return plan
    races = [_Race(plan, plan.tuning, *place, root) for place in plan.untuned]

    def run(word: str) -> None:
        cells = [cell for race in races for cell in race.cells()]
        work(word, cells)
        for cell in cells:
            cell.folder(root).forget_models()

    if plan.budget:
        work("costs", list({cell.place: cell for race in races for cell in race.probes(plan.budget)}.values()))
    run("tuning")
    for race in races:
        race.halve()
    run("finalists")
    for _ in range(WIDENINGS):
        widened = [race for race in races if race.widen()]
        if not widened:
            break
        run("wider")
    chosen = {(race.method, race.topology): race.best() for race in races}
    tuned = {**plan.tuned, **{place: point for place, point in chosen.items() if point}}
    _write_csv(races, root / "tuning.csv")
    _write_toml(tuned, root / "tuned.toml")
    return replace(plan, tuned=tuned)


def without_tuning(cells: Iterable[Cell], failed: Mapping[tuple[str, ...], str]) -> dict[tuple[str, ...], str]:
    """Return the cells whose method could not be tuned on their topology, because of the runs that `failed`."""
    reasons = {place[1:3]: reason for place, reason in failed.items()}
    found = {}
    for cell in cells:
        method, _, topology, _ = cell.place
        if reason := reasons.get((method, topology)) or reasons.get((COSTS, topology)):
            found[cell.place] = reason
    return found


class _Race:
    """The configurations of one method on one topology."""

    def __init__(self, plan: Plan, tuning: Tuning, method: str, topology: str, root: Path) -> None:
        self.plan = plan
        self.tuning = tuning
        self.method = method
        self.topology = topology
        self.root = root
        self.grid = tuning.grids[method]
        self.tried = self.grid.points(tuning.configurations)
        self.points = self.tried
        self.seeds: Sequence[int] = tuning.seeds[:1]

    def cells(self) -> list[Cell]:
        """Return the runs of the points that are still in the race."""
        return [cell for point in self.points for cell in self._cells(point, self.seeds)]

    def probes(self, budget: Budget) -> list[Cell]:
        """Return the runs that measure what a round costs, of the budget's method and of each point."""
        return [self._reference(budget), *map(self._probe, self.tried)]

    def halve(self) -> None:
        """Keep the better half of the points, for all seeds."""
        self.points = sorted(self.points, key=self._rank)[: ceil(len(self.points) / 2)]
        self.seeds = self.tuning.seeds

    def widen(self) -> bool:
        """Add the next learning rate where the best one is the last of its list; return whether it was."""
        best = self.best()
        beyond = self.grid.beyond(best) if best else None
        if beyond:
            self.grid, point = beyond
            self.points, self.tried = [*self.points, point], [*self.tried, point]
        return bool(beyond)

    def best(self) -> Point | None:
        """Return the point with the best mean, of equals that with the smaller learning rate; None for none.

        There is none where the method cannot run.
        """
        return min((each for each in self.points if isfinite(self._rank(each)[0])), key=self._rank, default=None)

    def rows(self) -> Iterable[dict[str, Any]]:
        """Yield what is known of each run."""
        best = self.best()
        for point in self.tried:
            for cell in self._cells(point, self.tuning.seeds):
                result = cell.result(self.root)
                if result is not None:
                    *_, scenario, seed = cell.place
                    place = {"method": self.method, "topology": self.topology, "scenario": scenario, "seed": seed}
                    refused = {"refused": result.get("refused", "")}
                    yield place | point | {"accuracy": _accuracy(result), "chosen": point == best} | refused

    def _cells(self, point: Point, seeds: Iterable[int]) -> list[Cell]:
        rounds = self._rounds(point)
        return [
            Cell(
                ("tuning", self.method, self.topology, _named(point), scenario, str(seed)),
                self._keys(self.method, scenario, seed, point) | {"num-rounds": rounds, "evaluate-every": rounds},
            )
            for scenario, seed in product(self.tuning.scenarios, seeds)
        ]

    def _keys(self, method: str, scenario: str, seed: int, point: Point) -> dict[str, Any]:
        keys = self.plan.keys_of(method, self.tuning.scenarios[scenario], self.topology, seed, point)
        return keys | {"test-split": "tuning"}

    def _rounds(self, point: Point) -> int:
        """Return how long a run is: as many rounds as its share of the work allows, or as ``[tuning]`` says."""
        if not self.plan.budget:
            return self.tuning.rounds
        cells = self._reference(self.plan.budget), self._probe(point)
        spent, cost = ((cell.result(self.root) or {}).get("work") for cell in cells)
        return ceil(self.tuning.rounds * spent / cost - 1e-9) if spent and cost else self.tuning.rounds

    def _reference(self, budget: Budget) -> Cell:
        return self._costs(("tuning", COSTS, self.topology), budget.method, {})

    def _probe(self, point: Point) -> Cell:
        rest = {key: value for key, value in point.items() if key != RATE}  # which costs the same at every value
        return self._costs(("tuning", self.method, self.topology, "costs", _named(rest) or "any"), self.method, rest)

    def _costs(self, place: tuple[str, ...], method: str, point: Point) -> Cell:
        return probe(
            place,
            self._keys(method, next(iter(self.tuning.scenarios)), self.tuning.seeds[0], point),
            self.tuning.rounds,
        )

    def _rank(self, point: Point) -> tuple[float, float]:
        """Return what points are sorted by: the mean over scenarios and seeds of what runs are judged by, best first.

        It is ∞ for a point that was refused, and where nobody was right.
        """
        worth = fmean(_worth(cell.result(self.root) or {}) for cell in self._cells(point, self.seeds))
        return -worth or inf, float(point.get(RATE, 0.0))


def _accuracy(result: Mapping[str, Any]) -> float | None:
    accuracy: float | None = (result.get("accuracy") or {}).get("mean")
    return accuracy


def _worth(result: Mapping[str, Any]) -> float:
    """Return what a run is judged by, more of it being better; the least there is where it was refused."""
    measure = measure_of(result)
    return measure.worth(measure.value(result)) if measure.spread(result) else -inf


def _named(point: Point) -> str:
    return ",".join(f"{key}={value}" for key, value in point.items())


def _write_csv(races: Iterable[_Race], file: Path) -> None:
    """Write a line per run."""
    rows = [row for race in races for row in race.rows()]
    ends = ("scenario", "seed", "accuracy", "chosen", "refused")
    keys = dict.fromkeys(key for row in rows for key in row if key not in ("method", "topology", *ends))
    with fresh(file).open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, ["method", "topology", *keys, *ends])
        writer.writeheader()
        writer.writerows(rows)


def _write_toml(tuned: Mapping[tuple[str, str], Mapping[str, Scalar]], file: Path) -> None:
    """Write the chosen keys as an experiment file takes them."""
    lines = ["# The keys chosen by tuning. An experiment file that holds these tables runs with them and is not tuned."]
    for method in dict.fromkeys(method for method, _ in tuned):
        lines.append(f"\n[tuned.{_toml(method)}]")
        for (name, topology), keys in tuned.items():
            if name == method:
                inside = ", ".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
                lines.append(f"{_toml(topology)} = {{ {inside} }}")
    fresh(file).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(name: str) -> str:
    """Return a name as TOML takes it as a key."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
