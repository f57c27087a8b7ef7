"""Who holds which examples: ways to deal a training set to the agents, and class-balanced draws."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.config import ConfigError, require

__all__ = ["PARTITIONS", "class_balanced", "partition"]

Indices = NDArray[np.int64]

_PURPOSE = 1  # of the partition's own random stream, default_rng([seed, _PURPOSE])
_DRAWS = 10_000  # half a second for 100 agents; at alpha 0.1 and batch size 32 one draw in 200 will do


def iid(labels: Indices, num_agents: int, generator: Generator, **_: object) -> list[Indices]:
    """Shuffle and cut into equal parts: every agent holds a fair sample of all the data."""
    return np.array_split(generator.permutation(len(labels)), num_agents)


def dirichlet(
    labels: Indices, num_agents: int, generator: Generator, *, alpha: float, minimum: int, **_: object
) -> list[Indices]:
    """Deal each class in shares drawn from Dirichlet(alpha): the smaller alpha, the less agents are alike."""
    # alpha is that of Hsu et al. (2019, arXiv:1909.06335), who draw the classes of each agent. To draw the
    # agents of each class (Yurochkin et al., 2019, arXiv:1905.12022) deals all the data; most do that now.
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


def shards(
    labels: Indices, num_agents: int, generator: Generator, *, classes_per_agent: int, **_: object
) -> list[Indices]:
    """Sort by class, cut into equal shards, deal every agent classes-per-agent of them: few classes each."""
    # McMahan et al. (2017, arXiv:1602.05629). A shard may straddle two classes, and two shards share one.
    num_classes, num_shards = len(np.unique(labels)), num_agents * classes_per_agent
    if not 1 <= classes_per_agent <= num_classes:
        raise ConfigError(f"classes-per-agent = {classes_per_agent} is not allowed: 1 to {num_classes} is")
    order = generator.permutation(len(labels))
    pieces = np.array_split(order[labels[order].argsort(kind="stable")], num_shards)
    hands = generator.permutation(num_shards).reshape(num_agents, classes_per_agent)
    return [np.concatenate([pieces[shard] for shard in hand]) for hand in hands]


PARTITIONS: dict[str, Callable[..., list[Indices]]] = {"iid": iid, "dirichlet": dirichlet, "shards": shards}
"""By the name that key `partition` takes: (labels, num_agents, generator, **settings) -> indices by agent."""


def partition(
    name: str,
    labels: Tensor,
    num_agents: int,
    *,
    alpha: float,
    classes_per_agent: int,
    minimum: int,
    seed: int,
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
        Concentration of `dirichlet`, above 0; towards infinity every agent gets the same mixture of classes.
    classes_per_agent : int
        Shards an agent gets under `shards`, from 1 to the number of classes.
    minimum : int
        The fewest examples an agent may hold: the batch size.
    seed : int
        At least 0; the same seed deals the same partition.

    Returns
    -------
    list[Tensor]
        The indices of each agent, int64, ascending; every one of 0 … n−1 is held by exactly one agent.

    Raises
    ------
    ConfigError
        If a name or setting is not allowed, or an agent would hold fewer than `minimum` examples.
    """
    require("partition", name, PARTITIONS)
    if num_agents < 1:
        raise ConfigError(f"num-agents = {num_agents} is not allowed: it takes a whole number of at least 1")
    if (needed := num_agents * minimum) > len(labels):
        raise ConfigError(
            f"num-agents = {num_agents} with batch-size = {minimum} take {needed} training examples, and "
            f"there are {len(labels)}: lower one of the two"
        )
    settings = {"alpha": alpha, "classes_per_agent": classes_per_agent, "minimum": minimum}
    parts = PARTITIONS[name](labels.cpu().numpy(), num_agents, default_rng([seed, _PURPOSE]), **settings)
    if (fewest := min(len(part) for part in parts)) < minimum:
        raise ConfigError(f"batch-size = {minimum} is too large: partition = '{name}' leaves an agent {fewest}")
    return [_indices(part) for part in parts]


def class_balanced(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw a class-balanced subset: a validation set Q_i, say, out of data on which no accuracy is reported.

    Returns
    -------
    tuple[Tensor, Tensor]
        The indices of the `count` chosen and of the rest, int64, ascending. Of any two classes present in
        `labels` (integer, shape (n,)) the numbers chosen differ by at most 1.

    Raises
    ------
    ConfigError
        If a class is too small for its part of `count`.
    """
    _values, classes, sizes = np.unique(labels.cpu().numpy(), return_inverse=True, return_counts=True)
    most = int(np.minimum(sizes, sizes.min(initial=len(labels)) + 1).sum())
    if not 0 <= count <= most:
        raise ConfigError(
            f"{count} examples, equally many of each class, cannot be drawn from these {len(labels)}: "
            f"their classes allow from 0 to {most} (see validation-size)"
        )
    # Every class, in random order, gives an example before any class gives another.
    by_class = np.lexsort((generator.random(len(classes)), classes))
    turn = np.empty_like(by_class)
    turn[by_class] = np.arange(len(classes)) - np.repeat(sizes.cumsum() - sizes, sizes)
    order = np.lexsort((generator.random(len(classes)), turn))
    return _indices(order[:count]), _indices(order[count:])


def _indices(unsorted: Indices) -> Tensor:
    return torch.from_numpy(np.sort(unsorted))
