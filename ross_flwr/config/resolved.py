"""A configuration: a value for every key, checked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

from ross_flwr.config.groups import keys
from ross_flwr.config.keys import ConfigError, Scalar, options_of, parts_of, shown

__all__ = ["Config", "likely_key", "relevant", "resolve"]

T = TypeVar("T")

TRIED = {
    "agents": "num-agents",
    "alpha": "partition-alpha",
    "attacker": "attackers",
    "batch": "batch-size",
    "bs": "batch-size",
    "clients": "num-agents",
    "cuda": "device",
    "data": "dataset",
    "degree": "topology-degree",
    "epoch": "num-rounds",
    "epochs": "num-rounds",
    "gpu": "device",
    "graph": "topology",
    "local-epochs": "local-steps",
    "lr": "learning-rate",
    "method": "algorithm",
    "min-available-clients": "num-nodes",
    "min-available-nodes": "num-nodes",
    "n": "num-agents",
    "net": "model",
    "network": "topology",
    "nodes": "num-agents",
    "num-clients": "num-agents",
    "num-epochs": "num-rounds",
    "num-server-rounds": "num-rounds",
    "path": "data-path",
    "rounds": "num-rounds",
    "rule": "aggregator",
    "step-size": "learning-rate",
    "strategy": "algorithm",
}
"""Names that people try, and the keys that they mean."""


@dataclass(frozen=True)
class Config:
    """A value for every key. Build one with `resolve`.

    Attributes
    ----------
    values : mapping of str to bool, int, float or str
        By key, in kebab-case. If a key's default differs between methods, the empty text means each method's own
        default.

    Examples
    --------
    >>> from ross_flwr import DPSGD
    >>> resolve({"algorithm": "dpsgd", "learning-rate": 0.2}).part(DPSGD).learning_rate
    0.2
    """

    values: Mapping[str, Scalar]
    _parts: dict[type, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def part(self, cls: type[T]) -> T:
        """Return the group, method or rule `cls` with its values; the same object every time."""
        if cls not in self._parts:
            given = {key.name: self.values[key.name] for key in options_of(cls)}
            own = {key.name for key in keys() if key.defaults and self.values[key.name] == ""}
            values = {name.replace("-", "_"): value for name, value in given.items() if name not in own}
            self._parts[cls] = cls(**values, **{name: self.part(each) for name, each in parts_of(cls).items()})
        part: T = self._parts[cls]
        return part


def resolve(raw: Mapping[str, object]) -> Config:
    """Check `raw` (kebab-case keys) and fill in the defaults.

    Raises
    ------
    ConfigError
        On an unknown key, a wrong type or an impossible value.

    Examples
    --------
    >>> config = resolve({"topology": "ring"})
    >>> config.values["topology"], config.values["num-agents"]
    ('ring', 10)
    >>> resolve({"num-round": 20})
    Traceback (most recent call last):
        ...
    ross_flwr.config.keys.ConfigError: key num-round (value 20) is not known: did you mean num-rounds?
    """
    known = {key.name: key for key in keys()}
    for name in raw:
        if name not in known:
            nearest = likely_key(name, known)
            hint = f"did you mean {nearest}?" if nearest else "`ross-flwr config` lists the keys"
            raise ConfigError(f"key {name} (value {shown(raw[name])}) is not known: {hint}")
    return Config({name: key.parse(raw.get(name, key.default)) for name, key in known.items()})


def likely_key(name: str, known: Iterable[str]) -> str:
    """Return the key that somebody means who writes `name`; an empty text if none is likely.

    Examples
    --------
    >>> likely_key("lr", ["learning-rate", "seed"]), likely_key("seeed", ["learning-rate", "seed"])
    ('learning-rate', 'seed')
    """
    keys, plain = list(known), name.lower().replace("_", "-")
    found = [TRIED.get(plain, plain)]
    if found[0] not in keys:
        found = get_close_matches(plain, keys, n=1)
    return found[0] if found else ""


def relevant(config: Config, method: str) -> dict[str, Scalar]:
    """Return the values of the common keys, the method's and its rule's: all that another process must be told.

    The other process may not know what else is registered here. Keys left at their owner's default are omitted.

    Examples
    --------
    >>> config = resolve({})
    >>> "momentum" in relevant(config, "ross"), "momentum" in relevant(config, "dpsgd")
    (True, False)
    """

    def matters(owner: str) -> bool:
        name, _, value = owner.partition("=")
        return config.values.get(name) == value if value else owner == method

    told = [key for key in keys() if not key.owners or any(map(matters, key.owners))]
    return {
        key.name: config.values[key.name]
        for key in told
        if key.name in config.values and not (key.defaults and config.values[key.name] == "")
    }
