"""What commands have in common on a terminal."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

from ross_flwr.report.folder import RunFolder

__all__ = ["console", "quoted", "stoppable"]

INTERRUPTED = 130
"""The exit code of a run that Ctrl-C ended: 128 and the number of SIGINT."""

console = Console()


@contextmanager
def stoppable(folder: Path) -> Iterator[None]:
    """Let Ctrl-C end a run with a sentence on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        begun = RunFolder(folder).config.exists()
        hint = f"`ross-flwr resume {quoted(folder)}` continues the run" if begun else "no round was finished"
        click.echo(f"ross-flwr: interrupted; {hint}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def quoted(folder: Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(folder))
