"""What a person sees of a run: the table of results."""

from collections.abc import Mapping
from typing import Any

from rich.filesize import decimal
from rich.table import Table

__all__ = ["result_table"]


def result_table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table with a row per run.

    Parameters
    ----------
    summaries : mapping of str to mapping
        By the name of the run, what `History.summary` returned.
    """
    table = Table(title="Result", caption="accuracy on test data, each honest agent with its own model")
    for heading in (
        "method",
        "rounds",
        "accuracy mean",
        "min",
        "consensus distance",
        "sent",
        "utilities",
        "seconds",
    ):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=heading == "method")
    for name, summary in summaries.items():
        accuracy, distance = summary["accuracy"], summary["consensus-distance"]
        table.add_row(
            name,
            str(summary["rounds"]),
            f"{accuracy['mean']:.1%}" if accuracy else "–",
            f"{accuracy['min']:.1%}" if accuracy else "–",
            f"{distance:.3g}" if distance is not None else "–",
            decimal(summary["bytes"]),
            str(summary["utilities"]),
            f"{summary['seconds']:.1f}",
        )
    return table
