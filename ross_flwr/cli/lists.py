"""The commands that show the keys, the values that they take, and who holds which data."""

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ross_flwr.cli.completion import Hinting, completing, known
from ross_flwr.cli.keys import read, read_run, run_config
from ross_flwr.cli.screen import FILE, console
from ross_flwr.config import ConfigError, shown, to_toml

if TYPE_CHECKING:
    from ross_flwr.algorithms import Algorithm

__all__ = ["config", "data", "list_"]

NARROW = 20
"""Columns that a meaning needs beside its name; where there are fewer, it stands below."""


@click.command(
    cls=Hinting,
    short_help="Show every key, its value and what it means.",
    epilog="\b\nExample:\n  ross-flwr config -c algorithm=dpsgd > my.toml",
)
@run_config
def config(run_config: Sequence[str]) -> None:
    """Show every key as `ross-flwr run` would use it, with its unit, its range and its meaning.

    The output is a TOML file that `ross-flwr run -c` and `flwr run --run-config` accept.
    """
    from ross_flwr.runs.side_by_side import BESIDE, side_by_side

    keys = read_run(run_config)
    first, *_ = side_by_side(keys)
    for line in to_toml(first, [(BESIDE, keys["beside"])]).splitlines():
        heading, comment = line.startswith("# =="), line.startswith("#")
        click.secho(line, bold=heading or None, dim=(comment and not heading) or None)


@click.command(
    cls=Hinting,
    short_help="Show who holds what.",
    epilog="\b\nExample:\n  ross-flwr data -c partition=shards --plot shards.png",
)
@run_config
@click.option("--plot", type=FILE, metavar="FILE.png", help="Draw a heat map as well.")
def data(run_config: Sequence[str], plot: Path | None) -> None:
    """Show how many training examples of each class every agent holds, before any data is corrupted."""
    from ross_flwr.report.holdings import holdings_table, plot_holdings
    from ross_flwr.report.table import Fitting
    from ross_flwr.runs.local import holdings
    from ross_flwr.runs.side_by_side import side_by_side

    counts = holdings(side_by_side(read(run_config))[0]).tolist()
    console.print(Fitting(holdings_table(counts, console.width)))
    if plot:
        plot_holdings(counts, plot)
        click.echo(f"The heat map is in {plot}")


@click.command(
    "list",
    short_help="List the values that a key takes.",
    help=f"List the values that a key takes. WHAT is the key, or one of {', '.join(known('lists'))}; without it, list "
    "all names.",
    epilog="\b\nExample:\n  ross-flwr list topologies",
)
@click.argument("what", default="", shell_complete=completing("lists"))
def list_(what: str) -> None:
    """List the values that a key takes."""
    from ross_flwr.algorithms import ALGORITHMS
    from ross_flwr.cli.names import LIST_OF_KEY, LISTS

    if not what:
        show({name: ", ".join(sorted(entries)) for name, entries in LISTS.items()})
        return
    what = LIST_OF_KEY.get(what, what)
    if what not in LISTS:
        nearest = get_close_matches(what.lower(), LISTS, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"there is no list called {shown(what)}: the lists are {', '.join(LISTS)}{hint}")
    entries = {name: about(entry) for name, entry in sorted(LISTS[what].items())}
    if what == "algorithms":
        console.print(
            "Methods by family, then by name; in brackets: the family, exchanges in a pass, and what it needs\n"
        )
        by_family = sorted(entries, key=lambda name: (ALGORITHMS[name].family, name))
        entries = {name: f"{entries[name]}\n{traits(ALGORITHMS[name])}" for name in by_family}
    if what == "models":
        entries["<name>"] = "Any classification model of torchvision.models, by its name there."
    show(entries)


def about(entry: Any) -> str:
    """Return the first paragraph of a registered object's docstring."""
    return entry if isinstance(entry, str) else (inspect.getdoc(entry) or "").partition("\n\n")[0].replace("\n", " ")


def traits(method: "type[Algorithm]") -> str:
    """Return a method's family, its exchanges per pass and what it needs, with the defaults of its keys."""
    from ross_flwr.learning.rules import Bounded

    default = method()
    exchanges = len(default.steps) - 1
    judged = default.needs_validation or "validation" in method.trains_on
    data = ["a validation set"] if judged else []
    bound = ["f (byzantine)"] if isinstance(default.rule, Bounded) else []
    needs = ", ".join([*method.needs, *data, *bound])
    parts = [method.family, f"{exchanges} exchange{'s' * (exchanges != 1)}", f"needs {needs}" if needs else ""]
    return "[" + "; ".join(filter(None, parts)) + "]"


def show(entries: Mapping[str, str]) -> None:
    """Print names and their meanings in two columns, as wide as the terminal."""
    if console.width < max(map(len, entries)) + NARROW:
        for name, text in entries.items():
            console.print(Text(name, style="bold"), Padding(Text(text), (0, 0, 0, 2)), sep="\n")
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in entries.items():
        table.add_row(Text(name, style="bold"), Text(text))
    console.print(table)
