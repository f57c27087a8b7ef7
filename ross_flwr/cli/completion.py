"""What a shell completes, and hints for names that people try. It imports neither methods nor PyTorch."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import click
from click.shell_completion import CompletionItem

from ross_flwr.config import likely_key

__all__ = ["FILE", "Hinting", "complete_pair", "completing", "known"]

FILE = Path(__file__).with_name("completion.json")
"""What `names.for_completion` wrote."""


Completer: TypeAlias = Callable[[click.Context, click.Parameter, str], list[str]]
"""From what was typed to what it may become."""


@cache
def known(what: str) -> Any:
    """Return the names of a kind, such as ``"experiments"`` or ``"lists"``; or ``"keys"``, each with its meaning."""
    return json.loads(FILE.read_text(encoding="utf-8"))[what]


def completing(what: str) -> Completer:
    """Return what completes the names of a kind that `known` knows."""
    return lambda _context, _parameter, begun: [name for name in known(what) if name.startswith(begun)]


def complete_pair(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the keys whose names begin with what was typed; once a key is typed, its values."""
    name, equals, _ = begun.partition("=")
    found = [key for key in known("keys") if (key == name if equals else key.startswith(name))]
    if len(found) > 1:
        return [CompletionItem(f"{key}=", help=known("keys")[key][0]) for key in found]
    pairs = (f"{key}={value}" for key in found for value in known("keys")[key][1:])
    return [CompletionItem(pair) for pair in pairs if pair.startswith(begun)]


class Hinting(click.Command):
    """A command that takes keys by ``-c``, and says so to those who try them as options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = likely_key(error.option_name.strip("-"), known("keys"))
            if not name:
                raise
            how = f"a key is set by -c {name}=…"
            if ctx.info_name == "compare" and name == "seed":
                how = "the experiment's file sets seeds"
            raise click.UsageError(f"No such option {error.option_name}: {how}", ctx) from None
