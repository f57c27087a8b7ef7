"""One bit for every number."""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ross_flwr.compression.codec import Codec, Leg, Memory, as_bytes, floats
from ross_flwr.compression.integers import BLOCK, CHUNK, in_chunks, times

__all__ = ["Sign"]


@dataclass(frozen=True)
class Sign(Codec):
    """Signs, times the mean absolute value of 512 numbers (Karimireddy et al., ICML 2019). One bit each."""

    biased: ClassVar[bool] = True
    coarse: ClassVar[bool] = True

    def size(self, n: int) -> int:
        """Return four bytes for every chunk, and a bit for every number."""
        return 4 * ceil(n / CHUNK) + ceil(n / 8)

    def encode(self, vector: Tensor, leg: Leg, memory: Memory) -> Tensor:
        """Keep signs and scales; zero counts as positive."""
        sums = torch.cat([in_chunks(block).abs().sum(1) for block in torch.split(vector, BLOCK)])
        counts = torch.full_like(sums, CHUNK)
        counts[-1] = len(vector) - CHUNK * (len(sums) - 1)
        return as_bytes(sums / counts, torch.from_numpy(np.packbits((vector >= 0).numpy())))

    def decode(self, data: Tensor, n: int, leg: Leg) -> Tensor:
        """Return plus or minus the scale."""
        chunks = ceil(n / CHUNK)
        scales, bits = floats(data[: 4 * chunks]), data[4 * chunks :].numpy()
        vector = torch.empty(n)
        for first in range(0, n, BLOCK):
            part = vector[first : first + BLOCK]
            positive = torch.from_numpy(np.unpackbits(bits[first // 8 :], count=len(part)))
            times(part.copy_(positive).mul_(2).sub_(1), scales[first // CHUNK :][: ceil(len(part) / CHUNK)])
        return vector
