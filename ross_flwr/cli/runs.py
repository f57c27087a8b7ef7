"""The commands for single runs."""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from itertools import chain
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ross_flwr.cli.keys import read, run_config
from ross_flwr.cli.screen import console, quoted, stoppable
from ross_flwr.config import ConfigError, resolve
from ross_flwr.report.folder import RunFolder
from ross_flwr.report.table import percent, result_table
from ross_flwr.run import LocalRun, start
from ross_flwr.run import resume as resume_runs

__all__ = ["resume", "run"]


@click.command(
    short_help="Run a method, and another beside it, in this process.",
    epilog="""\b
Examples:
  ross-flwr run -c num-rounds=20 -c topology=ring -c attackers=2
\b
  ross-flwr config > my.toml         then change what you like in it
  ross-flwr run -c my.toml -c seed=1 --out results/seed-1""",
)
@run_config
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the results go [results/<time>-<method>]."
)
def run(run_config: Sequence[str], out: Path | None) -> None:
    """Run a method, and another beside it on the same data, with all agents in this process.

    Without options: ROSS on 10 agents, of which three send poisoned gradients, beside D-PSGD. The folder of results
    holds config.toml, history.jsonl (one line a round), summary.json and model.safetensors (the mean of the honest
    agents' models), and a folder with the same for the method beside.
    """
    config = resolve(read(run_config))
    folder = out or Path("results") / f"{datetime.now():%Y%m%d-%H%M%S}-{config.algorithm}"
    if RunFolder(folder).config.exists():
        raise ConfigError(
            f"--out {folder} holds a run already: `ross-flwr resume {quoted(folder)}` continues it, and a new run "
            "takes another folder"
        )
    with stoppable(folder):
        finish(start(config, folder), folder)


@click.command(
    short_help="Continue a run that stopped.",
    epilog="\b\nExample:\n  ross-flwr resume results/20250131-120000-ross",
)
@click.argument("folder", type=click.Path(path_type=Path))
def resume(folder: Path) -> None:
    """Continue the run in FOLDER from its last checkpoint, and then the one of the method beside it.

    The results are those of a run that never stopped. To make a run longer, raise num-rounds in its config.toml first.
    """
    with stoppable(folder):
        finish(resume_runs(folder), folder)


def finish(runs: Sequence[LocalRun], folder: Path) -> None:
    """Run what is left of each run behind a progress bar, and show the results."""
    columns = TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    summaries = {}
    with Progress(*columns, TextColumn("{task.fields[accuracy]}"), console=console) as progress:
        for each in runs:
            name, done = each.config.algorithm, len(each.history.lines)
            task = progress.add_task(name, total=each.config.num_rounds, completed=done, accuracy="")
            with closing(each.rounds()) as rounds:
                for line in chain(each.history.lines[:done], rounds):
                    progress.update(task, completed=line["round"])
                    if line["accuracy"]:
                        progress.update(task, accuracy=f"accuracy {percent(line['accuracy']['mean'])}")
            summaries[name] = each.summary()
    console.print(result_table(summaries))
    click.echo(f"Results are in {folder}")
