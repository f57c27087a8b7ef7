"""The tables of a report: each is a CSV file, and figures are drawn from nothing else."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from math import isfinite
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from ross_flwr.report.statistics import Difference, Score, differences, marks, our_method
from ross_flwr.runs.finished import OURS, Run
from ross_flwr.runs.measures import ACCURACY, Measure, measure_of

__all__ = [
    "AXES",
    "Row",
    "accuracies",
    "agents",
    "bands",
    "by",
    "compared",
    "differing",
    "drawn",
    "edges",
    "measured",
    "progress",
    "ratios",
    "scores",
    "times",
    "weights",
    "write_table",
]

Row = dict[str, Any]

AXES = {"rounds": "rounds", "work": "work (example passes)", "bytes": "sent (bytes)", "seconds": "time (s)"}
"""The costs against which progress is drawn: columns and their titles."""

FRAMES = 40
"""The most rounds of a run that are drawn one by one."""


def by(rows: Iterable[Row], *columns: str) -> Iterator[tuple[tuple[Any, ...], list[Row]]]:
    """Yield the values of `columns` and the rows that have them, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    yield from groups.items()


def measured(runs: Sequence[Run]) -> Measure:
    """Return what the runs are judged by."""
    return next((measure_of(run.summary) for run in runs if run.summary.get("loss")), ACCURACY)


def drawn(measure: Measure) -> tuple[str, ...]:
    """Return what is drawn against the costs."""
    return tuple(dict.fromkeys((measure.name, "loss", "consensus-distance")))


def progress(runs: Sequence[Run]) -> list[Row]:
    """Return a row per run and tested round: the cost so far, and how good the honest agents were."""
    rows, measure = [], measured(runs)
    for run in runs:
        costs = {name: accumulate([line[name] for line in run.lines]) for name in list(AXES)[1:]}
        for line, *spent in zip(run.lines, *costs.values(), strict=True):
            if line["accuracy"]:
                means = {name: (line[name] or {}).get("mean") for name in ("accuracy", "loss")}
                means[measure.name] = measure.spread(line).get("mean")
                distance = {"consensus-distance": line["consensus-distance"]}
                cost = dict(zip(costs, spent, strict=True))
                rows.append({**run.place, "rounds": line["round"], **cost, **means, **distance})
    return rows


def bands(rows: Sequence[Row], measure: Measure = ACCURACY) -> list[Row]:
    """Return mean, smallest and largest over seeds of what `progress` measured; empty where a seed has no number."""
    result = []
    for (scenario, topology, method), of_method in by(rows, "scenario", "topology", "method"):
        seeds = {row["seed"] for row in of_method}
        for (number,), group in by(sorted(of_method, key=itemgetter("rounds")), "rounds"):
            row: Row = {"scenario": scenario, "topology": topology, "method": method, "seeds": len(group)}
            row |= {"rounds": number} | {axis: fmean(each[axis] for each in group) for axis in list(AXES)[1:]}
            for name in drawn(measure):
                values = [each[name] for each in group]
                sound = None not in values and len(group) == len(seeds)
                for suffix, statistic in (("", fmean), ("-min", min), ("-max", max)):
                    row[name + suffix] = statistic(values) if sound else None
            result.append(row)
    return result


def scores(runs: Sequence[Run]) -> dict[tuple[str, ...], dict[str, Score]]:
    """Return the score of every method that ran, by scenario and topology."""
    found: dict[tuple[str, ...], dict[str, Score]] = {}
    for (scenario, topology, method), group in groupby(runs, lambda run: (run.scenario, run.topology, run.method)):
        if summaries := {run.seed: run.summary for run in group if run.summary}:
            found.setdefault((scenario, topology), {})[method] = Score.of(summaries)
    return found


def accuracies(runs: Sequence[Run]) -> list[Row]:
    """Return a row per scenario, topology and method: the last mean over seeds, and a run's work and bytes.

    They are empty where it was refused.
    """
    table, (ours, found), measure = scores(runs), compared(runs), measured(runs)
    signs = marks(table, found)
    costs = {name: _means(runs, name) for name in ("work", "bytes")}
    rows = []
    for scenario, topology, method in dict.fromkeys((run.scenario, run.topology, run.method) for run in runs):
        score = table.get((scenario, topology), {}).get(method)
        mark = signs.get((scenario, topology), "") if method == ours else ""
        rows.append(
            {
                "scenario": scenario,
                "topology": topology,
                "method": method,
                "seeds": len(score.by_seed) if score else 0,
                measure.name: score.mean if score else None,
                "half-width": score.half_width if score else None,
                "collapsed": score.collapsed if score else None,
                **{name: costs[name].get((scenario, topology, method)) for name in costs},
                "text": f"{score} {mark}".rstrip() if score else "refused",
            }
        )
    return rows


def _means(runs: Sequence[Run], name: str) -> dict[tuple[str, ...], float]:
    """Return the mean over seeds of an entry of the summaries, by scenario, topology and method."""
    found: dict[tuple[str, ...], list[float]] = {}
    for run in runs:
        if name in run.summary:
            found.setdefault((run.scenario, run.topology, run.method), []).append(run.summary[name])
    return {place: fmean(values) for place, values in found.items()}


def compared(runs: Sequence[Run]) -> tuple[str | None, list[Difference]]:
    """Return our method and its differences from every other method in every scenario and topology."""
    ours = our_method({run.method: run.summary["algorithm"] for run in runs if run.summary})
    return ours, differences(scores(runs), ours)


def differing(runs: Sequence[Run]) -> list[Row]:
    """Return a row per difference of our method from another one: its mean, its interval, p, and p corrected."""
    ours, found = compared(runs)
    return [
        {
            "scenario": each.place[0],
            "topology": each.place[1],
            "method": ours,
            "against": each.against,
            "seeds": each.seeds,
            "difference": each.mean,
            "half-width": each.half_width,
            "p": each.p,
            "p-holm": each.adjusted,
        }
        for each in found
    ]


def ratios(runs: Sequence[Run]) -> list[Row]:
    """Return our accuracy as a multiple of the best baseline's, and of the mean of all baselines.

    Where lower is better, it is theirs as a multiple of ours. A baseline is a method whose algorithm is neither
    ``ross-plus`` nor ``ross``. Means are over the seeds all have.
    """
    ours = {run.method for run in runs if run.summary and run.summary["algorithm"] in OURS}
    rows = []
    for (scenario, topology), found in scores(runs).items():
        baselines = {method: score.by_seed for method, score in found.items() if method not in ours}
        for method in (each for each in found if each in ours and baselines):
            own = found[method].by_seed
            common = set.intersection(*map(set, baselines.values())) & own.keys()
            means = {each: fmean(values[seed] for seed in common) for each, values in baselines.items() if common}
            if not common:
                continue
            measure, mean = found[method].measure, fmean(own[seed] for seed in common)
            best = max(means, key=lambda each: measure.worth(means[each]))
            for against, name, theirs in (
                ("best baseline", best, means[best]),
                ("mean baseline", "", fmean(means.values())),
            ):
                over, under = (mean, theirs) if measure.higher else (theirs, mean)
                rows.append(
                    {
                        "scenario": scenario,
                        "topology": topology,
                        "method": method,
                        "against": against,
                        "baseline": name,
                        "seeds": len(common),
                        "ratio": over / under if under and isfinite(over) else None,
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

    It is 0 where an agent has such neighbours and left all of them out; None if it has no such neighbour in the whole
    run, or a weight was not finite.
    """
    rows = []
    for run in runs:
        neighbours = _neighbours(run)
        for line, given in _weighed(run, neighbours):
            for i in (each for each in given if run.role(each) != "attacker"):
                row: Row = {**run.place, "rounds": line["round"], "agent": i, "own": given[i].get(i, 0.0)}
                for kind, poisoned in (("honest", False), ("poisoned", True)):
                    of_kind = [given[i].get(j, 0.0) for j in neighbours[i] if (j in run.poisoned) == poisoned]
                    row[kind] = sum(of_kind) if of_kind and None not in of_kind else None
                rows.append(row)
    return rows


def _neighbours(run: Run) -> dict[int, list[int]]:
    """Return the agents whose messages each agent got, or lacked, in some round."""
    found: dict[int, set[int]] = {}
    for line in run.lines:
        sent = (map(int, edge.split(">")) for edge in line["sent"])
        for i, j in (*((i, j) for j, i in sent), *line["missing"]):
            found.setdefault(i, set()).add(j)
    return {i: sorted(found[i] - {i}) for i in sorted(found)}


def _weighed(run: Run, agents: Iterable[int]) -> list[tuple[dict[str, Any], dict[int, dict[int, float | None]]]]:
    """Return every line, and what each of `agents` that reported gave to whom; nothing for a method without weights.

    A line says nothing of an agent that reported and gave nobody a weight.
    """
    if not any(line["weights"] for line in run.lines):
        return []
    return [
        (
            line,
            {
                i: {int(j): weight for j, weight in line["weights"].get(str(i), {}).items()}
                for i in agents
                if i not in line["absent"]
            },
        )
        for line in run.lines
    ]


def edges(runs: Sequence[Run]) -> list[Row]:
    """Return the weight that every edge carried, round by round, in the first seed of every method that weighs.

    A long run has 40 evenly spaced rounds. An edge that carried a message but no weighed gradient has the weight 0, and
    one to an agent that did not report has none.
    """
    rows = []
    for _, group in groupby(runs, lambda run: (run.scenario, run.topology, run.method)):
        run = next(group)
        weighed = _weighed(run, _neighbours(run))
        shown = {round(k * (len(weighed) - 1) / (FRAMES - 1)) for k in range(FRAMES)}
        for line, given in (weighed[k] for k in sorted(shown)) if weighed else ():
            for edge in line["sent"]:
                j, i = map(int, edge.split(">"))
                weight = given[i].get(j, 0.0) if i in given else None
                ends = {"agent": i, "role": run.role(i), "neighbour": j}
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
