"""Whole numbers between −s and s with a scale for every 512, rounded up or down by chance."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ross_flwr.compression.codec import Codec, Leg, Memory, finite
from ross_flwr.config import option

__all__ = ["BLOCK", "CHUNK", "QSGD", "Int4", "Int8", "in_chunks", "times"]

CHUNK = 512
"""Numbers that share a scale."""

BLOCK = 128 * CHUNK
"""Numbers worked on at a time: they stay in the cache, in memory that is used again, since new memory is expensive."""


class Integers(Codec):
    """Encodes x as ⌊s x / c + u⌋ with one scale c for every 512 numbers and u uniform in [0, 1): unbiased for |x| ≤ c.

    Whole numbers up to 1, 7 and 127 are packed into 2, 4 and 8 bits.
    """

    @property
    @abstractmethod
    def top(self) -> int:
        """The largest whole number, s."""

    def scales(self, sizes: Tensor) -> Tensor:
        """Return c for every chunk, shape [m], from absolute values, shape [m, 512]: the largest."""
        return sizes.amax(1)

    @property
    def per_byte(self) -> int:
        """How many numbers a byte holds."""
        return 4 if self.top == 1 else 2 if self.top <= 7 else 1

    def size(self, n: int) -> int:
        """Return four bytes for every chunk, and a part of one for every number."""
        return 4 * ceil(n / CHUNK) + ceil(n / self.per_byte)

    def encode(self, vector: Tensor, leg: Leg, memory: Memory) -> Tensor:
        """Scale, add u and round down."""
        n, draws = len(vector), leg.own().bit_generator
        data = torch.empty(self.size(n), dtype=torch.uint8)
        scales, body = self._divided(data, n)
        buffer = torch.empty(min(BLOCK, n + CHUNK))
        for rows, numbers, packed in self._blocks(n):
            block = in_chunks(vector[numbers])
            whole = buffer[: block.numel()].view_as(block)
            scale = scales[rows] = self.scales(torch.abs(block, out=whole))
            drawn = draws.random_raw(block.numel() // 4).view(np.int16)
            whole.copy_(torch.from_numpy(drawn).view_as(block)).mul_(2.0**-16).add_(0.5 + 2.0**-17)  # u
            # a little less than s, so that what is rounded off in float32 never makes s + 1
            factor = torch.where(scale > 0, (self.top - 1e-3) / scale, 0.0).nan_to_num_(posinf=0.0)
            whole.addcmul_(block, factor[:, None]).floor_()
            body[packed] = self._packed(whole.view(-1)[: numbers.stop - numbers.start].to(torch.int8))
        return data

    def decode(self, data: Tensor, n: int, leg: Leg) -> Tensor:
        """Multiply by the scales."""
        scales, body = self._divided(data, n)
        scales = finite(scales) / (self.top - 1e-3)
        vector = torch.empty(n)
        for rows, numbers, packed in self._blocks(n):
            part = vector[numbers]
            times(part.copy_(self._unpacked(body[packed], len(part))), scales[rows])
        return vector

    def _divided(self, data: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Return the scales in the data, and the rest."""
        end = 4 * ceil(n / CHUNK)
        return data[:end].view(torch.float32), data[end:]

    def _blocks(self, n: int) -> Iterator[tuple[slice, slice, slice]]:
        """Yield which chunks, numbers and bytes to work on at a time."""
        for first in range(0, n, BLOCK):
            end = min(n, first + BLOCK)
            rows = slice(first // CHUNK, ceil(end / CHUNK))
            yield rows, slice(first, end), slice(first // self.per_byte, ceil(end / self.per_byte))

    def _packed(self, whole: Tensor) -> Tensor:
        per = self.per_byte
        if per == 1:
            return whole.view(torch.uint8)
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

    @property
    def damping(self) -> float:
        """Return 1 / (1 + ω): rounding adds ω = min(512/s², √512/s) times the squared length, on average, at most."""
        return 1 / (1 + min(CHUNK / self.top**2, sqrt(CHUNK) / self.top))

    def scales(self, sizes: Tensor) -> Tensor:
        """Return the Euclidean length of every chunk."""
        lengths: Tensor = torch.linalg.vector_norm(sizes, dim=1)
        return lengths


def in_chunks(numbers: Tensor) -> Tensor:
    """Return the numbers in rows of 512, the last one filled up with zeros."""
    missing = -len(numbers) % CHUNK
    return (pad(numbers, (0, missing)) if missing else numbers).view(-1, CHUNK)


def times(numbers: Tensor, scales: Tensor) -> None:
    """Multiply each 512 numbers, in place, by their scale."""
    full = len(numbers) // CHUNK
    numbers[: full * CHUNK].view(full, CHUNK).mul_(scales[:full, None])
    numbers[full * CHUNK :].mul_(scales[-1])
