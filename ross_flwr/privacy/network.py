"""What agents learn of each other: the precision with which agent v sees what agent u releases.

All matrices have shape [N, N], rows being u and columns v, in units of what all others together see of u.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ross_flwr.privacy.correlated import leaks, pairwise

__all__ = ["gossip_views", "neighbours_views", "through_gossip"]

Array: TypeAlias = NDArray[np.float64]


def gossip_views(mixing: Array, passes: int) -> list[Array]:
    """Return what v sees of a gradient of u by its neighbours' models, 1, 2, … up to `passes` passes after.

    ::

        Σ_{s<t} Σ_{w∈N_v} ((Wˢ)_wu / ‖(Wˢ)_w‖)²,   and 1 at most

    Pairwise network DP of Cyffers, Even, Bellet and Massoulié ("Muffliato", NeurIPS 2022): the gradient travels with
    the noise that all agents added with it, of which each model holds more and more. Their formula adds up all messages
    as if each had noise of its own, and leaves out the noise of other passes. 1 is what u itself released. The list
    ends where every entry is 1.

    Examples
    --------
    >>> ring = (np.eye(6) + np.roll(np.eye(6), 1, 0) + np.roll(np.eye(6), -1, 0)) / 3
    >>> [views[0].round(2).tolist() for views in gossip_views(ring, 2)]
    [[0.0, 1.0, 0.0, 0.0, 0.0, 1.0], [0.67, 1.0, 0.33, 0.0, 0.33, 1.0]]
    """
    hears = ((mixing > 0) & ~np.eye(len(mixing), dtype=bool)).astype(np.float64)
    power, total, found = np.eye(len(mixing)), np.zeros_like(mixing), list[Array]()
    for _ in range(passes):
        held = power**2 / (power**2).sum(1, keepdims=True)
        total = total + (hears @ held).T
        found.append(total.clip(max=1))
        if (total >= 1).all():
            break
        power = mixing @ power
    return found


def through_gossip(mixing: Array, released: Mapping[int, Sequence[float]], passes: int) -> dict[int, Array]:
    """Return the precision, shape [N], with which each agent has seen what u released, by u.

    Parameters
    ----------
    mixing : Array
        W.
    released : mapping of int to sequence of float
        By agent, the precision of what it released about an example in each round.
    passes : int
        Passes in a round.
    """
    rounds = max(map(len, released.values()), default=0)
    views = gossip_views(mixing, rounds * passes)
    late = [views[min(len(views), (rounds - number) * passes) - 1] for number in range(rounds)]
    return {
        u: np.sum([precision * view[u] for precision, view in zip(each, late, strict=False)], axis=0)
        for u, each in released.items()
    }


def neighbours_views(mixing: Array) -> Array:
    """Return what v sees of u under `decor` if it takes away the noise that it shares: more than 1 near v."""
    covariance = pairwise(mixing)
    found = np.ones_like(mixing)
    for v in range(len(mixing)):
        others = np.arange(len(mixing)) != v
        left = covariance[np.ix_(others, others)] + np.diag(covariance[others, v])
        found[others, v] = leaks(left) / leaks(covariance)[others]
    return found
