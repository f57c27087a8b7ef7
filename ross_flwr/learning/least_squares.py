"""Least squares with non-negative weights."""

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Array", "distances", "nonnegative"]

Array: TypeAlias = NDArray[np.float64]

RIDGE = 1e-9
"""This share of the mean squared length is added to each, so that the mixture is unique if classes share a gradient."""

SUM = 1e4
"""The penalty, in mean squared lengths, for shares of a mixture that do not sum to 1."""

CHUNK = 2**14
"""The number of coordinates converted to float64 at a time, few enough for a processor's cache."""


def distances(gradients: Tensor, classes: Tensor) -> tuple[Array, Array]:
    """Return each gradient's squared distance from the mixtures of the classes' gradients, and from zero, shape [m].

    ::

        r_j = min_p ‖g_j − Σ_c p_c h_c‖²   over p ≥ 0, Σ_c p_c = 1;   ‖g_j‖²

    The gradient of a mini-batch is a mixture of its classes' gradients plus the noise of the sample, whatever classes
    it holds. So 1 − r_j / ‖g_j‖² is the share of it that a mixture explains: 1 means all of it, 0 that the gradient is
    as far from every mixture as from zero, and a negative value that it is shorter than all mixtures. A gradient times
    −s is not a mixture. The gradient of the other classes may point the same way, but is shorter.

    A gradient of zeros has the distances (0, 0). If a number is not finite, or all classes' gradients are zero, every
    other gradient is infinitely far from the mixtures.

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
