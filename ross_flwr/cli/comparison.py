"""The command for comparisons."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
from rich.progress import TaskID

from ross_flwr.cli.completion import Hinting, completing
from ross_flwr.cli.keys import read, run_config
from ross_flwr.cli.screen import FOLDER, Course, console, quoted, stoppable
from ross_flwr.config import ConfigError, shown
from ross_flwr.cores import given_cores

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
@click.option(
    "--out",
    type=FOLDER,
    metavar="FOLDER",
    help="Where the results go [results/<experiment>, with --quick results/<experiment>-quick].",
)
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

    `ross-flwr list experiments` tells what ships.
    -c sets keys of all cells. It takes none that a table of the file sets: the file alone says what differs.

    A cell is an ordinary run in its own folder. To continue a comparison that was stopped, give the same command again:
    finished cells are not run again, and a stopped cell resumes. All methods share initial model and validation sets,
    and the stream of batches of each agent, of which a method takes as many as it has local steps. If the experiment
    tunes, each method runs with the best of equally many choices of keys on that topology, which tuned.toml holds. With
    a budget, methods are read at equal rounds, equal work and equal bytes.
    """
    folder = out or Path("results") / (Path(experiment).stem + ("-quick" if quick else ""))
    from ross_flwr.runs.cells import CellsFailedError, claim
    from ross_flwr.runs.folder import RunFolder

    chosen = {"methods": methods, "scenarios": scenarios, "topologies": topologies}
    plan = plan_of(experiment, read(run_config), quick, again, chosen)
    if RunFolder(folder).config.exists() or RunFolder(folder).beside():
        raise ConfigError(f"{folder} holds a run of `ross-flwr run`: name another folder by --out")
    claim(plan, folder)
    announce(plan, experiment, folder, quick)
    with stoppable(folder, "the same command continues the comparison"):
        plan, cells, failed = run_all(plan, folder, jobs or given_cores())
    tell(plan, cells, folder)
    if failed:
        raise CellsFailedError({cell.place: cell.failed for cell in cells if cell.failed} or failed)


Failures: TypeAlias = dict[tuple[str, ...], str]
"""Why cells could not run, by place."""


def run_all(plan: "Plan", folder: Path, jobs: int) -> "tuple[Plan, list[Cell], Failures]":
    """Tune, measure costs and run the cells, as far as that is not done; return the tuned plan, its cells, failures."""
    from ross_flwr.runs import budgets
    from ross_flwr.runs.cells import collecting_failures, run_cells
    from ross_flwr.runs.tuning import tune, without_tuning

    begun: list[TaskID] = []

    def work(failed: Failures, word: str, cells: "list[Cell]") -> None:
        done = {cell.place for cell in cells if cell.result(folder) is not None}
        name = course.next_part(word, goes_on=word == "wider")
        if len(done) < len(cells):
            begun.append(course.begin(name, len(cells), len(done)))
        with collecting_failures(failed):
            for cell in run_cells(cells, folder, jobs):
                if cell.place not in done:
                    course.add(begun[-1], "/".join(cell.place))

    untuned: Failures = {}
    costs = 1 if plan.budget else 0
    with Course((2 + costs if plan.untuned else 0) + costs + 1) as course:
        plan = tune(plan, folder, partial(work, untuned))
        cells = plan.cells()
        failed = without_tuning(cells, untuned)
        if plan.budget:
            work(failed, "costs", budgets.probes(cells, plan.budget))
            cells = budgets.sized(cells, plan.budget, folder, failed)
            budgets.write(cells, plan.budget, folder)
        work(failed, "cells", [cell for cell in cells if cell.place not in failed])
    if not begun:
        click.echo(f"Nothing is left to do: all {len(cells)} runs are done")
    return plan, [replace(cell, failed=failed.get(cell.place, "")) for cell in cells], failed


def announce(plan: "Plan", experiment: str, folder: Path, quick: bool) -> None:
    """Say what comes, before it begins."""
    click.echo(f"Comparing {experiment}")
    if quick:
        click.echo("A first impression: one seed, few rounds, no tuning, and at equal rounds, not at equal work")
    elif plan.untuned:
        click.echo(
            "Keys are tuned first, on all choices and then on the better half, the finalists; the cells come last"
        )
    click.echo(f"Results go to {folder}")


def plan_of(experiment: str, given: dict[str, Any], quick: bool, again: bool, chosen: dict[str, str]) -> "Plan":
    """Return the plan of an experiment with the keys that ``-c`` gave and only the names that were `chosen`."""
    from ross_flwr.runs.compare import read_plan

    if beside := given.pop("beside", ""):
        raise ConfigError(
            f"-c beside = {shown(beside)} has no effect in a comparison: its file names the methods in tables "
            "[methods.NAME], and --methods chooses among them"
        )
    plan = read_plan(experiment, given).only(**chosen)
    plan = plan.quick() if quick else plan
    plan = replace(plan, tuned={}) if again else plan
    plan.refuse_overruled()
    return plan


def tell(plan: "Plan", cells: "list[Cell]", folder: Path) -> None:
    """Show the results, write them, and say how to see more."""
    from ross_flwr.report.comparison import result_tables, write_csv, write_markdown
    from ross_flwr.runs.budgets import by_budget

    for title, read_there in by_budget(cells).items():
        if title:
            console.rule(title)
        for table in result_tables(plan, read_there, folder):
            console.print(table)
    click.echo(f"{write_csv(cells, folder)} has a line for each run")
    click.echo(f"{write_markdown(plan, cells, folder)} has all tables as Markdown")
    click.echo(f"To see curves and every agent: ross-flwr report {quoted(folder)}")
