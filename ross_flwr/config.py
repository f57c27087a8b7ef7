"""The run configuration: typed, validated, every key documented once.

A key is a dataclass field made by `option`. The keys of a run stand in `Config`; a method's own keys stand on its
class in `ross_flwr/algorithms`, beside the equations they belong to, and join the rest when it registers.
Outside Python a key is written in kebab-case, in a TOML file, after ``ross-flwr run -c`` and after
``flwr run --run-config`` alike.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeAlias, get_type_hints

__all__ = [
    "Config",
    "ConfigError",
    "Key",
    "Scalar",
    "declare",
    "keys",
    "option",
    "pick",
    "require",
    "resolve",
]

Scalar: TypeAlias = bool | int | float | str


class ConfigError(ValueError):
    """Bad input, told in one sentence: what was wrong, which value, what would be right."""


def require(key: str, value: str, known: Iterable[str]) -> None:
    """Refuse `value` for `key` unless it is one of `known`, and name the nearest known value."""
    known = sorted(known)
    if value not in known:
        nearest = get_close_matches(value, known, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise ConfigError(f"{key} = '{value}' is not known: use one of {', '.join(known)}{hint}")


@dataclass(frozen=True)
class Key:
    """One configuration key as a person meets it."""

    name: str
    kind: type
    default: Scalar
    meaning: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    section: str = "run"

    @property
    def allowed(self) -> str:
        """What values the key takes, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[self.kind]
        if self.minimum is not None and self.maximum is not None:
            return f"{words} from {self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f"{words} of at least {self.minimum:g}"
        return words

    def parse(self, value: object) -> Scalar:
        """Return `value` as this key's type, or raise `ConfigError`."""
        if self.kind is float and type(value) is int:
            value = float(value)
        fits = type(value) is self.kind
        if fits and isinstance(value, str) and self.choices:
            require(self.name, value, self.choices)
        if fits and isinstance(value, int | float) and self.kind is not bool:
            fits = (self.minimum is None or value >= self.minimum) and (
                self.maximum is None or value <= self.maximum
            )  # NaN fails both comparisons
        if not fits:
            raise ConfigError(f"{self.name} = {value!r} is not allowed: it takes {self.allowed}")
        assert isinstance(value, bool | int | float | str)
        return value


def option(
    default: Scalar,
    meaning: str,
    *,
    unit: str = "",
    choices: Iterable[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:  # a dataclass field specifier: the annotation beside it gives the type
    """Declare a configuration key as a dataclass field."""
    metadata = {
        "default": default,
        "meaning": meaning,
        "unit": unit,
        "choices": tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The keys every run has. Build one with `resolve`."""

    algorithm: str = option("ross", "the method; `ross-flwr list algorithms` shows them")
    beside: str = option(
        "dpsgd", "a second method run on the same data, batches and attackers for comparison; empty for none"
    )
    num_agents: int = option(10, "agents, spread over the nodes there are", minimum=2)
    num_rounds: int = option(60, "rounds to run", minimum=1)
    batches_per_round: int = option(
        1, "passes over the method's steps, one mini-batch each, that count as one round", minimum=1
    )
    seed: int = option(0, "everything random in a run follows from it", minimum=0)

    topology: str = option("random-regular", "the graph; `ross-flwr list topologies` shows them")
    topology_degree: int = option(4, "degree of the graphs that have one", minimum=1)
    topology_probability: float = option(
        0.4, "edge or rewiring probability of the random graphs", minimum=0.0, maximum=1.0
    )
    topology_file: str = option("", "edge list, one 'i j' a line, for topology = 'edge-list'")
    mixing: str = option("metropolis", "how the mixing matrix is made from the graph")

    dataset: str = option("digits", "the data; `ross-flwr list datasets` shows them")
    data_path: str = option("", "folder that holds the data; the digits need none")
    download: bool = option(False, "fetch the data when it is not in data-path")
    partition: str = option("dirichlet", "how the training data is dealt to the agents")
    partition_alpha: float = option(0.5, "concentration of the Dirichlet partition; small is skewed", minimum=1e-3)
    classes_per_agent: int = option(2, "shards of one class an agent gets under partition = 'shards'", minimum=1)
    batch_size: int = option(32, "examples in a mini-batch", unit="examples", minimum=1)
    validation_size: int = option(
        100,
        "size of each agent's validation set Q_i, held out of the training data",
        unit="examples",
        minimum=1,
    )
    test_size: int = option(0, "test examples on which accuracy is reported; 0 takes all", unit="examples", minimum=0)

    model: str = option("mlp", "the model; `ross-flwr list models` shows them")
    hidden: int = option(64, "units of the MLP's hidden layer", minimum=1)
    device: str = option("auto", "where gradients are computed", choices=("auto", "cpu", "cuda"))
    threads: int = option(1, "threads PyTorch may use in one process; 0 leaves its default", minimum=0)

    attack: str = option("gradient-scaling", "what attackers do; `ross-flwr list attacks` shows them")
    attackers: int = option(3, "how many agents attack, chosen by the seed", minimum=0)
    attack_scale: float = option(-3.0, "the factor on every gradient an attacker computes")

    evaluate_every: int = option(1, "test the agents every so many rounds", unit="rounds", minimum=1)
    checkpoint_every: int = option(
        10, "save what a run needs to be resumed every so many rounds; 0 for never", unit="rounds", minimum=0
    )
    results: str = option("", "folder in which the ServerApp keeps its results; empty for none")
    num_nodes: int = option(0, "Flower nodes to wait for and use; 0 takes those there are", unit="nodes", minimum=0)
    node_timeout: float = option(600.0, "give up when the nodes are not there by then", unit="seconds", minimum=0.1)
    phase_timeout: float = option(
        60.0, "a neighbour later than this is missing for the step", unit="seconds", minimum=0.01
    )

    options: Mapping[str, Scalar] = field(default_factory=dict)
    """Every key, the methods' own included, as resolved."""


_sections: dict[str, type] = {"run": Config}


def declare(section: str, cls: type) -> None:
    """Add the option fields of dataclass `cls` to the known keys.

    Raises
    ------
    ConfigError
        When a key of the same name already stands elsewhere with another type, default or meaning.
    """
    known = {key.name: key for key in keys() if key.section != section}
    for key in _keys_of(section, cls):
        twin = known.get(key.name)
        if twin and dataclasses.replace(twin, section=section) != key:
            raise ConfigError(f"key {key.name} of {section} is already declared differently by {twin.section}")
    _sections[section] = cls


def keys() -> list[Key]:
    """Return all known keys, the run's first; a key that several methods share is listed once."""
    found: dict[str, Key] = {}
    for section, cls in _sections.items():
        for key in _keys_of(section, cls):
            found.setdefault(key.name, key)
    return list(found.values())


def pick(cls: type, options: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the constructor arguments that dataclass `cls` takes from the resolved `options`."""
    return {key.name.replace("-", "_"): options[key.name] for key in _keys_of("", cls)}


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
            raise ConfigError(f"key {name} (value {raw[name]!r}) is not known: {hint}")
    options = {name: key.parse(raw.get(name, key.default)) for name, key in known.items()}
    arguments: dict[str, Any] = pick(Config, options)
    return Config(**arguments, options=options)


def _keys_of(section: str, cls: type) -> Iterable[Key]:
    hints = get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        if "meaning" in entry.metadata:
            name = entry.name.replace("_", "-")
            yield Key(name, hints[entry.name], section=section, **entry.metadata)
