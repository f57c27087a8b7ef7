"""The command for comparisons."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ross_flwr.cli.completion import Hinting, completing, known
from ross_flwr.cli.keys import read, run_config
from ross_flwr.cli.screen import FOLDER, console, quoted, stoppable
from ross_flwr.config import ConfigError
from ross_flwr.files import home

if TYPE_CHECKING:
    from ross_flwr.runs.compare import Cell, Plan

__all__ = ["compare"]


@click.command(
    cls=Hinting,
    short_help="Run methods × scenarios × topologies × seeds, and tabulate.",
    epilog="""\b
Examples:
  ross-flwr compare digits --out results/digits
  ross-flwr compare mnist -c data-path=FOLDER --quick
  ross-flwr compare my.toml --methods ross,dpsgd --jobs 4""",
)
@click.argument("experiment", shell_complete=completing("experiments"))
@run_config
@click.option("--out", type=FOLDER, metavar="FOLDER", help="Where the results go [results/<experiment>].")
@click.option("--methods", default="", metavar="A,B", help="Only these rows of the experiment.")
@click.option("--scenarios", default="", metavar="A,B", help="Only these scenarios.")
@click.option("--topologies", default="", metavar="A,B", help="Only these topologies.")
@click.option("--quick", is_flag=True, help="One seed, 20 rounds, no tuning: a first impression.")
@click.option("--tune", "again", is_flag=True, help="Tune again what the experiment has tuned.")
@click.option("--jobs", type=click.IntRange(1), help="Runs at once [one per core].")
def compare(
    experiment: str,
    run_config: Sequence[str],
    out: Path | None,
    methods: str,
    scenarios: str,
    topologies: str,
    quick: bool,
    again: bool,
    jobs: int | None,
) -> None:
    """Run every cell of EXPERIMENT, your own TOML file or one that ships, and show accuracy by method and topology.

    A cell is an ordinary run in its own folder. To continue a comparison that was stopped, give the same command again:
    finished cells are not run again, and a stopped cell resumes. All methods share initial model and validation sets,
    and the stream of batches of each agent, of which a method takes as many as it has local steps. If the experiment
    tunes, each method runs with the best of equally many choices of keys on that topology, which tuned.toml holds. With
    a budget, methods are read at equal rounds, equal work and equal bytes.
    """
    folder = out or Path("results") / (Path(experiment).stem + ("-quick" if quick else ""))
    if experiment in known("experiments") or home(experiment).is_file():  # others are refused below
        click.echo(f"Comparing {experiment}")
    from ross_flwr.runs import budgets
    from ross_flwr.runs import compare as comparison
    from ross_flwr.runs.cells import CellsFailedError, collecting_failures, run_cells
    from ross_flwr.runs.folder import RunFolder
    from ross_flwr.runs.tuning import tune, without_tuning

    given = {key: value for key, value in read(run_config).items() if key != "beside"}  # the plan names the methods
    plan = comparison.read_plan(experiment, given)
    plan = plan.only(methods=methods, scenarios=scenarios, topologies=topologies)
    plan = plan.quick() if quick else plan
    plan = replace(plan, tuned={}) if again else plan
    if RunFolder(folder).config.exists() or RunFolder(folder).beside():
        raise ConfigError(f"{folder} holds a run of `ross-flwr run`: name another folder by --out")
    click.echo(f"Results go to {folder}")
    jobs = jobs or os.cpu_count() or 1
    columns = TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    hint = "the same command continues the comparison"
    with stoppable(folder, hint), Progress(*columns, TextColumn("{task.fields[last]}"), console=console) as progress:

        def work(failed: dict[tuple[str, ...], str], description: str, cells: list[comparison.Cell]) -> None:
            task = progress.add_task(description, total=len(cells), last="")
            with collecting_failures(failed):
                for cell in run_cells(cells, folder, jobs):
                    progress.update(task, advance=1, last=" ".join(cell.place[:3]))

        untuned: dict[tuple[str, ...], str] = {}
        plan = tune(plan, folder, partial(work, untuned))
        cells = plan.cells()
        failed = without_tuning(cells, untuned)
        if plan.budget:
            work(failed, "costs", budgets.probes(cells, plan.budget))
            cells = budgets.sized(cells, plan.budget, folder, failed)
            budgets.write(cells, plan.budget, folder)
        work(failed, "cells", [cell for cell in cells if cell.place not in failed])
    cells = [replace(cell, failed=failed.get(cell.place, "")) for cell in cells]
    tell(plan, cells, folder)
    if failed:
        raise CellsFailedError({cell.place: cell.failed for cell in cells if cell.failed} or failed)


def tell(plan: "Plan", cells: "list[Cell]", folder: Path) -> None:
    """Show the results, write them, and say how to see more."""
    from ross_flwr.report.comparison import result_tables, write_csv, write_markdown
    from ross_flwr.runs.budgets import by_budget

    for title, read_there in by_budget(cells).items():
        if title:
            console.rule(title)
        for table in result_tables(plan, read_there, folder):
            console.print(table)
    click.echo(f"A line per run is in {write_csv(cells, folder)}")
    click.echo(f"All tables in one, as Markdown, is {write_markdown(plan, cells, folder)}")
    click.echo(f"To see curves and every agent: ross-flwr report {quoted(folder)}")
