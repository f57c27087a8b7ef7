"""A configuration as a TOML document that explains itself."""

import json
import tomllib
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Any

from ross_flwr.config.groups import keys, methods
from ross_flwr.config.keys import ConfigError, Key, Scalar
from ross_flwr.config.resolved import Config

__all__ = ["from_toml", "to_toml"]

_WIDTH = 80


def from_toml(file: Path, said: str) -> dict[str, Any]:
    """Return what a TOML file holds; `said` is how the user named it.

    Raises
    ------
    OSError
        When it cannot be read.
    ConfigError
        When it is not TOML.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "run.toml")
    ...     _ = file.write_text("num-rounds = 5")
    ...     from_toml(file, "run.toml")
    {'num-rounds': 5}
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))  # some editors begin a file with a byte order mark
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: not UTF-8, or a number too long
        raise ConfigError(f"{said} is not TOML: {error}") from None


def to_toml(config: Config, others: Iterable[tuple[Key, Scalar]] = ()) -> str:
    """Return `config` as a TOML document that gives each key's meaning, unit and range.

    `others` are keys that no run has, with their values. They come first.

    It parses back to the same values, so users can edit and run what ``ross-flwr config`` prints and what is in the
    folder of a run.

    Examples
    --------
    >>> from ross_flwr import resolve
    >>> [line for line in to_toml(resolve({"topology": "ring"})).splitlines() if line.startswith("topology =")]
    ['topology = "ring"']
    """
    blocks = []
    listed = [*others, *((key, config.values[key.name]) for key in keys())]
    for title, group in groupby(listed, key=lambda entry: entry[0].group or _owners(entry[0])):
        blocks.append("\n".join(f"# == {line} ".ljust(_WIDTH, "=") for line in wrap(title, _WIDTH - 10)))
        for key, value in group:
            takes = ": ".join(filter(None, [key.unit, key.allowed]))
            comment = wrap(f"{key.meaning} [{takes}]", _WIDTH - 2, break_on_hyphens=False)
            blocks.append("\n".join([*(f"# {line}" for line in comment), f"{key.name} = {_toml(value)}"]))
    return "\n\n".join(blocks) + "\n"


def _owners(key: Key) -> str:
    """Return who has the key in words: methods, or those without it, then ``aggregator = 'krum'`` and the like."""
    owning = [owner for owner in key.owners if "=" not in owner]
    values: dict[str, list[str]] = {}
    for owner in key.owners:
        name, _, value = owner.partition("=")
        if value:
            values.setdefault(name, []).append(repr(value))
    some = f"Method{'s' * (len(owning) > 1)} {', '.join(owning)}" if owning else ""
    lacking = sorted(methods() - set(owning))
    if len(lacking) < len(owning):
        some = "Every method" + (f" but {', '.join(lacking)}" if lacking else "")
    return "; ".join(filter(None, [some, *(f"{name} = {', '.join(found)}" for name, found in values.items())]))


def _toml(value: Scalar) -> str:
    """Return a TOML scalar. JSON's scalars are TOML's, except for one character, which JSON keeps and TOML forbids."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
