"""Draws of examples by class, and top-ups of small shares."""

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.config import ConfigError

__all__ = ["Indices", "class_balanced", "draw_classes", "indices", "most_balanced", "top_up"]

Indices: TypeAlias = NDArray[np.int64]

_TOP_UP = 2  # of the random stream of `top_up`, default_rng([seed, _TOP_UP])


def top_up(parts: list[Tensor], minimum: int, seed: int) -> tuple[list[Tensor], dict[int, int]]:
    """Give every agent at least `minimum` examples, taken at random from the agent that then holds the most.

    Returns
    -------
    tuple[list[Tensor], dict[int, int]]
        The indices of each agent, ascending, and how many examples each topped-up agent gained.

    Raises
    ------
    ConfigError
        If there are fewer than `minimum` examples per agent.

    Examples
    --------
    >>> parts, gained = top_up([torch.tensor([0]), torch.tensor([1, 2, 3])], minimum=2, seed=0)
    >>> [len(part) for part in parts], gained
    ([2, 2], {0: 1})
    """
    if (dealt := sum(map(len, parts))) < minimum * len(parts):
        raise ConfigError(
            f"batch-size = {minimum} is too large: {dealt} examples are dealt, less than a batch for each of "
            f"num-agents = {len(parts)}"
        )
    generator = default_rng([seed, _TOP_UP])
    held = [part.numpy() for part in parts]
    for poor in range(len(held)):
        while len(held[poor]) < minimum:
            rich = max(range(len(held)), key=lambda i: len(held[i]))
            given = min(minimum - len(held[poor]), len(held[rich]) - minimum)
            shuffled = generator.permutation(held[rich])
            held[poor], held[rich] = np.concatenate([held[poor], shuffled[:given]]), shuffled[given:]
    added = {i: len(part) - len(parts[i]) for i, part in enumerate(held) if len(part) > len(parts[i])}
    return [indices(part) for part in held], added


def draw_classes(labels: Indices, shares: NDArray[Any], count: int, generator: Generator) -> Indices:
    """Draw `count` examples in the class ratio `shares`, which has a weight for each class present, ascending.

    If a class has too few examples, some are drawn twice.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> labels[draw_classes(labels, np.array([3, 1]), 4, default_rng(0))]
    array([0, 0, 0, 1])
    """
    quotas = shares / shares.sum() * count
    counts = quotas.astype(np.int64)
    counts[np.argsort(counts - quotas, kind="stable")[: count - counts.sum()]] += 1  # largest remainders first
    members = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    drawn = [
        generator.choice(own, size=size, replace=bool(size > len(own)))
        for own, size in zip(members, counts, strict=True)
    ]
    return np.concatenate(drawn)


def class_balanced(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw a class-balanced subset, such as a validation set Q_i, from data that is not used for testing.

    Returns
    -------
    tuple[Tensor, Tensor]
        The indices of the `count` chosen examples and of the rest, int64, ascending. `labels` are integers, shape (n,).
        No two classes present in `labels` differ by more than 1 in how many of their examples are chosen.

    Raises
    ------
    ConfigError
        If a class is too small for its part of `count`.

    Examples
    --------
    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1])
    >>> chosen, rest = class_balanced(labels, 4, default_rng(0))
    >>> labels[chosen].tolist(), labels[rest].tolist()
    ([0, 0, 1, 1], [0, 0])
    """
    _values, classes, sizes = np.unique(labels.cpu().numpy(), return_inverse=True, return_counts=True)
    most = most_balanced(labels)
    if not 0 <= count <= most:
        raise ConfigError(
            f"{count} examples, equally many of each class, cannot be drawn from these {len(labels)}: the rarest class "
            f"has {sizes.min(initial=len(labels))}, so from 0 to {most} can"
        )
    # In each turn every class, in random order, gives one example.
    by_class = np.lexsort((generator.random(len(classes)), classes))
    turn = np.empty_like(by_class)
    turn[by_class] = np.arange(len(classes)) - np.repeat(sizes.cumsum() - sizes, sizes)
    order = np.lexsort((generator.random(len(classes)), turn))
    return indices(order[:count]), indices(order[count:])


def most_balanced(labels: Tensor) -> int:
    """Return how many examples `class_balanced` can draw at most: all of the rarest class, and one more of the others.

    Examples
    --------
    >>> most_balanced(torch.tensor([0, 0, 0, 0, 1]))
    3
    """
    sizes = labels.bincount()
    sizes = sizes[sizes > 0]
    return int(sizes.clamp(max=int(sizes.min()) + 1).sum()) if len(sizes) else 0


def indices(unsorted: Indices) -> Tensor:
    """Return indices in ascending order, as a tensor."""
    return torch.from_numpy(np.sort(unsorted))
