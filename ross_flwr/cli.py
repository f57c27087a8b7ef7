"""The `ross-flwr` command."""

import sys
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ross_flwr import topology
from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import ConfigError, keys, require, resolve
from ross_flwr.data import PARTITIONS, SOURCES
from ross_flwr.learning.models import MODELS
from ross_flwr.learning.shapley import ESTIMATORS, WEIGHTINGS
from ross_flwr.report.table import result_table
from ross_flwr.run import LocalRun, beside
from ross_flwr.threats.poisoning import ATTACKS

__all__ = ["main"]

cli = typer.Typer(help="Peer-to-peer learning on Flower.", no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()

RunConfig = Annotated[
    list[str] | None,
    typer.Option("-c", "--run-config", help="KEY=VALUE, or a TOML file of keys; may be given several times."),
]


@cli.command()
def run(
    run_config: RunConfig = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results [results/<time>-<method>].")] = None,
) -> None:
    """Run a method with all agents in this process, and the method beside it on the same data.

    Without options: ROSS on 10 agents, of which three send poisoned gradients, beside D-PSGD.
    """
    config = resolve(read(run_config or []))
    folder = out or Path("results") / f"{datetime.now():%Y%m%d-%H%M%S}-{config.algorithm}"
    parts = beside(config)
    runs = [LocalRun(parts[0], folder), *(LocalRun(part, folder / part.algorithm) for part in parts[1:])]
    finish(runs, folder)


@cli.command()
def resume(folder: Annotated[Path, typer.Argument(help="The folder of a run that stopped.")]) -> None:
    """Continue a run from its last checkpoint."""
    finish([LocalRun.resume(folder)], folder)


@cli.command()
def config() -> None:
    """Show every configuration key with its default, what it takes and what it means."""
    table = Table("key", "default", "takes", "meaning", title="Configuration keys")
    section = "run"
    for key in keys():
        if key.section != section:
            section = key.section
            table.add_section()
        meaning = key.meaning if section == "run" else f"{key.meaning} ({section})"
        default = str(key.default).lower() if isinstance(key.default, bool) else str(key.default) or "(empty)"
        table.add_row(key.name, f"{default} {key.unit}".strip(), key.allowed, meaning)
    console.print(table)


LISTS: dict[str, Mapping[str, Any]] = {
    "algorithms": ALGORITHMS,
    "attacks": ATTACKS,
    "datasets": SOURCES,
    "mixing": topology.MIXING_RULES,
    "models": MODELS,
    "partitions": PARTITIONS,
    "shapley": ESTIMATORS,
    "topologies": topology.TOPOLOGIES,
    "weightings": WEIGHTINGS,
}


@cli.command("list")
def list_(what: Annotated[str, typer.Argument(help=f"One of: {', '.join(LISTS)}.")]) -> None:
    """List what is registered under a configuration key."""
    require("list", what, LISTS)
    table = Table("name", "what it is", title=what)
    for name, entry in LISTS[what].items():
        table.add_row(name, entry if isinstance(entry, str) else (entry.__doc__ or "").strip().splitlines()[0])
    if what == "models":
        table.add_row("<name>", "any classification model of torchvision.models, by its name there")
    console.print(table)


def read(entries: list[str]) -> dict[str, Any]:
    """Return the keys that ``-c`` options set, later ones winning."""
    found: dict[str, Any] = {}
    for entry in entries:
        if "=" not in entry:
            try:
                found.update(tomllib.loads(Path(entry).read_text()))
            except OSError:
                raise ConfigError(f"-c {entry} is neither KEY=VALUE nor a TOML file that can be read") from None
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"-c {entry} is not TOML: {error}") from None
            continue
        key, _, text = entry.partition("=")
        try:
            found[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = text.strip()
    return found


def finish(runs: list[LocalRun], folder: Path) -> None:
    """Run what is left of each run behind a progress bar, and show the results."""
    columns = TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    summaries = {}
    with Progress(*columns, TextColumn("{task.fields[accuracy]}"), console=console) as progress:
        for each in runs:
            total, name = each.config.num_rounds, each.config.algorithm
            task = progress.add_task(name, total=total, completed=len(each.history.lines), accuracy="")
            for line in each.rounds():
                progress.advance(task)
                if line["accuracy"]:
                    progress.update(task, accuracy=f"accuracy {line['accuracy']['mean']:.1%}")
            summaries[name] = each.summary()
    console.print(result_table(summaries))
    console.print(f"Results are in {folder}")


def main() -> None:
    """Run the command; bad input ends it with one sentence and exit code 2."""
    try:
        cli()
    except ConfigError as error:
        print(f"ross-flwr: {error}", file=sys.stderr)
        raise SystemExit(2) from None
