"""Arithmetic on stacks of vectors, shape [m, P].

Distances are sums of squared differences in double precision. The usual shortcut, |x|² + |y|² − 2 xᵀy, is off by half
between models that are close to each other.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Matrix",
    "average",
    "combined",
    "coordinates",
    "distance",
    "mean_of",
    "middle",
    "ordered",
    "squared_distances",
    "weighed",
]

Matrix = NDArray[np.float64]

BLOCK = 2**16
"""The number of columns processed at a time, so that double precision needs no second copy of the stack."""


def distance(one: Tensor, other: Tensor) -> float:
    """Return ‖one − other‖, from the difference itself and in double precision: no finite vectors overflow it."""
    return float(torch.linalg.vector_norm(one - other, dtype=torch.float64))


def weighed(own: Tensor, others: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return (1 − Σ_j c_j) x_i + Σ_j c_j x_j, a new tensor of shape [P]."""
    mixed = own * (1 - sum(weights))
    for other, weight in zip(others, weights, strict=True):
        mixed.add_(other, alpha=weight)
    return mixed


def average(rows: Sequence[Tensor]) -> Tensor:
    """Return the mean of some vectors, a new tensor of shape [P]."""
    total = rows[0].clone()
    for row in rows[1:]:
        total.add_(row)
    return total.div_(len(rows))


def mean_of(vectors: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Return the mean of some rows, without reading the others."""
    return average([vectors[row] for row in sorted(rows.tolist())])


def combined(vectors: Tensor, weights: Matrix) -> Tensor:
    """Return Σ_j w_j x_j."""
    return torch.from_numpy(weights).to(vectors) @ vectors


def middle(rows: Sequence[Tensor]) -> Tensor:
    """Return the median of every coordinate, the rows being in order."""
    m = len(rows)
    return (rows[(m - 1) // 2] + rows[m // 2]) / 2


def ordered(vectors: Tensor) -> list[Tensor]:
    """Return rows that hold, in every coordinate, the values of `vectors` in ascending order.

    It uses a sorting network of rows: for a neighbourhood's few vectors, ten times as fast as sorting each column.
    """
    rows = list(vectors.clone())
    for low, high in _comparators(len(rows)):
        smaller = torch.minimum(rows[low], rows[high])
        torch.maximum(rows[low], rows[high], out=rows[high])
        rows[low] = smaller
    return rows


def _comparators(n: int) -> Iterator[tuple[int, int]]:
    """Yield the exchanges of Batcher's network for n values (Knuth, The Art of Computer Programming 3, 5.2.2 M)."""
    top = 1 << (n - 1).bit_length() >> 1
    p = top
    while p:
        q, r, d = top, 0, p
        while d:
            yield from ((i, i + d) for i in range(n - d) if i & p == r)
            d, q, r = q - p, q >> 1, p
        p >>= 1


def squared_distances(vectors: Tensor) -> Matrix:
    """Return |x_j − x_k|², shape [m, m]."""
    m = len(vectors)
    distances = np.zeros((m, m))
    for part in _blocks(vectors):
        distances[np.triu_indices(m, 1)] += torch.pdist(part).square().cpu().numpy()
    both: Matrix = distances + distances.T
    return both


def _blocks(vectors: Tensor) -> Iterator[Tensor]:
    """Yield the stack in double precision, some columns at a time."""
    for start in range(0, vectors.shape[1], BLOCK):
        yield vectors[:, start : start + BLOCK].double()


def coordinates(vectors: Tensor) -> Matrix:
    """Return points with the same distances as `vectors` in a space of at most m dimensions, shape [m, ≤ m].

    They are the columns of R in a QR decomposition of the stack, made block by block. Each is as exact as its own
    length allows; in a Gram matrix, a huge vector would spoil the others.
    """
    triangle = vectors.new_empty(0, len(vectors), dtype=torch.float64)
    for part in _blocks(vectors):
        triangle = torch.linalg.qr(torch.cat([triangle, (part - part[0]).T]), mode="r").R
    points: Matrix = triangle.T.cpu().numpy()
    return points
