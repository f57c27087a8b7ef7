"""The command that writes an app."""

from pathlib import Path

import click

from ross_flwr.cli.screen import FOLDER
from ross_flwr.new import write_app

__all__ = ["new"]


@click.command(
    short_help="Write a small Flower app to start from.",
    epilog="\b\nExample:\n  ross-flwr new my-app && cd my-app && python -m pytest",
)
@click.argument("folder", type=FOLDER)
def new(folder: Path) -> None:
    """Write a small, complete Flower app into FOLDER: own model, own data, and tests that pass.

    The folder's name is the app's: lower-case letters, digits and hyphens.
    """
    click.echo(f"The app is in {write_app(folder)}; its README.md says how to go on")
