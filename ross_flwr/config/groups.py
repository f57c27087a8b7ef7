"""The known keys: the groups of a run, and the methods' own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from threading import RLock
from typing import TypeVar, dataclass_transform

from ross_flwr.config.keys import KINDS, ConfigError, Key, keys_of

__all__ = ["declare", "declared_in", "group", "keys", "methods"]

T = TypeVar("T")

_ORDER = (
    "The run",
    "The graph",
    "Data and model",
    "Bad data",
    "Attackers",
    "Faults",
    "Privacy",
    "Compression",
    "Robust mixing",
    "Machine and results",
    "Flower (a local run has no use for these)",
)
"""The titles of the groups in the order of lists; others follow."""

_groups: dict[str, type] = {}
_owners: dict[str, type] = {}
_unread: list[str] = []
_reading = RLock()


@dataclass_transform(kw_only_default=True, frozen_default=True)
def group(title: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: make a frozen dataclass of `option` fields a group of keys that every run has.

    Parameters
    ----------
    title : str
        The heading of the keys in lists.

    Raises
    ------
    ConfigError
        As for `declare`.

    Examples
    --------
    >>> from ross_flwr.config import option, resolve
    >>> @group("Weights")
    ... class WeightOptions:
    ...     weight_decay: float = option(0.9, "how much of a weight is kept", minimum=0.0, maximum=1.0)
    >>> resolve({"weight-decay": 0.5}).part(WeightOptions)
    WeightOptions(weight_decay=0.5)
    """

    def decorate(cls: type[T]) -> type[T]:
        dataclass(frozen=True, kw_only=True)(cls)
        _check(cls, _merged(_without(_groups, title), _owners))
        _groups[title] = cls
        return cls

    return decorate


def declare(owner: str, cls: type) -> None:
    """Add the options of dataclass `cls` to the known keys, as those of `owner`.

    Owners may share a key. They must then agree on everything but its default. If their defaults differ, the key's
    default is the empty text, which leaves each owner its own.

    Parameters
    ----------
    owner : str
        A method by its name, or a value of another key, such as ``"aggregator=krum"``.
    cls : type
        The dataclass.

    Raises
    ------
    ConfigError
        When a key of the same name is already declared with another type, range or meaning, or the key is invalid.

    Examples
    --------
    >>> from ross_flwr.config import option, resolve
    >>> @dataclass(frozen=True)
    ... class Decay:
    ...     shrink: float = option(0.9, "how much of a weight is kept")
    >>> declare("my-method", Decay)
    >>> [key.owners for key in keys() if key.name == "shrink"]
    [('my-method',)]
    """
    _check(cls, _merged(_groups, _without(_owners, owner)), owner)
    _owners[owner] = cls


def declared_in(*modules: str) -> None:
    """Name modules that declare keys. They are imported when keys are first asked for."""
    _unread.extend(modules)


def keys() -> list[Key]:
    """Return all known keys: those of the groups, then the others, with keys of the same owners side by side.

    Examples
    --------
    >>> [key.default for key in keys() if key.name == "topology"]
    ['random-regular']
    """
    with _reading:
        while _unread:
            import_module(_unread.pop(0))
    return _merged(_groups, _owners)


def methods() -> set[str]:
    """Return the methods that have declared their keys."""
    return {owner for owner in _owners if "=" not in owner}


def _without(registry: Mapping[str, type], name: str) -> dict[str, type]:
    return {known: cls for known, cls in registry.items() if known != name}


def _check(cls: type, listed: list[Key], owner: str = "") -> None:
    known = {key.name: key for key in listed}
    for key in keys_of(cls):
        name = f"key {key.name} of {owner or cls.__name__}"
        if key.kind not in KINDS:
            raise ConfigError(f"{name} is a {key.kind}: declare a bool, int, float or str")
        key.parse(key.default)
        twin = known.get(key.name)
        if twin is None:
            continue
        shared = owner and twin.owners
        default = key.default if shared else twin.default
        if replace(twin, default=default, group="", owners=(), defaults={}) != key:
            owners = ", ".join(twin.owners) or "every run"
            raise ConfigError(f"{name} is already declared differently by {owners}")


def _merged(groups: Mapping[str, type], owners: Mapping[str, type]) -> list[Key]:
    titles = sorted(groups, key=lambda title: _ORDER.index(title) if title in _ORDER else len(_ORDER))
    of_run = {key.name: replace(key, group=title) for title in titles for key in keys_of(groups[title])}
    of_some: dict[str, dict[str, Key]] = {}
    for owner, cls in owners.items():
        for key in keys_of(cls):
            if key.name not in of_run:
                of_some.setdefault(key.name, {})[owner] = key
    blocks: dict[tuple[str, ...], list[Key]] = {}
    for declared in of_some.values():
        blocks.setdefault(tuple(declared), []).append(_shared(declared))
    return [*of_run.values(), *(key for block in blocks.values() for key in block)]


def _shared(declared: Mapping[str, Key]) -> Key:
    """Return the key that owners share, from each owner's declaration."""
    key = replace(next(iter(declared.values())), owners=tuple(declared))
    defaults = {owner: key.default for owner, key in declared.items()}
    return replace(key, default="", defaults=defaults) if len(set(defaults.values())) > 1 else key
