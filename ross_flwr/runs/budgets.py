"""Equal budgets: every cell of a comparison runs once, and is read where it has spent as much as a reference method.

A plan with a table ``[budget]`` (see `ross_flwr.runs.compare`) names the reference and its rounds R. A method is read

- at equal *rounds*: after R rounds;
- at equal *work*: after the first round in which it has taken as many example passes as the reference in R rounds. The
  forward and backward pass of one example is one, a forward pass alone a third. All that an agent computes to learn
  counts: gradients, local steps, class gradients, utilities, losses, scores. Tests do not;
- at equal *bytes*: after the first round in which its agents have sent as many bytes, as they are on the wire. A method
  that sends nothing is read at its end.

What a round costs is measured over R rounds of every method with its tuned keys, on every topology and with every
seed, in the first scenario without attackers, bad data or faults: ordinary cells under ``costs/``. (A few rounds
would not do: a game gets cheaper during a run, with every player that a screen leaves out.) The mean over seeds
decides, so a method is read after the same rounds in every scenario and with every seed, and an attack cannot move
them. Each cell is as long as its largest budget asks for, and is tested exactly where it is read. A budget ends with
a whole round, so it is overspent by less than a round. ``budgets.json`` keeps costs and rounds, and ``cells.csv`` has
what each run had spent where it was read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

from ross_flwr.config import ConfigError
from ross_flwr.files import fresh
from ross_flwr.runs.compare import Budget, Cell
from ross_flwr.runs.finished import BUDGETS, read_budgets
from ross_flwr.runs.options import RunOptions

__all__ = ["KINDS", "by_budget", "probe", "probes", "sized", "write"]

KINDS = ("rounds", "work", "bytes")
"""What methods may spend as much of as the reference, in the order of the tables."""

TESTS = 10
"""How often a cell is tested during its run, in addition to the rounds at which it is read."""

CLEAN = {"attackers": 0, "corruption": "none", "dropout": 0.0, "message-loss": 0.0, "stopped": 0, "slow": 0}


def probes(cells: Sequence[Cell], budget: Budget) -> list[Cell]:
    """Return the runs that measure what a round of every method costs on every topology, one for each seed."""
    found: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        method, _, topology, seed = cell.place
        place = ("costs", method, topology, "seeds", seed)
        found.setdefault(place, probe(place, cell.keys, budget.rounds))
    return list(found.values())


def probe(place: tuple[str, ...], keys: Mapping[str, Any], rounds: int) -> Cell:
    """Return the run in `place` that measures what `rounds` rounds with these keys cost."""
    return Cell(place, {**keys, **CLEAN, "num-rounds": rounds, "evaluate-every": rounds, "evaluate-at": ""})


def sized(
    cells: Sequence[Cell], budget: Budget, root: Path, failed: Mapping[tuple[str, ...], str] | None = None
) -> list[Cell]:
    """Return the cells at the length that the largest of their budgets asks for, tested wherever they are read.

    Cells of a method whose costs are not known, because it is refused or all `probes` of it `failed`, stay as they are.

    Raises
    ------
    ConfigError
        When the reference method cannot run on a topology.
    """
    costs = _costs(cells, budget, root)
    result = []
    for cell in cells:
        method, _, topology, _ = cell.place
        cost, reference = costs[method, topology], costs[budget.method, topology]
        if "refused" in reference:
            why = [reason for place, reason in (failed or {}).items() if place[1:3] == (budget.method, topology)]
            raise ConfigError(
                f"the method of [budget] cannot run on topology {topology}: {(why or [reference['refused']])[0]}"
            )
        result.append(cell if "refused" in cost else _sized(cell, _reads(cost, reference, budget.rounds)))
    return result


def _costs(cells: Sequence[Cell], budget: Budget, root: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return what R rounds cost by method and topology: the mean over seeds, or why the method cannot run there.

    Seeds with which the run that measures it failed are left out.
    """
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for measured in probes(cells, budget):
        result = measured.result(root)
        found.setdefault(measured.place[1:3], []).extend([result] if result else [])
    return {place: _mean(results) for place, results in found.items()}


def _mean(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ran = [each for each in results if "refused" not in each]
    if ran:
        return {kind: fmean(each[kind] for each in ran) for kind in KINDS[1:]}
    return results[0] if results else {"refused": "no run there could measure what it costs"}


def _reads(cost: dict[str, Any], reference: dict[str, Any], rounds: int) -> dict[str, int]:
    """Return after how many rounds each budget is spent."""
    kinds = [kind for kind in KINDS[1:] if cost[kind]]
    # The last digits of a quotient must not cost a round.
    spent = {kind: ceil(rounds * reference[kind] / cost[kind] - 1e-9) for kind in kinds}
    longest = max(rounds, *spent.values())
    return {"rounds": rounds} | {kind: spent.get(kind, longest) for kind in KINDS[1:]}


def _sized(cell: Cell, reads: dict[str, int]) -> Cell:
    longest = max(reads.values())
    schedule = {
        "num-rounds": longest,
        "evaluate-every": ceil(longest / TESTS),
        "evaluate-at": ",".join(map(str, sorted(set(reads.values())))),
    }
    return replace(cell, keys=cell.keys | schedule, reads=reads)


def by_budget(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Return the cells as they are read at each budget, by its title; under no title where there are none."""
    if not any(cell.reads for cell in cells):
        return {"": list(cells)}
    return {f"equal {kind}": [replace(cell, budget=kind) for cell in cells] for kind in KINDS}


def write(cells: Sequence[Cell], budget: Budget, root: Path) -> None:
    """Write ``budgets.json``: for every method and topology, what a round costs an agent and where the method is read.

    What the file tells of other methods and topologies stays.
    """
    methods = read_budgets(root)
    costs = _costs(cells, budget, root)
    for cell in (each for each in cells if each.reads):
        method, _, topology, _ = cell.place
        rounds = budget.rounds * cell.config.part(RunOptions).num_agents
        per_round = {kind: costs[method, topology][kind] / rounds for kind in KINDS[1:]}
        methods.setdefault(method, {})[topology] = {"read-at": dict(cell.reads), **per_round}
    content = {"method": budget.method, "rounds": budget.rounds, "methods": methods}
    fresh(root / BUDGETS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
