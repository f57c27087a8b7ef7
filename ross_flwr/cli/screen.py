"""What commands share on a terminal."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ross_flwr.files import home

__all__ = ["FILE", "FOLDER", "console", "quoted", "stoppable"]

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
