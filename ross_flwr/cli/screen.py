"""What commands have in common on a terminal."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

__all__ = ["console", "quoted", "stoppable"]

INTERRUPTED = 130
"""The exit code of a run that Ctrl-C ended: 128 and the number of SIGINT."""

console = Console()


@contextmanager
def stoppable(begun: Path, hint: str) -> Iterator[None]:
    """Let Ctrl-C end a command with one sentence: `hint`, how to go on, once the file or folder `begun` is there."""
    try:
        yield
    except KeyboardInterrupt:
        hint = hint if begun.exists() else "no round was finished"
        click.echo(f"ross-flwr: interrupted; {hint}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def quoted(folder: Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(folder))
