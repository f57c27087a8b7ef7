"""A configuration: a value for every key, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

from ross_flwr.config.groups import keys
from ross_flwr.config.keys import ConfigError, Scalar, keys_of, shown

__all__ = ["Config", "relevant", "resolve"]

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """A value for every key. Build one with `resolve`.

    Attributes
    ----------
    values : mapping of str to bool, int, float or str
        By key, in kebab-case. The empty text under a key whose default differs between methods leaves each its own.
    """

    values: Mapping[str, Scalar]
    _parts: dict[type, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def part(self, cls: type[T]) -> T:
        """Return the group or the method `cls` with its values; the same object every time."""
        if cls not in self._parts:
            given = {key.name: self.values[key.name] for key in keys_of(cls)}
            own = {key.name for key in keys() if key.defaults and self.values[key.name] == ""}
            self._parts[cls] = cls(
                **{name.replace("-", "_"): value for name, value in given.items() if name not in own}
            )
        part: T = self._parts[cls]
        return part


def resolve(raw: Mapping[str, object]) -> Config:
    """Check `raw` (kebab-case keys) and fill in the defaults.

    Raises
    ------
    ConfigError
        On an unknown key, a wrong type or an impossible value.
    """
    known = {key.name: key for key in keys()}
    for name in raw:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else "`ross-flwr config` lists the keys"
            raise ConfigError(f"key {name} (value {shown(raw[name])}) is not known: {hint}")
    return Config({name: key.parse(raw.get(name, key.default)) for name, key in known.items()})


def relevant(config: Config, method: str) -> dict[str, Scalar]:
    """Return the values of every run's keys and of the method's: all that another process has to be told.

    It may not know the other methods that are registered here, and so no key that has its method's own default.
    """
    told = [key for key in keys() if not key.methods or method in key.methods]
    return {
        key.name: config.values[key.name]
        for key in told
        if key.name in config.values and not (key.defaults and config.values[key.name] == "")
    }
