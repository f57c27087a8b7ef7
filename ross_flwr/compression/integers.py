"""Whole numbers between −s and s with a scale for every 512, rounded up or down by chance."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ross_flwr.compression.codec import Codec, Leg, Memory, as_bytes, floats
from ross_flwr.config import option

__all__ = ["CHUNK", "QSGD", "Int4", "Int8", "chunked"]

CHUNK = 512
"""Numbers that share a scale."""

_BLOCK = 128
"""Chunks that are worked on at a time: they stay in the processor's cache, which makes encoding much faster."""


class Integers(Codec):
    """Encodes x as ⌊s x / c + u⌋ with one scale c for every 512 numbers and u uniform in [0, 1): unbiased for |x| ≤ c.

    Whole numbers up to 1, 7 and 127 are packed into 2, 4 and 8 bits.
    """

    @property
    @abstractmethod
    def top(self) -> int:
        """The largest whole number, s."""

    def scales(self, chunks: Tensor) -> Tensor:
        """Return c for every chunk, shape [m], from `chunks`, shape [m, 512]: the largest absolute value."""
        return chunks.abs().amax(1)

    @property
    def per_byte(self) -> int:
        """How many numbers a byte holds."""
        return 4 if self.top == 1 else 2 if self.top <= 7 else 1

    def size(self, n: int) -> int:
        """Return four bytes for every chunk, and a part of one for every number."""
        return 4 * ceil(n / CHUNK) + ceil(n / self.per_byte)

    def encode(self, vector: Tensor, leg: Leg, memory: Memory) -> Tensor:
        """Scale, add u and round down."""
        n, chunks = len(vector), ceil(len(vector) / CHUNK)
        draws = leg.own().bit_generator
        scales = torch.empty(chunks)
        whole = torch.empty(chunks * CHUNK, dtype=torch.int8).view(chunks, CHUNK)
        for rows, block in chunked(vector):
            scale = scales[rows] = self.scales(block)
            raw = torch.from_numpy(draws.random_raw(block.numel() // 4).view(np.int16)).view_as(block)
            scaled = raw.float().mul_(2.0**-16).add_(0.5 + 2.0**-17)  # u
            # a little less than s, so that what is rounded off in float32 never makes s + 1
            factor = torch.where(scale > 0, (self.top - 1e-3) / scale, 0.0).nan_to_num_(posinf=0.0)
            whole[rows] = scaled.addcmul_(block, factor[:, None]).floor_()
        return as_bytes(scales, self._packed(whole.view(-1)[:n]))

    def decode(self, data: Tensor, n: int, leg: Leg) -> Tensor:
        """Multiply by the scales."""
        chunks = ceil(n / CHUNK)
        scales = floats(data[: 4 * chunks]) / (self.top - 1e-3)
        whole = self._unpacked(data[4 * chunks :], n)
        vector = torch.empty(n)
        full = n // CHUNK * CHUNK
        torch.mul(whole[:full].view(-1, CHUNK), scales[: full // CHUNK, None], out=vector[:full].view(-1, CHUNK))
        if full < n:
            torch.mul(whole[full:], scales[-1], out=vector[full:])
        return vector

    def _packed(self, whole: Tensor) -> Tensor:
        per = self.per_byte
        if per == 1:
            return whole
        digits = pad(whole + self.top, (0, -len(whole) % per)).view(torch.uint8).view(-1, per)
        packed = digits[:, 0].clone()
        for place in range(1, per):
            packed |= digits[:, place] << (8 // per * place)
        return packed

    def _unpacked(self, data: Tensor, n: int) -> Tensor:
        per = self.per_byte
        if per == 1:
            return data.view(torch.int8)
        bits = 8 // per
        digits = torch.stack([(data >> (bits * place)) & ((1 << bits) - 1) for place in range(per)], 1)
        return digits.view(-1).narrow(0, 0, n).to(torch.int8) - self.top


@dataclass(frozen=True)
class Int8(Integers):
    """Whole numbers up to 127, times the largest of 512. One byte each."""

    @property
    def top(self) -> int:
        """Return 127."""
        return 127


@dataclass(frozen=True)
class Int4(Integers):
    """Whole numbers up to 7, times the largest of 512. Half a byte each."""

    @property
    def top(self) -> int:
        """Return 7."""
        return 7


@dataclass(frozen=True)
class QSGD(Integers):
    """Whole numbers up to `levels` (7), times the length of a vector of 512 (Alistarh et al., NeurIPS 2017)."""

    levels: int = option(7, "s", minimum=1, maximum=127)

    @property
    def top(self) -> int:
        """Return s."""
        return self.levels

    def scales(self, chunks: Tensor) -> Tensor:
        """Return the Euclidean length of every chunk."""
        lengths: Tensor = torch.linalg.vector_norm(chunks, dim=1)
        return lengths


def chunked(vector: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the chunks of a vector in blocks that fit into a cache: which they are, and the chunks, shape [m, 512].

    The last chunk is filled up with zeros.
    """
    full = len(vector) // CHUNK
    whole = vector[: full * CHUNK].view(full, CHUNK)
    for first in range(0, full, _BLOCK):
        rows = slice(first, min(full, first + _BLOCK))
        yield rows, whole[rows]
    if full * CHUNK < len(vector):
        rest = vector[full * CHUNK :]
        yield slice(full, full + 1), pad(rest, (0, CHUNK - len(rest))).view(1, CHUNK)
