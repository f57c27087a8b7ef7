"""The commands for single runs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ross_flwr.cli.completion import Hinting, known
from ross_flwr.cli.keys import FIRST_RUN, first_run_of, read_run, run_config
from ross_flwr.cli.screen import FOLDER, console, quoted, stoppable
from ross_flwr.config import ConfigError
from ross_flwr.config import shown as shown_value
from ross_flwr.files import new_folder
from ross_flwr.runs.ended import is_comparison

if TYPE_CHECKING:
    from ross_flwr.report.trackers import Opener
    from ross_flwr.report.views import View
    from ross_flwr.runs.local import LocalRun

__all__ = ["resume", "run"]


def observed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose how the progress of a run is shown."""
    for option in (
        click.option(
            "--log", default="", metavar="A,B", help=f"Log every round there as well: {', '.join(known('trackers'))}."
        ),
        click.option("--json", "shown", flag_value="json", help="A JSON object for each round, then the summaries."),
        click.option("-q", "--quiet", "shown", flag_value="quiet", help="Show the folder of the results alone."),
    ):
        command = option(command)
    return command


@click.command(
    cls=Hinting,
    short_help="Run methods side by side, in this process.",
    epilog="""\b
Examples:
  ross-flwr run -c num-rounds=20 -c topology=ring -c attackers=2
\b
  ross-flwr config > my.toml         then change what you like in it
  ross-flwr run -c my.toml -c seed=1 --out results/seed-1
\b
  ross-flwr run --json | jq -c '[.method, .round, .accuracy.mean]'
  ross-flwr run --log tensorboard --out results/first
  tensorboard --logdir results/first/tensorboard""",
)
@run_config
@click.option("--out", type=FOLDER, metavar="FOLDER", help="Where the results go [results/<time>-<method>].")
@observed
def run(run_config: Sequence[str], out: Path | None, shown: str | None, log: str) -> None:
    """Run a method, and others beside it on the same data, with all agents in this process.

    Without options this is the first run: ross-plus, with ross and dpsgd beside it, on 10 agents, of which three poison
    their gradients. first-run.toml, whose path is printed, holds its keys, and -c changes them: `-c attackers=0 -c
    beside=` runs one method with honest agents only.

    The folder of results holds config.toml, history.jsonl (one line a round), summary.json and model.safetensors (the
    mean of the honest agents' models), and a folder with the same for each method beside. Ctrl-C keeps the rounds that
    are done.
    """
    from ross_flwr.report.trackers import trackers
    from ross_flwr.runs.folder import RunFolder
    from ross_flwr.runs.local import start
    from ross_flwr.runs.options import RunOptions
    from ross_flwr.runs.side_by_side import side_by_side

    keys = read_run(run_config)
    configs = side_by_side(keys)
    method = configs[0].part(RunOptions).algorithm
    if out and RunFolder(out).config.exists():
        raise ConfigError(
            f"--out {out} holds a run already: `ross-flwr resume {quoted(out)}` continues it, and a new run takes "
            "another folder"
        )
    log_to = trackers(log)
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{method}"
    with nullcontext(out) if out else new_folder(Path("results"), name) as folder, resumable(folder):
        runs = start(configs, folder)
        if not shown:
            tell_first_run(keys.get("task", ""))
        finish(runs, folder, shown, log_to)


def tell_first_run(task: str) -> None:
    """Say where the keys come from that ``-c`` does not set."""
    click.echo(f"Keys that -c does not set are those of the first run, {FIRST_RUN}")
    if of_task := first_run_of(task):
        told = ", ".join(f"{key} = {shown_value(value)}" for key, value in of_task.items())
        click.echo(f"and those of task = '{task}': {told}")


@click.command(
    short_help="Continue a run that stopped.",
    epilog="\b\nExample:\n  ross-flwr resume results/20250131-120000-ross",
)
@click.argument("folder", type=FOLDER)
@observed
def resume(folder: Path, shown: str | None, log: str) -> None:
    """Continue the run in FOLDER from its last checkpoint, and then those of the methods beside it.

    The results equal those of runs that never stopped. To make a run longer, first raise num-rounds in its config.toml.
    --json and --log also show the earlier rounds, so they work for a finished run too.
    """
    if not (folder / "config.toml").is_file() and is_comparison(folder):
        raise ConfigError(f"{folder} holds a comparison: the `ross-flwr compare` command that began it continues it")
    from ross_flwr.report.trackers import trackers
    from ross_flwr.runs.local import resume as resume_runs

    with resumable(folder):
        runs = resume_runs(folder)
        if not shown:
            left = any(len(each.history.lines) < each.run.num_rounds for each in runs)
            done = f"Nothing is left to do: all rounds of the run in {folder} are done"
            click.echo(f"Going on with the run in {folder}" if left else done)
        finish(runs, folder, shown, trackers(log))


def resumable(folder: Path) -> AbstractContextManager[None]:
    """Let Ctrl-C end a run, and say how to continue it."""
    return stoppable(folder / "config.toml", f"`ross-flwr resume {quoted(folder)}` continues the run")


def finish(runs: "Sequence[LocalRun]", folder: Path, shown: str | None, log: "Sequence[Opener]") -> None:
    """Run the remaining rounds of each run, show their progress, and show the results."""
    from ross_flwr.report.trackers import numbers

    view = view_of(shown, {each.run.algorithm: each.run.num_rounds for each in runs})
    summaries = {}
    with view.running():
        for each in runs:
            name, done = each.run.algorithm, len(each.history.lines)
            with ExitStack() as stack:
                rounds = stack.enter_context(closing(each.rounds()))
                tell = [stack.enter_context(tracker(folder, each.config)) for tracker in log]
                for number, line in enumerate(chain(each.history.lines[:done], rounds)):
                    (view.recall if number < done else view.add)(name, line)
                    for tracker in tell:
                        tracker(numbers(line), line["round"])
            summaries[name] = each.summary()
    view.end(summaries, folder)


def view_of(shown: str | None, rounds: dict[str, int]) -> "View":
    """Return the view that was asked for, or else the one that suits the output."""
    from ross_flwr.report.views import Board, Json, Plain, View

    if shown:
        return {"json": Json, "quiet": View}[shown]()
    return (Board if console.is_terminal else Plain)(rounds, console)
