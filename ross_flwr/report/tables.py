"""The tables of a report: each is a CSV file, and figures are drawn from nothing else."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ross_flwr.extras import import_extra
from ross_flwr.runs.finished import OURS, Run

__all__ = [
    "AXES",
    "BAND",
    "Row",
    "accuracies",
    "agents",
    "bands",
    "by",
    "edges",
    "progress",
    "ratios",
    "times",
    "weights",
    "write_table",
]

Row = dict[str, Any]

AXES = {"rounds": "rounds", "work": "example passes", "bytes": "bytes sent", "seconds": "seconds"}
"""What progress is measured against: columns and their titles."""

BAND = ("accuracy", "loss", "consensus-distance")
"""What is measured against it."""

FRAMES = 40
"""The most rounds of a run that are drawn one by one."""


def by(rows: Iterable[Row], *columns: str) -> Iterator[tuple[tuple[Any, ...], list[Row]]]:
    """Yield the values of `columns` and the rows that have them, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    yield from groups.items()


def progress(runs: Sequence[Run]) -> list[Row]:
    """Return a row per run and tested round: the cost so far, and how good the honest agents were."""
    rows = []
    for run in runs:
        costs = {name: accumulate([line[name] for line in run.lines]) for name in list(AXES)[1:]}
        for line, *spent in zip(run.lines, *costs.values(), strict=True):
            if line["accuracy"]:
                measured = {name: (line[name] or {}).get("mean") for name in ("accuracy", "loss")}
                distance = {"consensus-distance": line["consensus-distance"]}
                cost = dict(zip(costs, spent, strict=True))
                rows.append({**run.place, "rounds": line["round"], **cost, **measured, **distance})
    return rows


def bands(rows: Sequence[Row]) -> list[Row]:
    """Return mean, smallest and largest over seeds of what `progress` measured; empty where a seed has no number."""
    result = []
    for (scenario, topology, method, number), group in by(rows, "scenario", "topology", "method", "rounds"):
        row: Row = {"scenario": scenario, "topology": topology, "method": method, "seeds": len(group)}
        row |= {"rounds": number} | {axis: fmean(each[axis] for each in group) for axis in list(AXES)[1:]}
        for name in BAND:
            values = [each[name] for each in group]
            sound = None not in values
            for suffix, statistic in (("", fmean), ("-min", min), ("-max", max)):
                row[name + suffix] = statistic(values) if sound else None
        result.append(row)
    return result


def accuracies(runs: Sequence[Run]) -> list[Row]:
    """Return a row per scenario, topology and method: mean and standard deviation over seeds of the last accuracy."""
    rows = []
    for (scenario, topology, method), group in groupby(runs, lambda run: (run.scenario, run.topology, run.method)):
        values = [_final(run) for run in group if run.summary]
        rows.append(
            {
                "scenario": scenario,
                "topology": topology,
                "method": method,
                "seeds": len(values),
                "accuracy": fmean(values) if values else None,
                "deviation": stdev(values) if len(values) > 1 else None,
            }
        )
    return rows


def ratios(runs: Sequence[Run]) -> list[Row]:
    """Return our accuracy as a multiple of a baseline's: of each baseline, of the best, and of the mean of all.

    A baseline is a method whose algorithm is neither ``ross-plus`` nor ``ross``. ``p`` is that of a two-sided paired
    t-test over the seeds that both have, uncorrected for the number of comparisons; it is empty with one seed or where
    all are equal.
    """
    rows = []
    for (scenario, topology), cell in groupby(
        (run for run in runs if run.summary), lambda run: (run.scenario, run.topology)
    ):
        found: dict[str, dict[int, float]] = {}
        ours = set()
        for run in cell:
            found.setdefault(run.method, {})[run.seed] = _final(run)
            if run.summary["algorithm"] in OURS:
                ours.add(run.method)
        baselines = {method: values for method, values in found.items() if method not in ours}
        if not baselines:
            continue
        seeds = set.intersection(*(set(values) for values in baselines.values()))
        best = max(baselines, key=lambda method: fmean(baselines[method].values()))
        mean = {seed: fmean(values[seed] for values in baselines.values()) for seed in seeds}
        rivals = [(method, method, values) for method, values in baselines.items()]
        rivals += [("best baseline", best, baselines[best]), ("mean baseline", "", mean)]
        for method in (each for each in found if each in ours):
            for against, name, values in rivals:
                common = sorted(found[method].keys() & values.keys())
                own, theirs = [found[method][seed] for seed in common], [values[seed] for seed in common]
                if common:
                    rows.append(
                        {
                            "scenario": scenario,
                            "topology": topology,
                            "method": method,
                            "against": against,
                            "baseline": name,
                            "seeds": len(common),
                            "ratio": sum(own) / sum(theirs) if sum(theirs) else None,
                            "p": _paired(own, theirs),
                        }
                    )
    return rows


def agents(runs: Sequence[Run]) -> list[Row]:
    """Return the accuracy of every agent of every run in its last test."""
    rows = []
    for run in runs:
        tested = [line["agents"] for line in run.lines if line["agents"]]
        for i, accuracy in tested[-1].items() if tested else ():
            rows.append({**run.place, "agent": int(i), "role": run.role(int(i)), "accuracy": accuracy})
    return rows


def weights(runs: Sequence[Run]) -> list[Row]:
    """Return the weight that honest agents gave to themselves, to honest and to poisoned neighbours in every round.

    None if an agent has no such neighbour, or a weight was not finite.
    """
    rows = []
    for run in runs:
        for line in run.lines:
            for i, given in line["weights"].items():
                if run.role(int(i)) == "attacker":
                    continue
                row: Row = {**run.place, "rounds": line["round"], "agent": int(i), "own": given.get(i, 0.0)}
                for kind, poisoned in (("honest", False), ("poisoned", True)):
                    of_kind = [w for j, w in given.items() if j != i and (int(j) in run.poisoned) == poisoned]
                    row[kind] = sum(of_kind) if of_kind and None not in of_kind else None
                rows.append(row)
    return rows


def edges(runs: Sequence[Run]) -> list[Row]:
    """Return the weight that every edge carried, round by round, in the first seed of every method that weighs.

    A long run has 40 evenly spaced rounds. An edge that carried a message but no weighed gradient has no weight.
    """
    rows = []
    for _, group in groupby(runs, lambda run: (run.scenario, run.topology, run.method)):
        run = next(group)
        weighing = [line for line in run.lines if line["weights"]]
        shown = {round(k * (len(weighing) - 1) / (FRAMES - 1)) for k in range(FRAMES)}
        for line in (weighing[k] for k in sorted(shown)) if weighing else ():
            for edge in line["sent"]:
                j, i = edge.split(">")
                weight = line["weights"].get(i, {}).get(j)
                ends = {"agent": int(i), "role": run.role(int(i)), "neighbour": int(j)}
                rows.append({**run.place, "rounds": line["round"], **ends, "weight": weight})
    return rows


def times(runs: Sequence[Run]) -> list[Row]:
    """Return seconds per round, mean over rounds and seeds: in gradients, utilities and exchange, and in all the rest.

    The exchange is delivery inside a process; through the relay, what Flower takes is in the rest.
    """
    timed = (run for run in runs if run.lines and "time" in run.lines[0])
    rows = []
    for (scenario, topology, method), group in groupby(timed, lambda run: (run.scenario, run.topology, run.method)):
        lines = [line for run in group for line in run.lines]
        spent = {kind: fmean(line["time"][kind] for line in lines) for kind in lines[0]["time"]}
        rest = max(0.0, fmean(line["seconds"] for line in lines) - sum(spent.values()))
        rows.append({"scenario": scenario, "topology": topology, "method": method, **spent, "rest": rest})
    return rows


def write_table(rows: Sequence[Row], file: Path) -> None:
    """Write rows as CSV under the names of their columns; None is empty."""
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _final(run: Run) -> float:
    return float((run.summary["accuracy"] or {}).get("mean") or 0.0)


def _paired(own: Sequence[float], theirs: Sequence[float]) -> float | None:
    if len(own) < 2 or list(own) == list(theirs):
        return None
    return float(import_extra("scipy.stats", "plots").ttest_rel(own, theirs).pvalue)
