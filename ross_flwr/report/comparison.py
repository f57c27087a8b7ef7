"""The results of a comparison as tables: on the terminal, as Markdown and as CSV."""

import csv
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich import box
from rich.table import Table

from ross_flwr.report.table import markdown, percent
from ross_flwr.runs.compare import Cell, Plan

__all__ = ["result_tables", "write_csv", "write_markdown"]


def result_tables(plan: Plan, cells: list[Cell], root: Path) -> list[Table]:
    """Return a table per scenario: methods by topologies, mean accuracy and its standard deviation over seeds."""
    found = _found(cells, root)
    tables = []
    for scenario in plan.scenarios:
        table = Table(title=scenario, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("method", no_wrap=True)
        for topology in plan.topologies:
            table.add_column(topology, justify="right", no_wrap=True)
        for method in plan.methods:
            texts = [_shown(found.get((method, scenario, topology), [])) for topology in plan.topologies]
            table.add_row(method, *texts)
        tables.append(table)
    return tables


def write_markdown(plan: Plan, cells: list[Cell], root: Path) -> Path:
    """Write all scenarios as one table to ``table.md``, and return its path.

    Rows are scenarios on topologies and columns methods, or the other way round if there are more methods.
    """
    found = _found(cells, root)
    places = list(product(plan.scenarios, plan.topologies))
    several = [len(part) > 1 for part in (plan.scenarios, plan.topologies)]
    rows = [["", *plan.methods]]
    for place in places:
        label = ", ".join(name for name, told in zip(place, several, strict=True) if told)
        rows.append([label, *(_shown(found.get((method, *place), [])) for method in plan.methods)])
    if len(plan.methods) > len(places):
        rows = [list(column) for column in zip(*rows, strict=True)]
    path = root / "table.md"
    path.write_text(markdown(rows) + "\n", encoding="utf-8")
    return path


def _found(cells: list[Cell], root: Path) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Return the finished results, by method, scenario and topology."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        result = cell.result(root)
        if result is not None:
            found.setdefault(cell.place[:3], []).append(result)
    return found


def _shown(results: list[dict[str, Any]]) -> str:
    if not results:
        return "…"
    if "refused" in results[0]:
        return "refused"
    accuracies = [(result["accuracy"] or {}).get("mean") or 0.0 for result in results]
    spread = f" ± {100 * stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    return percent(fmean(accuracies)) + spread


COLUMNS = ("method", "scenario", "topology", "seed", "learning-rate", "accuracy", "accuracy-min", "loss")
TOTALS = ("consensus-distance", "rounds", "gradients", "utilities", "work", "bytes", "seconds")


def write_csv(cells: list[Cell], root: Path) -> Path:
    """Write a line per finished cell to ``cells.csv``, the reason at the end if it was refused; return the path."""
    path = root / "cells.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *TOTALS, "refused"])
        for cell in cells:
            result = cell.result(root)
            if result is None:
                continue
            accuracy, loss = result.get("accuracy") or {}, result.get("loss") or {}
            numbers = [accuracy.get("mean"), accuracy.get("min"), loss.get("mean"), *map(result.get, TOTALS)]
            writer.writerow([*cell.place, cell.learning_rate, *numbers, result.get("refused", "")])
    return path
