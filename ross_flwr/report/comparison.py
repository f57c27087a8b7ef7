"""The results of a comparison as tables: on the terminal, as Markdown and as CSV."""

import csv
from collections import Counter
from itertools import chain, product
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table

from ross_flwr.files import fresh
from ross_flwr.report.statistics import Score, differences, legend, marks, our_method
from ross_flwr.report.table import Fitting, markdown
from ross_flwr.runs.budgets import by_budget
from ross_flwr.runs.compare import Cell, Plan
from ross_flwr.runs.measures import ACCURACY

__all__ = ["result_tables", "write_csv", "write_markdown"]


def result_tables(plan: Plan, cells: list[Cell], root: Path) -> list[RenderableType]:
    """Return a table per scenario, methods by topologies, and what their numbers and marks mean."""
    results = Results(plan, cells, root)
    tables: list[RenderableType] = []
    for scenario in plan.scenarios:
        table = Table(title=scenario, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("method", no_wrap=True)
        for topology in plan.topologies:
            table.add_column(topology, justify="right")
        for method in plan.methods:
            table.add_row(method, *(results.text(method, (scenario, topology)) for topology in plan.topologies))
        tables.append(Fitting(table))
    return [*tables, "\n".join(results.legend())]


def write_markdown(plan: Plan, cells: list[Cell], root: Path) -> Path:
    """Write all scenarios as one table to ``table.md``, or as one for each budget, and return its path.

    Rows are scenarios on topologies and columns methods, or the other way round if there are more methods. The best of
    each place is bold.
    """
    tables = [
        (f"## {title}\n\n" if title else "") + _markdown(plan, read, root) for title, read in by_budget(cells).items()
    ]
    path = fresh(root / "table.md")
    path.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    return path


def _markdown(plan: Plan, cells: list[Cell], root: Path) -> str:
    results = Results(plan, cells, root)
    places = list(product(plan.scenarios, plan.topologies))
    several = [len(part) > 1 for part in (plan.scenarios, plan.topologies)]
    rows = [["", *plan.methods]]
    for place in places:
        label = ", ".join(name for name, told in zip(place, several, strict=True) if told)
        texts = {method: results.text(method, place) for method in plan.methods}
        if best := results.best(place):
            texts[best] = f"**{texts[best]}**"
        rows.append([label, *texts.values()])
    if len(plan.methods) > len(places):
        rows = [list(column) for column in zip(*rows, strict=True)]
    return "\n\n".join([markdown(rows), " ".join(results.legend())])


class Results:
    """What the cells of a plan that are done gave: scores, and how our method differs from the others."""

    def __init__(self, plan: Plan, cells: list[Cell], root: Path) -> None:
        found: dict[tuple[str, ...], dict[str, dict[int, dict[str, Any]]]] = {}
        self.refused: set[tuple[str, ...]] = set()
        self.failed: Counter[tuple[str, ...]] = Counter()
        for cell in cells:
            method, scenario, topology, seed = cell.place
            result = cell.result(root) or {}
            if "refused" in result:
                self.refused.add((method, scenario, topology))
            elif "failed" in result:
                self.failed[method, scenario, topology] += 1
            elif result:
                found.setdefault((scenario, topology), {}).setdefault(method, {})[int(seed)] = result
        self.scores = {
            place: {method: Score.of(summaries) for method, summaries in methods.items()}
            for place, methods in found.items()
        }
        self.ours = our_method({name: keys.get("algorithm", name) for name, keys in plan.methods.items()})
        self.differences = differences(self.scores, self.ours)
        self.marks = marks(self.scores, self.differences)

    def text(self, method: str, place: tuple[str, ...]) -> str:
        """Return what stands in the table for `method` in `place`."""
        score = self.scores.get(place, {}).get(method)
        failed = self.failed[method, *place]
        if score is None:
            return "refused" if (method, *place) in self.refused else "failed" if failed else "…"
        mark = self.marks.get(place, "") if method == self.ours else ""
        return " ".join(filter(None, [str(score), mark, f"({failed} failed)" if failed else ""]))

    def best(self, place: tuple[str, ...]) -> str | None:
        """Return the method with the best mean in `place`; None where nothing is done."""
        scores = self.scores.get(place, {})
        return max(scores, key=lambda method: scores[method].worth, default=None)

    def legend(self) -> list[str]:
        """Return what numbers and marks mean."""
        measures = (score.measure for scores in self.scores.values() for score in scores.values())
        return legend(self.ours, self.differences, next(measures, ACCURACY))


COLUMNS = ("method", "scenario", "topology", "seed", "budget", "learning-rate", "rounds")
TOTALS = ("consensus-distance", "gradients", "utilities", "work", "bytes", "seconds")
REASONS = ("refused", "failed")


def write_csv(cells: list[Cell], root: Path) -> Path:
    """Write a line per cell and budget to ``cells.csv``, or why it was refused or failed, and return the path."""
    path = fresh(root / "cells.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        results = ((cell, cell.result(root)) for cell in chain(*by_budget(cells).values()))
        done = [(cell, result) for cell, result in results if result is not None]
        metrics = list(dict.fromkeys(name for _, result in done for name in result.get("metrics") or {}))
        writer.writerow([*COLUMNS, "accuracy", "accuracy-min", "loss", *metrics, *TOTALS, *REASONS])
        for cell, result in done:
            accuracy, loss = result.get("accuracy") or {}, result.get("loss") or {}
            measured = (((result.get("metrics") or {}).get(name) or {}).get("mean") for name in metrics)
            numbers = [accuracy.get("mean"), accuracy.get("min"), loss.get("mean"), *measured, *map(result.get, TOTALS)]
            key = [*cell.place, cell.budget, cell.learning_rate, result.get("rounds")]
            writer.writerow([*key, *numbers, *(result.get(name, "") for name in REASONS)])
    return path
