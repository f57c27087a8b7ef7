"""Memory that a process shares with those that were forked from it, through which they pass objects with tensors."""

import pickle
from collections.abc import Mapping
from io import BytesIO
from mmap import mmap
from typing import Any

import torch
from torch import Tensor

__all__ = ["Arena"]

ALIGNED = 64


class Arena:
    """Some shared memory for the tensors of one object at a time. What has no room in it goes as bytes.

    Parameters
    ----------
    size : int
        Bytes. The system provides them when they are first written.
    known : mapping of int to object
        What was there before the fork, by its `id`: of these objects only the `id` is passed.

    Attributes
    ----------
    memory : mmap
        The memory. Its first byte is the caller's.
    end : int
        Where the tensors of the last object end.

    Examples
    --------
    >>> arena = Arena(2**20, {})
    >>> arena.load(arena.dump(("zeros", torch.zeros(3))))
    ('zeros', tensor([0., 0., 0.]))
    """

    def __init__(self, size: int, known: Mapping[int, Any]) -> None:
        self.memory, self.size, self.known = mmap(-1, size), size, known
        self.end = ALIGNED

    def dump(self, value: Any, *, after: int = ALIGNED) -> bytes:
        """Return a value as bytes, and put its tensors into the memory `after` so many bytes of it."""
        self.end = after
        file = BytesIO()
        _Pickler(file, self).dump(value)
        return file.getvalue()

    def load(self, data: bytes, *, copy: bool = True) -> Any:
        """Return the value that `dump` was given; without a `copy` its tensors lie in the memory, up to `end`."""
        self.end = ALIGNED
        return _Unpickler(BytesIO(data), self, copy=copy).load()

    def put(self, tensor: Tensor) -> int | None:
        """Copy a tensor into the memory and return where it begins, or None if there is no room."""
        start = -(-self.end // ALIGNED) * ALIGNED + tensor.data_ptr() % ALIGNED  # sums depend on where numbers lie
        if not 0 < tensor.nbytes <= self.size - start:
            return None
        self.get(start, tensor.dtype, tensor.shape).copy_(tensor)
        return start

    def get(self, start: int, dtype: torch.dtype, shape: torch.Size) -> Tensor:
        """Return the tensor that begins there."""
        tensor = torch.frombuffer(self.memory, dtype=dtype, count=shape.numel(), offset=start).view(shape)
        self.end = start + tensor.nbytes
        return tensor


class _Pickler(pickle.Pickler):
    def __init__(self, file: BytesIO, arena: Arena) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.arena = arena

    def persistent_id(self, value: Any) -> Any:
        if id(value) in self.arena.known:
            return id(value)
        if type(value) is not Tensor or value.requires_grad or value.layout != torch.strided or value.is_cuda:
            return None
        if not value.is_contiguous():  # convolutions depend on its strides
            return None
        start = self.arena.put(value)
        return None if start is None else (start, value.dtype, value.shape)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BytesIO, arena: Arena, *, copy: bool) -> None:
        super().__init__(file)
        self.arena, self.copy = arena, copy

    def persistent_load(self, found: Any) -> Any:
        if isinstance(found, int):
            return self.arena.known[found]
        tensor = self.arena.get(*found)
        return tensor.clone() if self.copy else tensor
