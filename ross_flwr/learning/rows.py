"""Vectors that are rows of one matrix, so that many are computed on without a copy."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["matrix_of", "rows_of"]


def rows_of(vectors: Sequence[Tensor]) -> tuple[Tensor, list[int]] | None:
    """Return a matrix [R, P] that holds all vectors, shape [P] and of one type, and their rows; None if they lie apart.

    Nothing is copied.

    Examples
    --------
    >>> matrix = torch.arange(6.0).view(3, 2)
    >>> rows_of([matrix[2], matrix[1]])
    (tensor([[2., 3.],
            [4., 5.]]), [1, 0])
    >>> rows_of([matrix[2], torch.zeros(2)])
    """
    first, places = vectors[0], [vector.data_ptr() for vector in vectors]
    storage, low, width = first.untyped_storage(), min(places), first.nbytes
    inside = storage.data_ptr() <= low and max(places) + width <= storage.data_ptr() + storage.nbytes()
    if not (width and inside and all(vector.is_contiguous() for vector in vectors)):
        return None
    rows, rests = zip(*(divmod(place - low, width) for place in places), strict=True)
    if any(rests):
        return None
    start = first.storage_offset() - rows[0] * len(first)
    return first.as_strided((max(rows) + 1, len(first)), (len(first), 1), start), list(rows)


def matrix_of(vectors: Sequence[Tensor]) -> Tensor:
    """Return a matrix [K, P] whose rows are the vectors, which nobody may change; a copy where they lie apart."""
    found = rows_of(vectors)
    if found and found[1] == list(range(len(vectors))):
        return found[0]
    return torch.stack(list(vectors))
