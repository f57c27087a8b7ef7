"""The commands for the results of runs: reports, and models and their quality."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ross_flwr.cli.completion import known
from ross_flwr.cli.keys import read, run_config
from ross_flwr.cli.screen import FILE, FOLDER, Course, console
from ross_flwr.runs.ended import require_ended

if TYPE_CHECKING:
    from ross_flwr.report.report import Picture

__all__ = ["evaluate", "export", "report"]

method = click.option("--method", default="", metavar="NAME", help="The run of this method [the main one].")


@click.command(
    short_help="Show results as a page, pictures and tables.",
    epilog="\b\nExample:\n  ross-flwr report results/digits",
)
@click.argument("folder", type=FOLDER)
def report(folder: Path) -> None:
    """Write report.html, one self-contained page, into FOLDER, the results of a run or a comparison.

    The folder report in FOLDER gets the same figures as PNG, and their numbers as CSV.
    """
    require_ended(folder)
    click.echo(f"Reading the results in {folder}")
    from ross_flwr.report.report import write_report

    click.echo(f"The report is {write_report(folder, watched)}")


def watched(pictures: "list[Picture]", runs: int) -> "Iterator[Picture]":
    """Yield the pictures, and show which of them are drawn."""
    with Course() as course:
        task = course.begin(f"drawing {runs} runs", len(pictures), unit="pictures")
        for name, draw in pictures:
            yield name, draw
            course.add(task, name)


@click.command(
    short_help="Take a model out of a run.",
    epilog="""\b
Examples:
  ross-flwr export results/first --format onnx
  ross-flwr export results/first --format torch --agent 3 --out agent-3.pt""",
)
@click.argument("folder", type=FOLDER)
@click.option("--format", "kind", type=click.Choice(known("formats")), default="safetensors", show_default=True)
@click.option("--agent", type=int, metavar="I", help="The model of this agent [the mean of the honest agents' models].")
@method
@click.option("--out", type=FILE, metavar="FILE", help="Where to write it [into FOLDER].")
def export(folder: Path, kind: str, agent: int | None, method: str, out: Path | None) -> None:
    """Write a model of the run in FOLDER, as it was at the last checkpoint, under its own parameter names.

    safetensors and torch hold a state_dict, onnx the whole model for any number of examples. Inputs must be
    normalised as in the run; the command prints how.
    """
    from ross_flwr.runs.trained import Trained
    from ross_flwr.runs.trained import export as export_model

    trained = Trained(folder, method)
    click.echo(f"The model is in {export_model(trained, agent, kind, out)}; it takes {trained.task.takes}")


@click.command(
    short_help="Test the models of a run again, perhaps on other data.",
    epilog="""\b
Examples:
  ross-flwr evaluate results/first
  ross-flwr evaluate results/first -c dataset=file -c data-path=other.npz""",
)
@click.argument("folder", type=FOLDER)
@run_config
@method
def evaluate(folder: Path, run_config: Sequence[str], method: str) -> None:
    """Show accuracy, loss and more of the run's models in FOLDER: of the honest agents' mean, then of each agent.

    They are tested on the run's test data, or on images that -c names. F1 is the mean over classes.
    """
    from ross_flwr.report.table import Fitting, performance_table
    from ross_flwr.runs.trained import Trained

    trained = Trained(folder, method)
    roles = dict.fromkeys(trained.threats.attackers, " (attacks)")
    roles |= dict.fromkeys(trained.threats.corrupted, " (bad data)")
    tested = trained.test(read(run_config))
    rows = {"consensus" if i is None else f"agent {i}{roles.get(i, '')}": each for i, each in tested}
    console.print(Fitting(performance_table(rows)))
