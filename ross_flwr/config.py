"""The run configuration: typed, validated, every key documented once.

A key is a dataclass field made by `option`. The keys of a run stand in `Config`; a method's own keys stand on its
class in `ross_flwr/algorithms`, beside the equations they belong to, and join the rest when it registers.
Outside Python a key is written in kebab-case, in a TOML file, after ``ross-flwr run -c`` and after
``flwr run --run-config`` alike; `to_toml` writes all of them, with what they mean.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import groupby
from math import inf, isfinite
from textwrap import wrap
from typing import Any, TypeAlias, get_type_hints

__all__ = [
    "Config",
    "ConfigError",
    "Key",
    "Scalar",
    "declare",
    "host_and_port",
    "keys",
    "option",
    "pick",
    "relevant",
    "require",
    "resolve",
    "to_toml",
]

Scalar: TypeAlias = bool | int | float | str


_MANY = 30
"""So many names still make a sentence that somebody reads."""


class ConfigError(ValueError):
    """Bad input, told in one sentence: what was wrong, which value, what would be right."""


def host_and_port(address: str, said: str) -> tuple[str, int]:
    """Return the two of ``host:port``, an IPv6 host without its brackets; `said` is how the user gave the address."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(f"{said} is no address: use host:port, such as 192.168.1.20:9700")
    return host.strip("[]"), int(port)


def require(key: str, value: str, known: Iterable[str]) -> None:
    """Refuse `value` for `key` unless it is one of `known`, and name the nearest known value."""
    known = sorted(known)
    if value not in known:
        nearest = get_close_matches(value, known, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        names = known if len(known) <= _MANY else get_close_matches(value, known, n=8, cutoff=0)
        others = f" or {len(known) - len(names)} others" * (len(names) < len(known))
        raise ConfigError(f"{key} = {_shown(value)} is not known: use one of {', '.join(names)}{others}{hint}")


_KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


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
    heading: str = ""
    """What this key and those after it are about; empty for the same as the key before."""
    methods: tuple[str, ...] = ()
    """The methods that have this key; empty for a key of every run."""

    @property
    def allowed(self) -> str:
        """What values the key takes, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = _KINDS[self.kind]
        if self.minimum is not None and self.maximum is not None:
            return f"{words} from {_number(self.minimum)} to {_number(self.maximum)}"
        if self.minimum is not None:
            return f"{words} of at least {_number(self.minimum)}"
        if self.maximum is not None:
            return f"{words} of at most {_number(self.maximum)}"
        return words

    def parse(self, value: object) -> Scalar:
        """Return `value` as this key's type, or raise `ConfigError`."""
        if self.kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if type(value) is not self.kind or not self._has_room_for(value):
            raise ConfigError(f"{self.name} = {_shown(value)} is not allowed: it takes {self.allowed}")
        assert isinstance(value, bool | int | float | str)
        if self.choices:
            require(self.name, str(value), self.choices)
        return value

    def _has_room_for(self, value: object) -> bool:
        if isinstance(value, str):
            return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
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
    heading: str = "",
) -> Any:  # a dataclass field specifier: the annotation beside it gives the type
    """Declare a configuration key as a dataclass field.

    Parameters
    ----------
    default : bool, int, float or str
        Its value when nobody gives one.
    meaning : str
        What it does, for somebody who has not read the code.
    unit : str, optional
        What a number counts or measures.
    choices : iterable of str, optional
        The texts it takes; without them any.
    minimum, maximum : float, optional
        The range of a number, both ends included. NaN and infinities are never taken.
    heading : str, optional
        Opens a group of keys in the list that people read.
    """
    metadata = {
        "default": default,
        "meaning": meaning,
        "unit": unit,
        "choices": tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
        "heading": heading,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The keys every run has. Build one with `resolve`."""

    algorithm: str = option("ross", "the method; `ross-flwr list algorithms` shows them", heading="The run")
    beside: str = option(
        "dpsgd", "a second method run on the same data, batches and attackers for comparison; empty for none"
    )
    num_agents: int = option(10, "agents, spread over the nodes there are", unit="agents", minimum=2)
    num_rounds: int = option(60, "how long to run", unit="rounds", minimum=1)
    batches_per_round: int = option(
        1, "passes over the method's steps, one mini-batch each, that count as one round", unit="passes", minimum=1
    )
    seed: int = option(0, "everything random in a run follows from it", minimum=0, maximum=2**32 - 1)

    topology: str = option(
        "random-regular", "who talks to whom; `ross-flwr list topologies` shows the graphs", heading="The graph"
    )
    topology_degree: int = option(4, "degree of the graphs that have one", unit="neighbours", minimum=1)
    topology_probability: float = option(
        0.4, "edge or rewiring probability of the random graphs", minimum=0.0, maximum=1.0
    )
    topology_radius: float = option(
        0.4, "how far agents of topology = 'geographic' hear each other; 1 is the side of their square", minimum=0.0
    )
    topology_every: int = option(
        0, "draw a random or changing graph anew every so many rounds; 0 keeps the first", unit="rounds", minimum=0
    )
    topology_clusters: int = option(2, "clusters of topology = 'clusters' and 'islands'", unit="clusters", minimum=2)
    average_every: int = option(
        0,
        "in one of so many rounds every agent has all others as its neighbours, with equal weights, as if a server "
        "averaged (Gossip-PGA); 0 for never",
        unit="rounds",
        minimum=0,
    )
    topology_file: str = option("", "edge list, one 'i j' a line, for topology = 'edge-list'")
    mixing: str = option(
        "metropolis", "how the mixing matrix is made from the graph; `ross-flwr list mixing` shows the rules"
    )

    dataset: str = option("digits", "the data; `ross-flwr list datasets` shows them", heading="Data and model")
    data_path: str = option(
        "",
        "where the data lies: a folder of torchvision, one of class folders (image-folder), a .npz or .pt file "
        "(file), a folder or, to download, a name on the hub (huggingface); the digits need none",
    )
    download: bool = option(False, "fetch the data when it is not in data-path")
    image_size: int = option(0, "resize images read from files to this square; 0 keeps them", unit="pixels", minimum=0)
    num_classes: int = option(0, "classes there are, where the data shows fewer; 0 for as many as it shows", minimum=0)
    label_column: str = option("", "column of dataset = 'huggingface' with the classes; empty for the only one")
    owner_column: str = option("", "column, or array of dataset = 'file', that partition = 'natural-id' deals by")
    partition: str = option(
        "dirichlet", "how the training data is dealt to the agents; `ross-flwr list partitions` shows the ways"
    )
    partition_alpha: float = option(0.5, "concentration of the Dirichlet partitions; small is skewed", minimum=1e-3)
    classes_per_agent: int = option(
        2,
        "classes an agent gets under partition = 'shards', 'pathological' or 'distribution', or Q_i under validation = "
        "'few-classes'",
        unit="classes",
        minimum=1,
    )
    imbalance: float = option(
        10.0, "largest class over smallest class of the long-tailed partitions; 1 for no tail", minimum=1.0
    )
    examples_per_agent: int = option(
        0, "deal only num-agents times so many, drawn at random; 0 deals all", unit="examples", minimum=0
    )
    too_few: str = option(
        "refuse",
        "what is done about an agent with fewer examples than batch-size: no run, or some of the largest agents' move "
        "to it",
        choices=("refuse", "top-up"),
    )
    batch_size: int = option(32, "size of a mini-batch", unit="examples", minimum=1)
    validation_size: int = option(
        100,
        "size of each agent's validation set Q_i, held out of the training data; 0 for methods that need none",
        unit="examples",
        minimum=0,
    )
    validation: str = option(
        "balanced",
        "classes of Q_i: all alike, mixed as in the agent's own data, or classes-per-agent drawn ones",
        choices=("balanced", "own-mix", "few-classes"),
    )
    validation_noise: float = option(
        0.0, "share of Q_i's labels that are replaced by another class", minimum=0.0, maximum=1.0
    )
    test_size: int = option(0, "test examples on which accuracy is reported; 0 takes all", unit="examples", minimum=0)
    model: str = option("mlp", "the model; `ross-flwr list models` shows them")
    hidden: int = option(64, "width of the hidden layer of mlp and cnn", unit="units", minimum=1)

    corruption: str = option(
        "none", "what is wrong with some agents' data; `ross-flwr list corruptions` shows it", heading="Bad data"
    )
    corrupted: int = option(3, "how many agents hold bad data, drawn from those that do not attack", minimum=0)
    corrupted_agents: str = option("", "which agents hold bad data, as '1,4,7'; empty to draw `corrupted` of them")
    corruption_rate: float = option(1.0, "share of a corrupted agent's examples that are bad", minimum=0.0, maximum=1.0)
    noise_sigma: float = option(0.5, "σ of feature-noise, in deviations of a pixel", minimum=0.0)
    trigger_size: int = option(3, "side of the backdoor's white square", unit="pixels", minimum=1)
    target_class: int = option(0, "what the backdoor makes of every image", minimum=0)

    attack: str = option(
        "gradient-scaling", "what attackers do; `ross-flwr list attacks` shows them", heading="Attackers"
    )
    attackers: int = option(3, "how many agents attack, chosen by the seed", unit="agents", minimum=0)
    attack_scale: float = option(
        -3.0,
        "the number of attacks on gradients as they are computed: the factor of gradient-scaling, the σ of "
        "gradient-noise, the value of gradient-constant",
    )
    attack_strength: float = option(
        0.0,
        "the number of attacks on messages: s of sign-flip, ε of ipm and dissensus, z of alie, σ of gaussian, k of "
        "stale; 0 takes the one that `ross-flwr list attacks` names or implies",
        minimum=0.0,
    )
    attack_target: str = option(
        "all",
        "what attacks spoil: cross-gradients, everything else (the own gradients, models, momenta), or both",
        choices=("all", "model", "gradients"),
    )
    attack_from: int = option(1, "the first round in which attackers attack", unit="round", minimum=1)
    omniscient: bool = option(
        False, "whether attackers know what honest agents send in the same step, and not only what they have heard"
    )

    dropout: float = option(
        0.0, "part of the rounds that each agent misses, by chance", minimum=0.0, maximum=0.99, heading="Faults"
    )
    outage_rounds: int = option(1, "how long an agent that drops out stays away", unit="rounds", minimum=1)
    stopped: int = option(0, "agents that stop for ever, after a round drawn for each", unit="agents", minimum=0)
    slow: int = option(0, "agents that take part in one of slow-rounds rounds only", unit="agents", minimum=0)
    slow_rounds: int = option(3, "rounds that a slow agent needs for one", unit="rounds", minimum=2)
    message_loss: float = option(
        0.0, "part of the messages that get lost on their way, by chance", minimum=0.0, maximum=1.0
    )

    aggregator: str = option(
        "mean",
        "how an agent makes one vector of its neighbourhood's wherever a method mixes; mean is by the mixing matrix; "
        "`ross-flwr list aggregators` shows the rules",
        heading="Robust mixing",
    )
    pre_aggregation: str = option(
        "none",
        "what is done to a neighbourhood's vectors before: nothing, averaging random pairs, or averaging each with "
        "those nearest to it",
        choices=("none", "bucketing", "nnm"),
    )
    variance: str = option(
        "none",
        "whether an average of models is spread out again, tensor by tensor, to the variance of the agent's own model "
        "or to the mean variance of the others'",
        choices=("none", "own", "others"),
    )
    byzantine: int = option(1, "f, the lying neighbours a robust method is prepared for", minimum=0)
    clip_radius: float = option(
        1.0, "τ of aggregator = 'centered-clipping': nobody pulls an agent farther than this", minimum=0.0
    )

    device: str = option(
        "auto",
        "where gradients are computed; auto takes a GPU if there is one",
        choices=("auto", "cpu", "cuda"),
        heading="Machine and results",
    )
    threads: int = option(
        1, "threads PyTorch may use in one process; 0 leaves its default", unit="threads", minimum=0, maximum=1024
    )
    evaluate_every: int = option(1, "test the agents every so many rounds", unit="rounds", minimum=1)
    checkpoint_every: int = option(
        10,
        "save what a run needs to be resumed every so many rounds; 0 for only when it ends",
        unit="rounds",
        minimum=0,
    )
    results: str = option("", "folder in which the ServerApp keeps its results; empty for none")
    state_dir: str = option(
        "",
        "folder on each Flower node's machine in which its agents' state waits for the next message; empty for "
        "Flower's own node state, which travels between processes with every message",
    )

    num_nodes: int = option(
        0,
        "Flower nodes to wait for and use; 0 takes those there are",
        unit="nodes",
        minimum=0,
        heading="Flower (a local run has no use for these)",
    )
    node_timeout: float = option(600.0, "give up when the nodes are not there by then", unit="seconds", minimum=0.1)
    phase_timeout: float = option(
        60.0, "a neighbour later than this is missing for the step", unit="seconds", minimum=0.01
    )
    transport: str = option(
        "relay",
        "how messages travel between nodes: relay carries them through Flower, direct from node to node over gRPC, for "
        "which each SuperNode needs peer-address and peer-certs in its --node-config; hybrid is relay in the rounds of "
        "average-every and direct in the others",
        choices=("relay", "direct", "hybrid"),
    )
    segment_rounds: int = option(
        20, "transport = 'direct' hears from the nodes at least every so many rounds", unit="rounds", minimum=1
    )
    return_model: str = option(
        "none",
        "what transport = 'direct' brings to the ServerApp beside the history: no model, or each agent's last",
        choices=("none", "final"),
    )
    peer_insecure: bool = option(False, "let nodes talk to each other without certificates, on one machine")
    peer_insecure_remote: bool = option(False, "say it again, for nodes on several machines")

    options: Mapping[str, Scalar] = field(default_factory=dict)
    """Every key, the methods' own included, as resolved."""


_methods: dict[str, type] = {}


def declare(method: str, cls: type) -> None:
    """Add the option fields of dataclass `cls` to the known keys, as those of `method`.

    Raises
    ------
    ConfigError
        When a key of the same name already stands elsewhere with another type, default or meaning, or cannot be one.
    """
    known = {key.name: key for key in _merged(name for name in _methods if name != method)}
    for key in _keys_of(cls):
        if key.kind not in _KINDS:
            raise ConfigError(f"key {key.name} of {method} is a {key.kind}: declare a bool, int, float or str")
        key.parse(key.default)
        twin = known.get(key.name)
        if twin and dataclasses.replace(twin, methods=()) != key:
            owners = ", ".join(twin.methods) or "every run"
            raise ConfigError(f"key {key.name} of {method} is already declared differently by {owners}")
    _methods[method] = cls


def keys() -> list[Key]:
    """Return all known keys: the run's, then the methods', those that the same methods share side by side."""
    return _merged(_methods)


def pick(cls: type, options: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the constructor arguments that dataclass `cls` takes from the resolved `options`."""
    return {key.name.replace("-", "_"): options[key.name] for key in _keys_of(cls)}


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
            raise ConfigError(f"key {name} (value {_shown(raw[name])}) is not known: {hint}")
    options = {name: key.parse(raw.get(name, key.default)) for name, key in known.items()}
    arguments: dict[str, Any] = pick(Config, options)
    return Config(**arguments, options=options)


def relevant(config: Config) -> dict[str, Scalar]:
    """Return the options of every run and of the configured method: all that another process has to be told.

    It may not know the methods that are registered here.
    """
    known = [key.name for key in keys() if not key.methods or config.algorithm in key.methods]
    return {name: config.options[name] for name in known if name in config.options}


_WIDTH = 80


def to_toml(options: Mapping[str, Scalar]) -> str:
    """Return the resolved `options` as a TOML document that tells what each key means, its unit and what it takes.

    It parses back to the same options, so what ``ross-flwr config`` prints and what stands in the folder of a run can
    be edited and run.
    """
    blocks = []
    for title, group in groupby(_titled(keys()), key=lambda entry: entry[0]):
        blocks.append("\n".join(f"# == {line} ".ljust(_WIDTH, "=") for line in wrap(title, _WIDTH - 10)))
        for _, key in group:
            takes = ": ".join(filter(None, [key.unit, key.allowed]))
            comment = wrap(f"{key.meaning} [{takes}]", _WIDTH - 2, break_on_hyphens=False)
            blocks.append("\n".join([*(f"# {line}" for line in comment), f"{key.name} = {_toml(options[key.name])}"]))
    return "\n\n".join(blocks) + "\n"


def _titled(listed: Iterable[Key]) -> Iterable[tuple[str, Key]]:
    title = ""
    for key in listed:
        if key.methods:
            title = f"Method{'s' * (len(key.methods) > 1)} {', '.join(key.methods)}"
            if len(key.methods) == len(_methods):
                title = "Every method"
        else:
            title = key.heading or title
        yield title, key


def _toml(value: Scalar) -> str:
    """JSON's scalars are TOML's but for one character, which JSON leaves as it is and TOML does not allow."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shown(value: object) -> str:
    """Return a value as a person would write it: texts in quotes, true and false without capitals."""
    if isinstance(value, str):
        return repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def _merged(methods: Iterable[str]) -> list[Key]:
    run = {key.name: key for key in _keys_of(Config)}
    shared: dict[str, Key] = {}
    for method in methods:
        for key in _keys_of(_methods[method]):
            if key.name not in run:
                known = shared.setdefault(key.name, key)
                shared[key.name] = dataclasses.replace(known, methods=(*known.methods, method))
    groups: dict[tuple[str, ...], list[Key]] = {}
    for key in shared.values():
        groups.setdefault(key.methods, []).append(key)
    return [*run.values(), *(key for group in groups.values() for key in group)]


def _keys_of(cls: type) -> Iterable[Key]:
    hints = get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        if "meaning" in entry.metadata:
            yield Key(entry.name.replace("_", "-"), hints[entry.name], **entry.metadata)
