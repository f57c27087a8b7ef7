"""A matrix of low rank."""

from dataclasses import dataclass
from math import ceil, isqrt
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ross_flwr.compression.codec import Codec, Leg, Memory, as_bytes, floats
from ross_flwr.config import option

__all__ = ["PowerSGD"]


@dataclass(frozen=True)
class PowerSGD(Codec):
    """A matrix of rank `rank` (2), by one step of a power iteration (Vogels, Karimireddy and Jaggi, NeurIPS 2019).

    ::

        P = orthonormal(M Q);   Q ← Mᵀ P;   send P and Q;   M ≈ P Qᵀ

    M is the vector in rows of equal length, as square as can be. Q is kept for the next vector on this edge.
    """

    biased: ClassVar[bool] = True
    coarse: ClassVar[bool] = True
    remembers: ClassVar[tuple[str, ...]] = ("basis",)

    rank: int = option(2, "the rank", minimum=1, maximum=64)

    def shape(self, n: int) -> tuple[int, int, int]:
        """Return rows and columns of M, and the rank."""
        rows = isqrt(n - 1) + 1
        columns = ceil(n / rows)
        return rows, columns, min(self.rank, columns)

    def size(self, n: int) -> int:
        """Return the bytes of P and Q."""
        rows, columns, rank = self.shape(n)
        return 4 * rank * (rows + columns)

    def encode(self, vector: Tensor, leg: Leg, memory: Memory) -> Tensor:
        """Take one step of the power iteration."""
        rows, columns, rank = self.shape(len(vector))
        matrix = pad(vector, (0, rows * columns - len(vector))).view(rows, columns)
        basis = memory.get("basis")
        if basis is None or not bool(basis.any()):
            basis = torch.from_numpy(leg.own().standard_normal((columns, rank))).float()
        left = torch.linalg.qr(matrix @ basis).Q
        memory["basis"] = matrix.T @ left
        return as_bytes(left, memory["basis"])

    def decode(self, data: Tensor, n: int, leg: Leg) -> Tensor:
        """Return P Qᵀ."""
        rows, columns, rank = self.shape(n)
        numbers = floats(data)
        left, right = numbers[: rows * rank].view(rows, rank), numbers[rows * rank :].view(columns, rank)
        return torch.mm(left, right.T).view(-1)[:n]
