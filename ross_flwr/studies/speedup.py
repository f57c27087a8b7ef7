"""Whether more agents need fewer rounds: ``python -m ross_flwr.studies.speedup FOLDER --loss 0.6``."""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from ross_flwr.config import ConfigError
from ross_flwr.report.statistics import half_width
from ross_flwr.report.table import markdown
from ross_flwr.runs.finished import Run, find_runs

__all__ = ["main", "rounds_to", "slope"]


def rounds_to(run: Run, loss: float) -> int | None:
    """Return after how many rounds a test found the mean loss of the agents at `loss` or below; None if none did."""
    tested = ((line["round"], line["loss"]["mean"]) for line in run.lines if line["loss"])
    return next((number for number, found in tested if found is not None and found <= loss), None)


def slope(needed: Mapping[int, int]) -> float:
    """Return b of the least-squares fit log T = a + b log N, T being rounds by agents N; −1 is linear speed-up.

    Examples
    --------
    >>> round(slope({4: 120, 8: 60, 16: 30}), 3)
    -1.0
    """
    return float(np.polyfit(np.log(list(needed)), np.log(list(needed.values())), 1)[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print rounds to the loss by scenario, method and number of agents, and the slope with its 95 % interval."""
    parser = ArgumentParser(prog="python -m ross_flwr.studies.speedup", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of `ross-flwr compare speedup`")
    parser.add_argument("--loss", type=float, required=True, help="the target: mean test loss over agents")
    options = parser.parse_args(arguments)
    found: dict[tuple[str, str], dict[int, dict[int, int | None]]] = {}
    for run in (run for run in find_runs(options.folder) if run.lines):
        by_seed = found.setdefault((run.scenario, run.method), {}).setdefault(run.seed, {})
        by_seed[len(run.lines[-1]["agents"])] = rounds_to(run, options.loss)
    sizes = sorted({size for seeds in found.values() for needed in seeds.values() for size in needed})
    rows = [["", *(f"N = {size}" for size in sizes), "slope"]]
    for place, seeds in found.items():
        columns = [[needed[size] for needed in seeds.values() if size in needed] for size in sizes]
        rows.append([", ".join(place), *map(_mean, columns), _fitted(list(seeds.values()))])
    print(markdown(rows))


def _mean(needed: Sequence[int | None]) -> str:
    """Return the mean over seeds, or how many seeds got there where not all did; a dash where nothing was run."""
    reached = [number for number in needed if number is not None]
    if len(reached) < len(needed):
        return f"{len(reached)} of {len(needed)} seeds"
    return f"{fmean(reached):.0f}" if reached else "–"


def _fitted(seeds: Sequence[Mapping[int, int | None]]) -> str:
    """Return the mean slope over seeds ± half of Student's 95 % interval; a dash if a run did not get there."""
    fits = []
    for needed in seeds:
        reached = {size: number for size, number in needed.items() if number is not None}
        if len(reached) < len(needed) or len(reached) < 2:
            return "–"
        fits.append(slope(reached))
    spread = half_width(fits)
    return f"{fmean(fits):.2f}" + (f" ± {spread:.2f}" if spread is not None else "")


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"ross-flwr: {error}")
