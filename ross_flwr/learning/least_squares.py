"""Least squares with weights that are not negative."""

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Array", "distances", "nonnegative"]

Array: TypeAlias = NDArray[np.float64]

RIDGE = 1e-9
"""Of the mean squared length, added to each: makes the mixture unique where classes have the same gradient."""

SUM = 1e4
"""So many times the mean squared length it costs when the shares of a mixture do not sum to 1."""

CHUNK = 2**14
"""So many coordinates are taken at once to float64: few enough to stay in a processor's cache."""


def distances(gradients: Tensor, classes: Tensor) -> tuple[Array, Array]:
    """Return how far each gradient is from the mixtures of the classes' gradients, and from zero: squares, shape [m].

    ::

        r_j = min_p ‖g_j − Σ_c p_c h_c‖²   over p ≥ 0, Σ_c p_c = 1;   ‖g_j‖²

    The gradient of a mini-batch is the mixture of its classes' gradients, whatever its mixture, and the noise of the
    sample, so 1 − r_j / ‖g_j‖² is how much of it a mixture explains. 1: nothing else; 0: as far from every mixture as
    from zero; below: a gradient shorter than all mixtures. A gradient times −s is no mixture, though the complement's
    may lie in its direction: that one is shorter.

    A gradient of zeros is as near as can be, (0, 0). Where a number is not finite, or all classes' gradients are
    zeros, every other gradient is infinitely far from the mixtures.

    Parameters
    ----------
    gradients : Tensor
        g_1 … g_m, shape [m, P].
    classes : Tensor
        h_1 … h_C, shape [C, P], all at the same model.

    Examples
    --------
    >>> classes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> gradients = torch.tensor([[0.7, 0.3, 0.0], [0.7, 0.3, 0.7], [-3.0, 0.0, 0.0]])
    >>> from_mixtures, from_zero = distances(gradients, classes)
    >>> (1 - from_mixtures / from_zero).round(2).tolist()
    [1.0, 0.54, -0.11]
    """
    count, columns = len(classes), classes.shape[1]
    gram = np.zeros((count + len(gradients), count + len(gradients)))
    for first in range(0, columns, CHUNK):
        part = torch.cat([rows[:, first : first + CHUNK].double() for rows in (classes, gradients)])
        gram += (part @ part.T).cpu().numpy()
    lengths = gram.diagonal()[count:]
    if not np.isfinite(gram).all() or not (scale := gram.diagonal()[:count].mean()):
        return np.where(lengths == 0, 0.0, np.inf), lengths
    among, towards = gram[:count, :count], gram[:count, count:]
    hessian = among / scale + RIDGE * np.eye(count) + SUM
    rests = np.zeros(len(gradients))
    for j in np.flatnonzero(lengths):
        shares = nonnegative(hessian, -towards[:, j] / scale - SUM)
        rests[j] = max(lengths[j] - 2 * shares @ towards[:, j] + shares @ among @ shares, 0.0)
    return rests, lengths


def nonnegative(hessian: Array, slope: Array) -> Array:
    """Return argmin_{u ≥ 0} ½ uᵀHu + cᵀu, H positive definite: the active set method of Lawson and Hanson (1974)."""
    u = np.zeros(len(slope))
    free = np.zeros(len(slope), dtype=bool)
    resolution = 1e-12 * np.abs(slope).max(initial=0.0)
    for _ in range(10 * len(slope)):
        descent = np.where(free, 0.0, -slope - hessian @ u)
        if descent.max() <= resolution:
            break
        free[descent.argmax()] = True
        while free.any():
            target = np.zeros(len(slope))
            target[free] = np.linalg.solve(hessian[np.ix_(free, free)], -slope[free])
            below = free & (target < 0)
            if not below.any():
                u = target
                break
            way = np.divide(u, u - target, out=np.full(len(slope), np.inf), where=below)
            first = way.argmin()
            u += way[first] * (target - u)
            u[first], free[first] = 0.0, False
    return u
