"""Who holds what: how many examples of each class an agent has, as a table and as a heat map."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ross_flwr.config import ConfigError
from ross_flwr.extras import import_extra

__all__ = ["holdings_table", "plot_holdings"]

_SHADES = " ░▒▓█"
_COLD, _HOT = (236, 244, 251), (8, 64, 129)


def holdings_table(counts: Sequence[Sequence[int]], width: int) -> Table:
    """Return a table of agents (rows) by classes, each cell as dark as its share of the largest.

    Parameters
    ----------
    counts : sequence of sequences of int
        Examples by agent, then class.
    width : int
        Of the terminal. If numbers do not fit, classes are characters in five shades, several per character if needed.
    """
    most, classes = max(map(max, counts)), len(counts[0])
    largest = max(sum(row) for row in counts)
    cell = max(len(str(most)), len(str(classes - 1)))
    room = width - 9 - max(6, len(str(largest)) + 1)  # beside agent, total and the edges
    table = Table(
        title="Examples by agent and class", box=box.SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=True
    )
    table.add_column("agent ", justify="right", no_wrap=True)
    table.add_column("total ", justify="right", no_wrap=True)
    numbers = (cell + 2) * classes <= room
    if numbers:
        for each in range(classes):
            table.add_column(f"{each} ", justify="right", no_wrap=True, min_width=cell + 1)
        rows = [[_shaded(f"{count} ", count / max(most, 1)) for count in row] for row in counts]
    else:
        pooled = -(-classes // max(1, room - 1))  # classes per character
        table.add_column(f"classes 0 to {classes - 1}" + f", {pooled} a character" * (pooled > 1), no_wrap=True)
        sums = [[sum(row[i : i + pooled]) for i in range(0, classes, pooled)] for row in counts]
        darkest = max(1, *map(max, sums))
        rows = [[Text("".join(_SHADES[-(-count * 4 // darkest)] for count in row))] for row in sums]
    for agent, (row, cells) in enumerate(zip(counts, rows, strict=True)):
        table.add_row(f"{agent} ", f"{sum(row)} ", *cells)
    return table


def _shaded(text: str, share: float) -> Text:
    red, green, blue = (round(cold + share * (hot - cold)) for cold, hot in zip(_COLD, _HOT, strict=True))
    ink = "white" if share > 0.5 else "black"
    return Text(text, style=Style(color=ink, bgcolor=f"#{red:02x}{green:02x}{blue:02x}"))


def plot_holdings(counts: Sequence[Sequence[int]], file: Path) -> None:
    """Draw agents by classes as a heat map into `file`, whose ending names the format.

    Raises
    ------
    ConfigError
        If matplotlib is not installed or the file cannot be written.
    """
    figures = import_extra("matplotlib.figure", "plots")
    agents, classes = len(counts), len(counts[0])
    figure = figures.Figure(figsize=(2.5 + 0.35 * min(classes, 40), 1.8 + 0.28 * min(agents, 40)), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(counts, cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
    axes.set(xlabel="class", ylabel="agent", title="Examples by agent and class")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.colorbar(picture, ax=axes, label="examples")
    try:
        figure.savefig(file, dpi=300)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot {file} cannot be written: {error}") from error
