"""What a configuration key is: its type, its range, how it is written, and the error for a bad value."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from math import inf, isfinite
from pathlib import PurePath
from typing import Any, TypeAlias, get_type_hints

__all__ = [
    "ConfigError",
    "Key",
    "Scalar",
    "keys_of",
    "one_line",
    "option",
    "part",
    "require",
    "shown",
    "values_of",
]

Scalar: TypeAlias = bool | int | float | str


_type_hints = cache(get_type_hints)

_MANY = 30
"""The most names that an error message lists in full."""


_CENTRAL = [
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "feddyn",
    "fednova",
    "fedopt",
    "fedprox",
    "fedsgd",
    "fedyogi",
    "moon",
    "scaffold",
]
"""Methods that people try and that need a server."""

_MANY_METHODS = 6
"""Methods that share a default are counted from this number on, not named."""


class ConfigError(ValueError):
    """Bad input. The message is one sentence: what was wrong, which value, what would be right.

    Examples
    --------
    >>> from ross_flwr import resolve
    >>> resolve({"num-rounds": 0})
    Traceback (most recent call last):
        ...
    ross_flwr.config.keys.ConfigError: num-rounds = 0 is not allowed: it takes a whole number of at least 1
    """


def require(key: str, value: str, known: Iterable[str]) -> None:
    """Refuse `value` for `key` unless it is one of `known`, and name the nearest known value.

    Examples
    --------
    >>> require("topology", "rings", ["path", "ring"])
    Traceback (most recent call last):
        ...
    ross_flwr.config.keys.ConfigError: topology = 'rings' is not known: use one of path, ring; did you mean 'ring'?
    """
    known = sorted(known)
    if value not in known:
        plain = value.lower()
        if key in ("algorithm", "beside") and re.sub("[-_]", "", plain) in _CENTRAL:
            raise ConfigError(
                f"{key} = {shown(value)} is not known: it needs a server, and agents here have none; the nearest are "
                "'dpsgd' and, with local steps, 'dfedavgm'"
            )
        nearest = get_close_matches(plain, known, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        names = known if len(known) <= _MANY else get_close_matches(plain, known, n=8, cutoff=0)
        others = f" or {len(known) - len(names)} others" * (len(names) < len(known))
        raise ConfigError(f"{key} = {shown(value)} is not known: use one of {', '.join(names)}{others}{hint}")


KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Key:
    """One configuration key, as users see it.

    Examples
    --------
    >>> key = Key("momentum", float, 0.9, "how much of the last step is kept", minimum=0.0, maximum=1.0)
    >>> key.parse(1), key.allowed
    (1.0, 'a number from 0 to 1')
    """

    name: str
    kind: type
    default: Scalar
    meaning: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    group: str = ""
    """The title of the key's group; empty for a key that only some runs have."""
    owners: tuple[str, ...] = ()
    """The owners of the key: methods, and values of other keys, such as ``"aggregator=krum"``; empty for every run."""
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    """Each owner's default if they differ; the key's own is then the empty text."""

    @property
    def allowed(self) -> str:
        """The values that the key takes, in words."""
        sharing: dict[Scalar, list[str]] = {}
        for method, default in self.defaults.items():
            sharing.setdefault(default, []).append(method)
        own = ", ".join(
            f"{shown(default)} in {', '.join(methods) if len(methods) < _MANY_METHODS else f'{len(methods)} others'}"
            for default, methods in sorted(sharing.items(), key=lambda item: len(item[1]))
        )
        return self._range + f"; '' for the method's own: {own}" * bool(own)

    @property
    def _range(self) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = KINDS[self.kind]
        if self.minimum is not None and self.maximum is not None:
            return f"{words} from {_number(self.minimum)} to {_number(self.maximum)}"
        if self.minimum is not None:
            return f"{words} of at least {_number(self.minimum)}"
        if self.maximum is not None:
            return f"{words} of at most {_number(self.maximum)}"
        return words

    def parse(self, value: object) -> Scalar:
        """Return `value` as this key's type, or raise `ConfigError`."""
        if self.defaults and value == "":
            return ""
        if self.kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if isinstance(value, PurePath):
            value = str(value)
        if (
            not isinstance(value, bool | int | float | str)
            or type(value) is not self.kind
            or not self._has_room_for(value)
        ):
            unlike = " without the character NUL" if "\0" in str(value) else ""
            raise ConfigError(f"{self.name} = {shown(value)} is not allowed: it takes {self.allowed}{unlike}")
        if self.choices:
            require(self.name, str(value), self.choices)
        return value

    def _has_room_for(self, value: object) -> bool:
        if isinstance(value, str):
            return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        low = -inf if self.minimum is None else self.minimum
        high = inf if self.maximum is None else self.maximum
        return isfinite(value) and low <= value <= high and (self.kind is float or abs(value) < 2**63)


def option(
    default: Scalar,
    meaning: str,
    *,
    unit: str = "",
    choices: Iterable[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:  # a dataclass field specifier: the annotation beside it gives the type
    """Declare a configuration key as a dataclass field.

    Parameters
    ----------
    default : bool, int, float or str
        Its value if none is given.
    meaning : str
        What it does, for readers who do not know the code.
    unit : str, optional
        What a number counts or measures.
    choices : iterable of str, optional
        The texts that it takes; without them, any.
    minimum, maximum : float, optional
        The range of a number, both ends included. NaN and infinities are never taken.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Decay:
    ...     rate: float = option(0.9, "how much of a weight is kept", minimum=0.0, maximum=1.0)
    >>> Decay().rate, keys_of(Decay)[0].allowed
    (0.9, 'a number from 0 to 1')
    """
    metadata = {
        "default": default,
        "meaning": meaning,
        "unit": unit,
        "choices": tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=metadata)


def shown(value: object) -> str:
    """Return a value as a person would write it: texts in quotes, true and false without capitals.

    Examples
    --------
    >>> shown("ring"), shown(True), shown(0.5)
    ("'ring'", 'true', '0.5')
    """
    if isinstance(value, str):
        return repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def one_line(text: str) -> str:
    r"""Return what others may have written as one line, without what terminals obey or cannot show.

    Examples
    --------
    >>> one_line("no data\n\x1b[2J[ROUND 4/4]")
    'no data  [2J[ROUND 4/4]'
    """
    return "".join(each if each.isprintable() or each == "\t" else " " for each in text)


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def part(cls: type) -> Any:
    """Declare a dataclass field that holds a dataclass of options: its keys are keys of the whole.

    Parameters
    ----------
    cls : type
        The dataclass; the field's default is an object with its defaults.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Decay:
    ...     rate: float = option(0.9, "how much of a weight is kept")
    >>> @dataclass(frozen=True)
    ... class Method:
    ...     decay: Decay = part(Decay)
    >>> [key.name for key in keys_of(Method)]
    ['rate']
    """
    return field(default_factory=cls, metadata={"part": cls})


def parts_of(cls: type) -> dict[str, type]:
    """Return what dataclass `cls` declares with `part`, by field."""
    return {entry.name: entry.metadata["part"] for entry in dataclasses.fields(cls) if "part" in entry.metadata}


def keys_of(cls: type) -> tuple[Key, ...]:
    """Return the keys of dataclass `cls`: its options in their order, then those of its parts.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Decay:
    ...     weight_decay: float = option(0.9, "how much of a weight is kept")
    >>> [key.name for key in keys_of(Decay)]
    ['weight-decay']
    """
    return (*options_of(cls), *(key for each in parts_of(cls).values() for key in keys_of(each)))


def values_of(whole: Any) -> dict[str, Scalar]:
    """Return the values of the keys of a dataclass object and of its parts.

    Examples
    --------
    >>> from ross_flwr import DPSGD
    >>> values_of(DPSGD(learning_rate=0.2))["learning-rate"]
    0.2
    """
    own = {key.name: getattr(whole, key.name.replace("-", "_")) for key in options_of(type(whole))}
    for name in parts_of(type(whole)):
        own |= values_of(getattr(whole, name))
    return own


def options_of(cls: type) -> tuple[Key, ...]:
    """Return the keys that dataclass `cls` declares with `option`, in their order.

    Examples
    --------
    >>> @dataclasses.dataclass
    ... class Ring:
    ...     ring_size: int = option(4, "how many stand in it")
    >>> [key.name for key in options_of(Ring)]
    ['ring-size']
    """
    hints = _type_hints(cls)
    return tuple(
        Key(entry.name.replace("_", "-"), hints[entry.name], **entry.metadata)
        for entry in dataclasses.fields(cls)
        if "meaning" in entry.metadata
    )
