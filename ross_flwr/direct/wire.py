"""Splits envelopes into chunks that travel between nodes, and reassembles them. Nothing is unpickled."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TypeAlias
from weakref import finalize

import numpy as np
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.algorithms.messages import Refused
from ross_flwr.peer.v1.peer_pb2 import Chunk, DType, Header
from ross_flwr.peer.v1.peer_pb2 import Tensor as Layout

__all__ = ["CHUNK", "Incoming", "Memory", "Piece", "chunks", "layouts", "parse"]

CHUNK = 1 << 20
"""The most bytes of tensors in a chunk."""

Piece: TypeAlias = tuple[Header | None, memoryview]
"""A chunk as it is read: its header, if it has one, and its data."""

TENSORS = 1024
"""The most tensors in an envelope."""

LENGTHS = 8
"""The most lengths in the shape of a tensor."""

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
_HEADER = b"\x0a"  # the tag of Chunk.header: field 1, a message
_DATA = b"\x12"  # the tag of Chunk.data: field 2, bytes
_NUMBER = {dtype: number for number, dtype in DTYPES.items()}


def layouts(tensors: Mapping[str, Tensor]) -> list[Layout]:
    """Return what a header says about the tensors."""
    return [Layout(name=name, shape=tensor.shape, dtype=_NUMBER[tensor.dtype]) for name, tensor in tensors.items()]


def chunks(header: Header, tensors: Iterable[Tensor]) -> Iterator[bytes]:
    """Yield the serialized chunks of one envelope. Apart from the tensors, only one chunk is in memory at a time.

    This function writes the bytes itself, and `parse` reads them itself: protobuf would copy them three times on each
    side, which costs as much as sending them.
    """
    head = Chunk(header=header).SerializeToString()
    pieces: list[memoryview] = []
    room = CHUNK
    for tensor in tensors:
        raw = _raw(tensor)
        while len(raw) >= room:
            yield b"".join([head, _DATA, _varint(CHUNK), *pieces, raw[:room]])
            raw, pieces, room, head = raw[room:], [], CHUNK, b""
        pieces.append(raw)
        room -= len(raw)
    if head or room < CHUNK:
        yield b"".join([head, _DATA, _varint(CHUNK - room), *pieces])


def parse(message: bytes) -> Piece:
    """Return the header, if there is one, and the data of a serialized chunk, not copied; for nonsense, neither."""
    header, at = None, 0
    try:
        if message.startswith(_HEADER):
            size, begin = _read_varint(message, 1)
            at = begin + size
            header = Header.FromString(message[begin:at])
        if message.startswith(_DATA, at):
            size, begin = _read_varint(message, at + 1)
            if begin + size == len(message):
                return header, memoryview(message)[begin:]
        chunk = Chunk.FromString(message)  # the fields are in another order, or missing
    except DecodeError:
        return None, memoryview(b"")
    return chunk.header if chunk.HasField("header") else None, memoryview(chunk.data)


class Memory:
    """Memory for large incoming tensors, which is reused once nothing refers to them.

    A new page costs several times as much as filling it. Free memory is kept for tensors of the same size, and is given
    back when one of another size arrives.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []

    def lend(self, size: int) -> NDArray[np.uint8]:
        """Return `size` uninitialised bytes."""
        if size < CHUNK:
            return np.empty(size, np.uint8)
        fitting = [k for k, free in enumerate(self._free) if len(free) == size]
        if fitting:
            memory = self._free.pop(fitting[0])
        else:
            self._free.clear()
            memory = np.empty(size, np.uint8)
        lent = memory[:]  # torch keeps it alive as long as a tensor uses it
        finalize(lent, self._free.append, memory).atexit = False
        return lent


class Incoming:
    """The tensors that a header announces, filled as chunks arrive.

    Parameters
    ----------
    announced : sequence of Layout
        Names, shapes and types.
    limit : int
        The most bytes that all of them together may have.
    memory : Memory
        Where to put them.

    Attributes
    ----------
    tensors : dict[str, Tensor]
        The tensors by name. Their values are complete once all bytes are here.

    Raises
    ------
    Refused
        When the tensors are too large or make no sense. Memory is taken only after this check.
    """

    def __init__(self, announced: Sequence[Layout], limit: int, memory: Memory) -> None:
        if len(announced) > TENSORS or any(len(layout.shape) > LENGTHS for layout in announced):
            raise Refused("malformed")
        shapes = {layout.name: tuple(layout.shape) for layout in announced}
        dtypes = [DTYPES.get(layout.dtype) for layout in announced]
        if len(shapes) < len(announced) or None in dtypes:
            raise Refused("malformed")
        kinds = [dtype for dtype in dtypes if dtype]
        sizes = [prod(shape) * kind.itemsize for shape, kind in zip(shapes.values(), kinds, strict=True)]
        if sum(sizes) > limit or any(prod(length or 1 for length in shape) > limit for shape in shapes.values()):
            raise Refused("oversize")
        pieces = [memory.lend(size) for size in sizes]
        self.tensors = {
            name: torch.from_numpy(piece).view(kind).view(shape) if len(piece) else torch.empty(shape, dtype=kind)
            for (name, shape), kind, piece in zip(shapes.items(), kinds, pieces, strict=True)
        }
        self._left = [piece.data for piece in reversed(pieces) if len(piece)]

    @property
    def complete(self) -> bool:
        """Whether all bytes are here."""
        return not self._left

    def add(self, data: memoryview) -> None:
        """Put the next bytes into their place.

        Raises
        ------
        Refused
            When more bytes come than were announced.
        """
        rest = data
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


def _varint(number: int) -> bytes:
    """Return a number as protobuf writes it: seven bits per byte, lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def _read_varint(message: bytes, begin: int) -> tuple[int, int]:
    """Return the number, of five bytes at most, that starts at `begin`, and where it ends."""
    number = 0
    for k, byte in enumerate(message[begin : begin + 5]):
        number |= (byte & 0x7F) << (7 * k)
        if byte < 0x80:
            return number, begin + k + 1
    return len(message), len(message)
