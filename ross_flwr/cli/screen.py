"""What commands share on a terminal."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ross_flwr.files import home

__all__ = ["FILE", "FOLDER", "Course", "console", "quoted", "stoppable"]

PAUSE = 5.0
"""Seconds between two lines about progress where there is no terminal."""

SPEED_OVER = 600.0
"""Seconds over which the speed is measured: a run may take minutes."""

INTERRUPTED = 130
"""The exit code of a run that Ctrl-C ended: 128 and the number of SIGINT."""

console = Console()


class Written(click.Path):
    """A path as users write it: ``~`` is the home folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the `Path`."""
        return super().convert(home(str(value)), param, ctx)


FOLDER = Written(path_type=Path)
FILE = Written(path_type=Path, dir_okay=False)


@contextmanager
def stoppable(begun: Path, hint: str) -> Iterator[None]:
    """Let Ctrl-C end a command; once the file or folder `begun` exists, print `hint`, which says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        hint = hint if begun.exists() else "no round was finished"
        click.echo(f"ross-flwr: interrupted; {hint}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def quoted(folder: Path) -> str:
    """Return a path quoted for a shell."""
    return shlex.quote(str(folder))


class Course(Progress):
    """How far work is: bars on a terminal; elsewhere lines, one in `PAUSE` seconds at most.

    Parameters
    ----------
    parts : int
        How many parts the work has, one after the other.
    """

    def __init__(self, parts: int = 1) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        lines = not console.is_terminal
        last = TextColumn("{task.fields[last]}")
        super().__init__(*columns, last, console=console, disable=lines, speed_estimate_period=SPEED_OVER)
        self._parts, self._part, self._printed = parts, 0, monotonic()

    def next_part(self, name: str, *, goes_on: bool = False) -> str:
        """Return the name of the next part, or of more of the same one, with its number if there are several."""
        self._part += not goes_on
        return f"{name}, {'still ' * goes_on}part {self._part} of {self._parts}" if self._parts > 1 else name

    def begin(self, description: str, total: int, done: int = 0, unit: str = "runs") -> TaskID:
        """Show what is to be done, some of which is done already."""
        if self.disable:
            click.echo(f"{description}: {total} {unit}" + f", {done} of them done already" * (done > 0))
        return self.add_task(description, total=total, completed=done, last="")

    def add(self, task_id: TaskID, name: str) -> None:
        """Show that one more is done."""
        self.update(task_id, advance=1, last=name)
        task = self.tasks[task_id]
        if not self.disable or (monotonic() < self._printed + PAUSE and not task.finished):
            return
        self._printed = monotonic()
        of_part = " of this part" if self._parts > 1 else ""
        left = f", about {timedelta(seconds=round(task.time_remaining))} left{of_part}" if task.time_remaining else ""
        click.echo(f"{task.description}: {task.completed:.0f} of {task.total:.0f} done{left}, last {name}")
