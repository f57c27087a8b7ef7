"""Trees of tensors: a tensor, or tuples, lists and dictionaries of trees."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

__all__ = ["Tree", "leaves", "map_tensors"]

Tree: TypeAlias = Any
"""A tensor, or a tuple, list or dictionary of trees."""


def leaves(tree: Tree) -> Iterator[Any]:
    """Yield what stands at the ends of a tree, in order.

    Examples
    --------
    >>> list(leaves({"tokens": 1, "masks": (2, 3)}))
    [1, 2, 3]
    """
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for branch in tree:
            yield from leaves(branch)
    else:
        yield tree


def map_tensors(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Return a tree of the same form, with the function's value for the tensors at each place.

    Examples
    --------
    >>> map_tensors(max, {"tokens": 1, "masks": (2, 3)}, {"tokens": 5, "masks": (0, 4)})
    {'tokens': 5, 'masks': (2, 4)}
    """
    if isinstance(tree, Mapping):
        return {name: map_tensors(function, tree[name], *(other[name] for other in others)) for name in tree}
    if isinstance(tree, list | tuple):
        branches = [map_tensors(function, *trees) for trees in zip(tree, *others, strict=True)]
        return branches if isinstance(tree, list) else tuple(branches)
    return function(tree, *others)
