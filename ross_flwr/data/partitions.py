"""Partitions: ways to deal a training set to the agents.

`iid` and `dirichlet` need only NumPy, so the default run needs nothing else. Flower Datasets, which takes two seconds
to import, makes the partitions that it offers. The others come from papers.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng
from torch import Tensor

from ross_flwr.config import ConfigError, require
from ross_flwr.data.draws import Indices, draw_classes, indices
from ross_flwr.extras import import_extra

__all__ = ["PARTITIONS", "partition"]

Deal = Callable[..., list[Indices]]

_PURPOSE = 1  # the partition's own random stream is default_rng([seed, _PURPOSE])
_POWER = 1.6591  # exponent of CGSV's power law
_DRAWS = 10_000  # half a second for 100 agents; at alpha 0.1 and batch size 32, one draw in 200 is good enough


def iid(labels: Indices, num_agents: int, generator: Generator, **_: object) -> list[Indices]:
    """Shuffle and cut into equal parts: every agent holds a fair sample of all the data."""
    # The parts are those that Flower Datasets' IidPartitioner cuts of the same order.
    return np.array_split(generator.permutation(len(labels)), num_agents)


def dirichlet(
    labels: Indices, num_agents: int, generator: Generator, *, alpha: float, minimum: int, **_: object
) -> list[Indices]:
    """Deal each class in shares drawn from Dirichlet(alpha): with a smaller alpha, agents are less alike."""
    # Hsu et al. (2019, arXiv:1909.06335) introduced alpha; they draw the classes of each agent. Drawing the agents
    # of each class (Yurochkin et al., 2019, arXiv:1905.12022) deals all the data, and is what most do now.
    if not 0 < alpha < math.inf:
        raise ConfigError(f"partition-alpha = {alpha} is not allowed: it takes a finite number above 0")
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    counts = np.array([[len(own)] for own in members])
    for _draw in range(_DRAWS):
        shares = generator.dirichlet(np.full(num_agents, alpha), size=len(members))
        cuts = (shares.cumsum(axis=1)[:, :-1] * counts).astype(np.int64)
        if np.diff(cuts, prepend=0, append=counts).sum(axis=0).min() >= minimum:
            break
    else:
        raise ConfigError(
            f"partition-alpha = {alpha} leaves some agent fewer than batch-size = {minimum} examples in "
            f"{_DRAWS} draws: raise it, or lower batch-size or num-agents = {num_agents}"
        )
    dealt = [np.split(generator.permutation(own), cut) for own, cut in zip(members, cuts, strict=True)]
    return [np.concatenate(parts) for parts in zip(*dealt, strict=True)]


def everything(labels: Indices, num_agents: int, _generator: Generator, **_: object) -> list[Indices]:
    """Every agent holds all the data; nothing is dealt. An agent on a device holds all the data on that device."""
    return [np.arange(len(labels))] * num_agents


def power_law(labels: Indices, num_agents: int, generator: Generator, **_: object) -> list[Indices]:
    """Sizes follow a power law, and all agents have the same mix of classes (CGSV's POW); agent 0 holds the least."""
    # Xu et al. (2021): sizes ∝ N points between the 1st and the 99th percentile of p(x) = a x^(a−1), a = 1.6591.
    sizes = np.linspace(0.01 ** (1 / _POWER), 0.99 ** (1 / _POWER), num_agents)
    cuts = (sizes.cumsum()[:-1] / sizes.sum() * len(labels)).astype(np.int64)
    return np.split(generator.permutation(len(labels)), cuts)


def class_counts(labels: Indices, num_agents: int, generator: Generator, **_: object) -> list[Indices]:
    """Agents hold equally many examples, of one class (agent 0) to all (CGSV's CLA); some examples have two owners."""
    # Xu et al. (2021): agent i draws from classes 0 … c_i − 1, c = int(linspace(1, C, N)), with replacement.
    values = np.unique(labels)
    size = len(labels) // num_agents
    known = np.linspace(1, len(values), num_agents).astype(np.int64)
    return [draw_classes(labels, np.isin(values, values[:count]), size, generator) for count in known]


def long_tailed(
    labels: Indices, num_agents: int, generator: Generator, *, imbalance: float, rotate: bool = False, **_: object
) -> list[Indices]:
    """Class c has n_max · imbalance^(−c / (C − 1)) examples, and every agent the same share of each class."""
    values, sizes = np.unique(labels, return_counts=True)
    ranks = np.arange(len(values))
    first = np.arange(num_agents) % len(values) if rotate else np.zeros(num_agents, dtype=np.int64)
    weights = imbalance ** (-((ranks[:, None] - first) % len(values)) / max(len(values) - 1, 1))  # [classes, agents]
    counts = (weights * (sizes / weights.sum(axis=1)).min() + 1e-9).astype(np.int64)
    dealt = [
        np.split(generator.permutation(np.flatnonzero(labels == value)), row.cumsum())[:-1]
        for value, row in zip(values, counts, strict=True)
    ]
    return [np.concatenate(parts) for parts in zip(*dealt, strict=True)]


def long_tailed_rotated(labels: Indices, num_agents: int, generator: Generator, **settings: Any) -> list[Indices]:
    """Every agent has a long tail of its own: agent i has most of class i, modulo the number of classes."""
    return long_tailed(labels, num_agents, generator, **{**settings, "rotate": True})


def _flower(kind: str, summary: str, arguments: Callable[..., dict[str, Any]] = lambda **_: {}) -> Deal:
    """Make a partition from Flower Datasets' partitioner `kind`; `arguments` translates our settings into its own."""

    def deals(labels: Indices, num_agents: int, generator: Generator, **settings: Any) -> list[Indices]:
        partitioners, datasets = (import_extra(name, "data") for name in ("flwr_datasets.partitioner", "datasets"))
        values, classes = np.unique(labels, return_inverse=True)
        order = generator.permutation(len(labels))  # some partitioners cut data in the order it comes
        columns = {"index": order, "label": classes[order]}
        if settings.get("owners") is not None:
            columns["owner"] = settings["owners"][order]
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # leftover data; progress
            warnings.simplefilter("ignore")
            try:
                made = arguments(
                    generator=generator, size=len(labels), num_agents=num_agents, num_classes=len(values), **settings
                )
                partitioner = getattr(partitioners, kind)(**made)
                partitioner.dataset = datasets.Dataset.from_dict(columns)
                found = partitioner.num_partitions
                if found < num_agents:
                    raise ValueError(f"there are {found} owners for num-agents = {num_agents}")
                chosen = range(num_agents) if found == num_agents else generator.permutation(found)[:num_agents]
                parts = [partitioner.load_partition(int(i)).with_format("numpy")["index"][:] for i in chosen]
            except (ValueError, AssertionError, ZeroDivisionError) as error:
                raise ConfigError(f"this data cannot be dealt by {kind} of Flower Datasets: {error}") from error
        return [np.asarray(part, dtype=np.int64) for part in parts]

    deals.__doc__ = summary
    return deals


def _seed(generator: Generator) -> int:
    return int(generator.integers(2**32))


def _by_agents(*, num_agents: int, **_: object) -> dict[str, Any]:
    return {"num_partitions": num_agents}


def _by_class(*, num_agents: int, generator: Generator, **_: object) -> dict[str, Any]:
    return {"num_partitions": num_agents, "partition_by": "label", "seed": _seed(generator)}


def _dirichlet(*, alpha: float, minimum: int, **rest: Any) -> dict[str, Any]:
    return {**_by_class(**rest), "alpha": alpha, "min_partition_size": minimum}


def _inner_dirichlet(*, alpha: float, num_agents: int, generator: Generator, size: int, **_: object) -> dict[str, Any]:
    sizes = [size // num_agents] * num_agents
    return {"partition_sizes": sizes, "partition_by": "label", "alpha": alpha, "seed": _seed(generator)}


def _pathological(*, classes_per_agent: int, **rest: Any) -> dict[str, Any]:
    mode = {"class_assignment_mode": "first-deterministic"}  # as in the paper; otherwise some class may have no owner
    return {**_by_class(**rest), **mode, "num_classes_per_partition": classes_per_agent}


def _shards(*, classes_per_agent: int, **rest: Any) -> dict[str, Any]:
    return {**_by_class(**rest), "num_shards_per_partition": classes_per_agent}


def _distribution(*, classes_per_agent: int, num_classes: int, minimum: int, **rest: Any) -> dict[str, Any]:
    if rest["num_agents"] % num_classes:
        raise ValueError(f"num-agents = {rest['num_agents']} is not a multiple of the {num_classes} classes")
    # The log-normal weights of Li et al. (2020, arXiv:1812.06127), as in the partitioner's own example.
    columns = classes_per_agent * rest["num_agents"] // num_classes
    return {
        **_by_class(**rest),
        "distribution_array": rest["generator"].lognormal(0.0, 2.0, (num_classes, columns)),
        "num_unique_labels_per_partition": classes_per_agent,
        "preassigned_num_samples_per_label": -(-minimum // classes_per_agent),
    }


def _natural(*, owners: Indices | None, **_: object) -> dict[str, Any]:
    if owners is None:
        raise ValueError("its owners are not known; owner-column names the column that holds them")
    return {"partition_by": "owner"}


PARTITIONS: dict[str, Deal] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "shards": _flower(
        "ShardPartitioner", "Sort by class, cut into shards, and deal every agent classes-per-agent of them.", _shards
    ),
    "pathological": _flower(
        "PathologicalPartitioner", "Every agent holds exactly classes-per-agent classes.", _pathological
    ),
    "linear": _flower(
        "LinearPartitioner", "Agent i holds i + 1 units of data, with the same mix of classes.", _by_agents
    ),
    "square": _flower(
        "SquarePartitioner", "Agent i holds (i + 1)² units of data, with the same mix of classes.", _by_agents
    ),
    "exponential": _flower(
        "ExponentialPartitioner", "Agent i holds e^(i + 1) units of data; for few agents.", _by_agents
    ),
    "inner-dirichlet": _flower(
        "InnerDirichletPartitioner",
        "Agents hold equally many examples; each draws its own class shares from Dirichlet(partition-alpha).",
        _inner_dirichlet,
    ),
    "distribution": _flower(
        "DistributionPartitioner",
        "Every agent holds classes-per-agent neighbouring classes, in log-normal amounts; N must be a multiple of C.",
        _distribution,
    ),
    "natural-id": _flower(
        "NaturalIdPartitioner",
        "An agent holds the data of one owner (owner-column): a writer or a device, say.",
        _natural,
    ),
    "flower-dirichlet": _flower(
        "DirichletPartitioner",
        "Flower Datasets' version of dirichlet; ours draws all shares at once and needs no extra package.",
        _dirichlet,
    ),
    "pow": power_law,
    "cla": class_counts,
    "long-tailed": long_tailed,
    "long-tailed-rotated": long_tailed_rotated,
    "all": everything,
}
"""Partitions by the name that the key `partition` takes: (labels, num_agents, generator, **settings) -> indices."""


def partition(
    name: str,
    labels: Tensor,
    num_agents: int,
    *,
    alpha: float,
    classes_per_agent: int,
    minimum: int,
    seed: int,
    imbalance: float = 1.0,
    examples_per_agent: int = 0,
    owners: Tensor | None = None,
) -> list[Tensor]:
    """Deal a training set to the agents.

    Parameters
    ----------
    name : str
        A key of `PARTITIONS`.
    labels : Tensor
        Class of each example, integer, shape (n,).
    num_agents : int
        Number of agents, at least 1.
    alpha : float
        Concentration of the Dirichlet partitions, above 0. With a larger value, agents' mixtures are more alike.
    classes_per_agent : int
        Shards or classes an agent gets under `shards`, `pathological` and `distribution`, from 1 to all.
    minimum : int
        The fewest examples that an agent may hold: the batch size, or 0 if `top_up` follows.
    seed : int
        At least 0; the same seed deals the same partition.
    imbalance : float
        n_max / n_min of the long tails, at least 1.
    examples_per_agent : int
        How many examples, drawn at random, to deal per agent; 0 deals all.
    owners : Tensor, optional
        The owner of each example, integer, shape (n,), for `natural-id`.

    Returns
    -------
    list[Tensor]
        The indices of each agent, int64, ascending. No index appears twice, except under `all` and `cla`.

    Raises
    ------
    ConfigError
        If a name or setting is not allowed, or an agent would hold fewer than `minimum` examples.

    Examples
    --------
    >>> import torch
    >>> labels = torch.tensor([0, 1, 0, 1, 0, 1])
    >>> parts = partition("iid", labels, 2, alpha=0.5, classes_per_agent=1, minimum=1, seed=0)
    >>> [len(part) for part in parts], sorted(torch.cat(parts).tolist())
    ([3, 3], [0, 1, 2, 3, 4, 5])
    """
    require("partition", name, PARTITIONS)
    if num_agents < 1:
        raise ConfigError(f"num-agents = {num_agents} is not allowed: it takes a whole number of at least 1")
    if name != "all" and (needed := num_agents * max(minimum, examples_per_agent)) > len(labels):
        key = "batch-size" if minimum >= examples_per_agent else "examples-per-agent"
        raise ConfigError(
            f"num-agents = {num_agents} with {key} = {needed // num_agents} take {needed} training examples, and "
            f"there are {len(labels)}: lower one of the two"
        )
    generator = default_rng([seed, _PURPOSE])
    pool = generator.permutation(len(labels))[: num_agents * examples_per_agent] if examples_per_agent else slice(None)
    dealt = np.arange(len(labels))[pool]
    settings = {
        "alpha": alpha,
        "classes_per_agent": classes_per_agent,
        "minimum": minimum,
        "imbalance": imbalance,
        "owners": None if owners is None else owners.cpu().numpy()[dealt],
    }
    parts = PARTITIONS[name](labels.cpu().numpy()[dealt], num_agents, generator, **settings)
    if (fewest := min(len(part) for part in parts)) < minimum:
        raise ConfigError(
            f"batch-size = {minimum} is too large: partition = '{name}' leaves an agent {fewest}, which "
            "too-few = 'top-up' would fill up"
        )
    return [indices(dealt[part]) for part in parts]
