"""Configuration keys on the command line."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ross_flwr.cli.completion import complete_pair
from ross_flwr.config import ConfigError, from_toml, keys
from ross_flwr.files import home

__all__ = ["FIRST_RUN", "read", "read_run", "run_config"]

FIRST_RUN = Path(__file__).with_name("first-run.toml")
"""The keys of `ross-flwr run`, unless `-c` sets them."""

run_config = click.option(
    "-c",
    "--run-config",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_pair,
    help="A key and its value, or a TOML file of them. May be given several times; the last one wins.",
)

PAIR = r"([\w.-]+)=((?>'[^']*'(?=\s|$)|\"[^\"]*\"(?=\s|$)|\S*))(?=\s|$)"
"""A key and its value. What a value has matched is not tried another way, or many values would take for ever."""


def read(entries: Sequence[str]) -> dict[str, Any]:
    """Return the keys that ``-c`` options set, later ones winning.

    An entry is a file, one ``KEY=VALUE``, or several with spaces between them as ``flwr run`` takes them. Values are
    read as in TOML, except that texts need no quotes.
    """
    texts = {"beside", *(key.name for key in keys() if key.kind is str)}
    found: dict[str, Any] = {}
    for entry in entries:
        if "=" not in entry:
            found.update(read_file(entry))
            continue
        several = re.fullmatch(rf"\s*(?:{PAIR}\s*)+", entry)
        for key, text in re.findall(PAIR, entry) if several else [entry.split("=", 1)]:
            key, text = key.strip(), text.strip()
            try:
                value = tomllib.loads(f"value = {text}")["value"]
            except (ValueError, RecursionError):
                value = text
            found[key] = text if key in texts and not isinstance(value, str) else value
    return found


def read_run(entries: Sequence[str]) -> dict[str, Any]:
    """Return the keys of the first run, and those of the task, changed as the ``-c`` options say."""
    given = read(entries)
    return {**read_file(str(FIRST_RUN)), **first_run_of(given.get("task", "")), **given}


def first_run_of(task: str) -> dict[str, str | float]:
    """Return the keys that a task adds to the first run."""
    from ross_flwr.tasks.registry import NAMED

    return dict(NAMED[task].first_run) if task in NAMED else {}


def read_file(name: str) -> dict[str, Any]:
    """Return the keys that TOML file `name` sets."""
    try:
        return from_toml(home(name), f"-c {name}")
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"-c {name} is neither KEY=VALUE nor a TOML file that can be read: {why}") from None
