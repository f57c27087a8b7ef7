"""Envelopes as the chunks that travel between nodes, and back. Raw numbers; nothing is unpickled."""

from collections.abc import Iterable, Iterator, Mapping
from math import prod

import torch
from torch import Tensor

from ross_flwr.peer.v1.peer_pb2 import Chunk, DType, Header
from ross_flwr.peer.v1.peer_pb2 import Tensor as Layout

__all__ = ["CHUNK", "Assembly", "Refused", "chunks", "layouts"]

CHUNK = 1 << 20
"""Bytes of tensors in one chunk, at most."""

TENSORS = 1024
"""Tensors in one envelope, at most."""

DTYPES: dict[DType, torch.dtype] = {
    DType.DTYPE_FLOAT32: torch.float32,
    DType.DTYPE_FLOAT64: torch.float64,
    DType.DTYPE_FLOAT16: torch.float16,
    DType.DTYPE_BFLOAT16: torch.bfloat16,
    DType.DTYPE_INT64: torch.int64,
    DType.DTYPE_INT32: torch.int32,
    DType.DTYPE_INT8: torch.int8,
    DType.DTYPE_UINT8: torch.uint8,
}
_NUMBER = {dtype: number for number, dtype in DTYPES.items()}


class Refused(Exception):  # noqa: N818 (it is an outcome)
    """An envelope that is dropped, and why: one word, by which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def layouts(tensors: Mapping[str, Tensor]) -> list[Layout]:
    """Return what a header says of the tensors."""
    return [Layout(name=name, shape=tensor.shape, dtype=_NUMBER[tensor.dtype]) for name, tensor in tensors.items()]


def chunks(header: Header, tensors: Iterable[Tensor]) -> Iterator[Chunk]:
    """Yield the chunks of one envelope; no more than one is in memory beside the tensors."""
    head: Header | None = header
    pieces: list[memoryview] = []
    room = CHUNK
    for tensor in tensors:
        raw = _raw(tensor)
        while len(raw) >= room:
            yield Chunk(header=head, data=b"".join([*pieces, raw[:room]]))
            raw, pieces, room, head = raw[room:], [], CHUNK, None
        pieces.append(raw)
        room -= len(raw)
    if head or room < CHUNK:
        yield Chunk(header=head, data=b"".join(pieces))


class Assembly:
    """The tensors that a header announces, filled as chunks come in.

    Parameters
    ----------
    announced : iterable of Layout
        Names, shapes and types.
    limit : int
        Bytes there may be.

    Attributes
    ----------
    tensors : dict[str, Tensor]
        By name; their numbers are sound once all bytes are here.

    Raises
    ------
    Refused
        When the tensors are too large or make no sense; memory is taken only after that.
    """

    def __init__(self, announced: Iterable[Layout], limit: int) -> None:
        announced = list(announced)
        shapes = {layout.name: tuple(layout.shape) for layout in announced}
        dtypes = [DTYPES.get(layout.dtype) for layout in announced]
        if len(shapes) < len(announced) or len(announced) > TENSORS or None in dtypes:
            raise Refused("malformed")
        kinds = [dtype for dtype in dtypes if dtype]
        if sum(prod(shape) * kind.itemsize for shape, kind in zip(shapes.values(), kinds, strict=True)) > limit:
            raise Refused("oversize")
        self.tensors = {
            name: torch.empty(shape, dtype=kind) for (name, shape), kind in zip(shapes.items(), kinds, strict=True)
        }
        self._left = [raw for tensor in self.tensors.values() if len(raw := _raw(tensor))][::-1]

    @property
    def complete(self) -> bool:
        """Whether all bytes are here."""
        return not self._left

    def add(self, data: bytes) -> None:
        """Put the next bytes where they belong.

        Raises
        ------
        Refused
            When there are more than announced.
        """
        rest = memoryview(data)
        while len(rest):
            if not self._left:
                raise Refused("oversize")
            target = self._left.pop()
            size = min(len(target), len(rest))
            target[:size] = rest[:size]
            rest = rest[size:]
            if size < len(target):
                self._left.append(target[size:])

    def finish(self) -> dict[str, Tensor]:
        """Return the tensors.

        Raises
        ------
        Refused
            When bytes are missing.
        """
        if self._left:
            raise Refused("truncated")
        return self.tensors


def _raw(tensor: Tensor) -> memoryview:
    raw: memoryview = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return raw
