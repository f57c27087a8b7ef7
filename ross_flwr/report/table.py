"""The table of results that people see."""

from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.filesize import decimal
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ross_flwr.runs.measures import LOSS, measure_of, percent

__all__ = [
    "Fitting",
    "distance",
    "latex",
    "markdown",
    "others",
    "percent",
    "performance_table",
    "result_table",
    "short",
]

DIVERGED = 1e6
"""A consensus distance above this, or one that is not finite, is shown as "diverged": no sound run comes near it."""


UNLIMITED = 10_000
"""Columns of a terminal on which every table has room."""


def result_table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table with a row per run, narrow enough for a terminal of 80 columns.

    Parameters
    ----------
    summaries : mapping of str to mapping
        By the name of the run, what `History.summary` returned.
    """
    attacked = any(summary.get("attackers") for summary in summaries.values())
    measure = measure_of(next((each for each in summaries.values() if each["loss"]), {}))
    caption = f"{measure.title} on test data of each {'honest ' if attacked else ''}agent's own model"
    if any(map(has_diverged, summaries.values())):
        caption += f"\ndiverged: models over {DIVERGED:,.0f} apart, or no numbers"
    if any(summary["consensus-distance"] is None and not has_diverged(summary) for summary in summaries.values()):
        caption += "\nconsensus distance –: no models came; direct brings them with return-model = 'final'"
    for name, summary in summaries.items():
        tested = summary.get("tested")
        if tested and 0 < tested["agents"] < tested["of"]:
            caption += f"\n{name}: of {tested['agents']} of {tested['of']} honest agents; the others were absent"
        if success := summary.get("attack-success"):
            caption += f"\n{name}: a trigger deceives agents with clean data in {percent(success['mean'])} of images"
    table = Table(title="Result", caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    title = measure.title.replace(" per ", "/\n")
    means = list(dict.fromkeys(name for summary in summaries.values() for name in others(summary)))
    ends = f"{title}\nmean", f"{title}\n{'min' if measure.higher else 'max'}"
    for heading in ("rounds", *ends, *means, "consensus\ndistance", "bytes\nsent", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for name, summary in summaries.items():
        table.add_row(
            name,
            str(summary["rounds"]),
            measure.text(measure.spread(summary).get("mean")),
            measure.text(measure.worst(summary)),
            *(others(summary).get(each, "–") for each in means),
            distance(summary),
            decimal(summary["bytes"]),
            f"{summary['seconds']:.1f}",
        )
    return table


def others(tested: Mapping[str, Any]) -> dict[str, str]:
    """Return the means of the metrics in a line or a summary beside what it is judged by, formatted for people."""
    metrics = tested.get("metrics") or {}
    first = measure_of(tested)
    return {name: LOSS.text(spread["mean"]) for name, spread in metrics.items() if name != first.name and spread}


class Fitting:
    """A table, or, where the terminal is too narrow for it, a list of its rows in which nothing is cut off.

    Parameters
    ----------
    table : Table
        The table; the first column names its rows.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw one of the two."""
        if Measurement.get(console, options.update(width=UNLIMITED), self.table).maximum <= options.max_width:
            yield self.table
            return
        names, *columns = self.table.columns
        for name, *cells in zip(names.cells, *(column.cells for column in columns), strict=True):
            yield Text(str(name), style="bold")
            for column, cell in zip(columns, cells, strict=True):
                yield Text(f"  {str(column.header).replace(chr(10), ' ')} {cell}")
        yield Text(str(self.table.caption or ""))


def performance_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a table with accuracy, loss and the other metrics of each model; ``f1`` as a share."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("model", no_wrap=True)
    more = [name for name in next(iter(rows.values())) if name not in ("accuracy", "loss")]
    for heading in ("accuracy", "loss", *("F1" if name == "f1" else name for name in more)):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, tested in rows.items():
        shown = (percent(tested[each]) if each == "f1" else f"{tested[each]:.4g}" for each in more)
        table.add_row(name, percent(tested["accuracy"]), f"{tested['loss']:.4g}", *shown)
    return table


def has_diverged(summary: Mapping[str, Any]) -> bool:
    """Return whether the models of a run have diverged.

    A loss of None, where there is a loss at all, was not finite before it went through JSON.
    """
    loss, distance = summary["loss"] or {"mean": 0.0}, summary["consensus-distance"]
    return not (_is_number(loss["mean"]) and (distance is None or (_is_number(distance) and distance <= DIVERGED)))


def distance(summary: Mapping[str, Any]) -> str:
    """Return the consensus distance in a summary or a line of a history, formatted for people."""
    value = summary["consensus-distance"]
    if has_diverged(summary):
        return "diverged"
    return "–" if value is None else f"{value:.3g}"


def short(count: float) -> str:
    """Return a large number as people read it, up to the name of its unit.

    Examples
    --------
    >>> short(48) + "B", short(83_400) + "B", short(2.5e9) + "B", short(3e20) + "B"
    ('48 B', '83.4 kB', '2.5 GB', '3e+20 B')
    """
    power = (len(str(round(abs(count)))) - 1) // 3
    prefix = dict(enumerate(("", "k", "M", "G", "T"))).get(power)
    return f"{count:.3g} " if prefix is None else f"{count / 1000**power:.3g} {prefix}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first row is the headings, with numbers aligned to the right.

    Examples
    --------
    >>> print(markdown([("method", "ring"), ("ross", "95.0%")]))
    | method | ring |
    |---|--:|
    | ross | 95.0% |
    """
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|---|{'--:|' * (len(rows[0]) - 1)}", *body])


def latex(rows: Sequence[Sequence[str]], caption: str, bold: Collection[tuple[int, int]] = ()) -> str:
    r"""Return a table for LaTeX (booktabs, amssymb) whose first row is the headings.

    Parameters
    ----------
    rows : sequence of sequences of str
        Texts by row, then column.
    caption : str
        What stands above it.
    bold : collection of pairs
        Row, counted from the one below the headings, and column.

    Examples
    --------
    >>> print(latex([("method", "ring"), ("my_ross", "95.0 ± 1.2")], "In %", {(0, 1)}))
    \begin{table}
      \caption{In \%}
      \begin{tabular}{lr}
        \toprule
        method & ring \\
        \midrule
        my\_ross & \textbf{95.0 $\pm$ 1.2} \\
        \bottomrule
      \end{tabular}
    \end{table}
    """
    head, *body = ([text.translate(_TEX) for text in row] for row in rows)
    for row, column in bold:
        body[row][column] = rf"\textbf{{{body[row][column]}}}"
    lines = [
        r"\begin{table}",
        rf"  \caption{{{caption.translate(_TEX)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"    \toprule",
        rf"    {' & '.join(head)} \\",
        r"    \midrule",
        *(rf"    {' & '.join(row)} \\" for row in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


_TEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "\\": "\\textbackslash{}",
        "±": "$\\pm$",
        "×": "$\\times$",
        "▲": "$\\blacktriangle$",
        "▼": "$\\blacktriangledown$",
        "–": "--",
        "…": "\\ldots{}",
    }
)


def _is_number(value: float | None) -> bool:
    return value is not None and isfinite(value)
