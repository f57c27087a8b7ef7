"""The keys of a run, and those of the methods, resolved into one configuration."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from ross_flwr.config.keys import KINDS, ConfigError, Key, Scalar, keys_of, option, shown

__all__ = ["Config", "declare", "keys", "methods", "pick", "relevant", "resolve"]


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
    for key in keys_of(cls):
        if key.kind not in KINDS:
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
    return {key.name.replace("-", "_"): options[key.name] for key in keys_of(cls)}


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
    options = {name: key.parse(raw.get(name, key.default)) for name, key in known.items()}
    arguments: dict[str, Any] = pick(Config, options)
    return Config(**arguments, options=options)


def relevant(config: Config) -> dict[str, Scalar]:
    """Return the options of every run and of the configured method: all that another process has to be told.

    It may not know the methods that are registered here.
    """
    known = [key.name for key in keys() if not key.methods or config.algorithm in key.methods]
    return {name: config.options[name] for name in known if name in config.options}


def _merged(methods: Iterable[str]) -> list[Key]:
    run = {key.name: key for key in keys_of(Config)}
    shared: dict[str, Key] = {}
    for method in methods:
        for key in keys_of(_methods[method]):
            if key.name not in run:
                known = shared.setdefault(key.name, key)
                shared[key.name] = dataclasses.replace(known, methods=(*known.methods, method))
    groups: dict[tuple[str, ...], list[Key]] = {}
    for key in shared.values():
        groups.setdefault(key.methods, []).append(key)
    return [*run.values(), *(key for group in groups.values() for key in group)]


def methods() -> int:
    """Return how many methods have declared their keys."""
    return len(_methods)
