"""Half precision."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ross_flwr.compression.codec import Codec, Leg, Memory, as_bytes

__all__ = ["BFloat16", "Float16"]


@dataclass(frozen=True)
class Float16(Codec):
    """Numbers rounded to 11 binary digits; those beyond ±65,504 become that. Two bytes each."""

    dtype: ClassVar[torch.dtype] = torch.float16

    def size(self, n: int) -> int:
        """Return 2 n."""
        return 2 * n

    def encode(self, vector: Tensor, leg: Leg, memory: Memory) -> Tensor:
        """Round to the nearest."""
        largest = torch.finfo(self.dtype).max
        return as_bytes(vector.clamp(-largest, largest).to(self.dtype))

    def decode(self, data: Tensor, n: int, leg: Leg) -> Tensor:
        """Return the numbers."""
        return data.view(self.dtype).float()


@dataclass(frozen=True)
class BFloat16(Float16):
    """Numbers rounded to 8 binary digits, with the range of float32. Two bytes each."""

    dtype: ClassVar[torch.dtype] = torch.bfloat16
