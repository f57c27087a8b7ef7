"""Views of a run in progress, for people and programs."""

import json
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ross_flwr.report.table import Fitting, distance, others, result_table
from ross_flwr.runs.history import finite
from ross_flwr.runs.measures import measure_of

__all__ = ["Board", "Json", "Plain", "View", "sparkline"]

BARS = "▁▂▃▄▅▆▇█"

RECENT = 20
"""The number of recent rounds from which the time left is estimated."""


class View:
    """Receives every line of every method's history, but shows only the folder of the results."""

    def running(self) -> AbstractContextManager[Any]:
        """Return the context in which rounds are run."""
        return nullcontext()

    def add(self, method: str, line: Mapping[str, Any]) -> None:
        """Take in a line of the history of `method`."""

    def recall(self, method: str, line: Mapping[str, Any]) -> None:
        """Take in a line of a round that was done before this process."""
        self.add(method, line)

    def end(self, summaries: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
        """Show the results: here, their folder."""
        print(folder)


class Json(View):
    """Prints a JSON object per line, as in ``history.jsonl``, then one per summary, each with its method."""

    def add(self, method: str, line: Mapping[str, Any]) -> None:
        """Show the line."""
        print(json.dumps(finite({"method": method, **line})), flush=True)

    def end(self, summaries: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
        """Show the summaries."""
        for method, summary in summaries.items():
            entry = finite({"method": method, "folder": str(folder), "summary": dict(summary)})
            print(json.dumps(entry), flush=True)


class Course:
    """The progress and quality of a method.

    Parameters
    ----------
    total : int
        The number of rounds that it runs.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.round = 0
        self.tested: Mapping[str, Any] = {}
        self.means: list[float] = []
        self.bytes = 0
        self.absent: list[int] = []
        self.lost = 0
        self.seconds = 0.0
        self.recent: deque[float] = deque(maxlen=RECENT)

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the history."""
        self.round = line["round"]
        if line["accuracy"]:
            self.tested = line
            mean = measure_of(line).spread(line).get("mean")
            if mean is not None and isfinite(mean):
                self.means.append(mean)
        self.bytes += line["bytes"]
        self.absent = line["absent"]
        self.lost = sum(j not in self.absent for _, j in line["missing"])
        self.seconds += line["seconds"]
        self.recent.append(line["seconds"])

    @property
    def top(self) -> float:
        """How high its curve is drawn: the best mean so far, or the first where lower is better."""
        if not self.means:
            return 0.0
        return max(self.means) if measure_of(self.tested).higher else self.means[0]

    @property
    def rounds(self) -> str:
        """The round out of all rounds, padded to a constant width."""
        return f"{self.round:>{len(str(self.total))}}/{self.total}"

    @property
    def time(self) -> str:
        """The time left, or the time taken at the end."""
        if not self.recent:
            return ""
        left = fmean(self.recent) * (self.total - self.round)
        return f"{_clock(left)} left" if self.round < self.total else f"{_clock(self.seconds)} taken"

    @property
    def quality(self) -> str:
        """What the run is judged by, in the last test, with its spread over the honest agents; then other metrics."""
        if not self.tested:
            return "not tested yet"
        measure = measure_of(self.tested)
        mean, low, high = (measure.text(measure.spread(self.tested).get(name)) for name in ("mean", "min", "max"))
        return ", ".join([f"{measure.title} {mean} ({low} to {high})", *map(" ".join, others(self.tested).items())])

    @property
    def state(self) -> str:
        """Consensus distance, bytes sent so far, and the absent agents and missing messages of the round."""
        parts = [f"consensus distance {distance(self.tested)}"] if self.tested else []
        parts.append(f"{decimal(self.bytes)} sent")
        missing = []
        if self.absent:
            missing.append(f"agent{'s' * (len(self.absent) > 1)} {', '.join(map(str, self.absent))}")
        if self.lost:
            missing.append(f"{self.lost} message{'s' * (self.lost > 1)}")
        if missing:
            parts.append(f"missing: {' and '.join(missing)}")
        return ", ".join(parts)


class Plain(View):
    """Prints a line of text for every tenth of a run, and the table of results.

    Parameters
    ----------
    rounds : mapping of str to int
        How many rounds each method runs.
    console : Console
        Where to write.
    """

    def __init__(self, rounds: Mapping[str, int], console: Console) -> None:
        self.console = console
        self.courses = {method: Course(total) for method, total in rounds.items()}
        self.width = max(map(len, rounds))

    def add(self, method: str, line: Mapping[str, Any]) -> None:
        """Take in a line, and write one if another tenth of the run is done."""
        course = self.courses[method]
        tenths = 10 * course.round // course.total
        course.add(line)
        if 10 * course.round // course.total > tenths:
            print(f"{method:<{self.width}}  {course.rounds}  {course.quality}, {course.state}", flush=True)

    def recall(self, method: str, line: Mapping[str, Any]) -> None:
        """Take in a line, and write none: it has been seen."""
        self.courses[method].add(line)

    def end(self, summaries: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
        """Write the table of results and their folder."""
        self.console.print(Fitting(result_table(summaries)))
        for method, summary in summaries.items():
            if "privacy" in summary:
                print(f"{method}: {summary['privacy']['statement']}")
        print(f"Results are in {folder}")


class Board(Plain):
    """Shows the same on a terminal, redrawn during the run."""

    def running(self) -> AbstractContextManager[Any]:
        """Return a context in which the board is on the terminal."""
        return Live(self, console=self.console)

    def add(self, method: str, line: Mapping[str, Any]) -> None:
        """Take in a line."""
        self.courses[method].add(line)

    def __rich__(self) -> RenderableType:
        """Draw the progress of each method and, once it has begun, its quality."""
        board = Table.grid(padding=(0, 2, 0, 0))
        board.add_column(no_wrap=True, min_width=self.width)
        board.add_column()
        top = max((course.top for course in self.courses.values()), default=0.0)
        for method, course in self.courses.items():
            head = Table.grid(padding=(0, 2, 0, 0))
            head.add_row(ProgressBar(course.total, course.round, width=30), course.rounds, Text(course.time))
            board.add_row(Text(method, style="bold"), head)
            if course.round:
                curve = Text(sparkline(course.means, 20, top), style="cyan")
                board.add_row("", Text.assemble(course.quality, "  ", curve))
                board.add_row("", Text(course.state))
        return board


def sparkline(values: list[float], width: int, top: float) -> str:
    """Return a curve of at most `width` characters, from 0 to `top` at most, through the last of `values`."""
    points = min(width, len(values))
    chosen = (values[(len(values) * (point + 1) - 1) // points] for point in range(points))
    return "".join(BARS[round(min(value / top, 1.0) * (len(BARS) - 1))] if top else BARS[0] for value in chosen)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
