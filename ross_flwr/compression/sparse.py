"""A few of the numbers; the others are zero."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ross_flwr.algorithms.messages import Refused
from ross_flwr.compression.codec import Codec, Leg, Memory, as_bytes, floats
from ross_flwr.compression.integers import BLOCK
from ross_flwr.config import option
from ross_flwr.learning.streams import stream

__all__ = ["RandomK", "TopK"]

_SAMPLE = 100
"""One of so many numbers is looked at to guess which are among the largest."""


class Sparse(Codec):
    """A codec that sends a `share` of the numbers.

    With `momentum` m > 0 the sender takes over the momentum that the receiver would have, which is then to have none:
    momentum correction and masking of Deep Gradient Compression (Lin, Han, Mao, Wang and Dally, ICLR 2018). ::

        u ← m u + g;   v ← v + u;   send some of v, and set u and v to zero there
    """

    biased: ClassVar[bool] = True
    coarse: ClassVar[bool] = True

    share: float
    momentum: float

    @property
    def keeps(self) -> tuple[str, ...]:
        """What the sender remembers: v is what it owes."""
        return (*super().keeps, "velocity") if self.momentum else super().keeps

    def kept(self, n: int) -> int:
        """Return k, how many of n numbers are sent."""
        return max(1, round(self.share * n))

    def send(self, vector: Tensor, own: Tensor | None, sent: Memory, heard: Memory, leg: Leg) -> Tensor:
        """Return what travels for `vector`, or for its momentum."""
        if self.momentum and "velocity" in sent:
            vector = vector.add(sent["velocity"], alpha=self.momentum)
        data = super().send(vector, own, sent, heard, leg)
        if self.momentum:
            sent["velocity"] = vector * (sent["owed"] != 0)
        return data


@dataclass(frozen=True)
class TopK(Sparse):
    """The `share` (0.01) of the numbers with the largest absolute values (Stich et al., NeurIPS 2018). 8 bytes each."""

    share: float = option(0.01, "the part of the numbers that is sent", minimum=1e-6, maximum=1.0)
    momentum: float = option(0.0, "m, of a momentum that the sender keeps", minimum=0.0, maximum=0.9999)

    def size(self, n: int) -> int:
        """Return eight bytes for every number that is sent: four for its place."""
        return 8 * self.kept(n)

    def encode(self, vector: Tensor, leg: Leg, memory: Memory) -> Tensor:
        """Send values, then places in ascending order."""
        places = largest(vector, self.kept(len(vector)))
        return as_bytes(vector[places], places.to(torch.int32))

    def decode(self, data: Tensor, n: int, leg: Leg) -> Tensor:
        """Put the values in their places."""
        k = self.kept(n)
        places = data[4 * k :].view(torch.int32)
        if places[0] < 0 or places[-1] >= n or not bool((places[1:] > places[:-1]).all()):
            raise Refused("malformed")
        return torch.zeros(n).index_copy_(0, places.long(), floats(data[: 4 * k]))


@dataclass(frozen=True)
class RandomK(Sparse):
    """A `share` (0.1) of the numbers. A seed of eight bytes says which, so no places are sent. 4 bytes each."""

    share: float = option(0.1, "the part of the numbers that is sent", minimum=1e-6, maximum=1.0)
    momentum: float = option(0.0, "m, of a momentum that the sender keeps", minimum=0.0, maximum=0.9999)

    def size(self, n: int) -> int:
        """Return four bytes for every number that is sent, and those of the seed."""
        return 8 + 4 * self.kept(n)

    def encode(self, vector: Tensor, leg: Leg, memory: Memory) -> Tensor:
        """Send the values in the places that were drawn."""
        seed = int(leg.own().integers(2**63))
        return as_bytes(torch.tensor([seed]), vector[self._places(len(vector), seed)])

    def decode(self, data: Tensor, n: int, leg: Leg) -> Tensor:
        """Put the values in their places."""
        places = self._places(n, int(data[:8].view(torch.int64)))
        return torch.zeros(n).index_copy_(0, places, floats(data[8:]))

    def _places(self, n: int, seed: int) -> Tensor:
        drawn = stream(seed & (2**63 - 1), "randomk").choice(n, self.kept(n), replace=False, shuffle=False)
        return torch.from_numpy(drawn)


def largest(vector: Tensor, k: int) -> Tensor:
    """Return the places of the k numbers of largest absolute value, ascending.

    A sample tells a bound above which there are a few more than k; only those are compared.
    """
    n = len(vector)
    places = above(vector, k) if n > BLOCK else torch.arange(n)
    if len(places) < k:
        places = torch.arange(n)
    return places[vector[places].abs_().topk(k, sorted=False).indices].sort().values


def above(vector: Tensor, k: int) -> Tensor:
    """Return the places of the numbers above such a bound, ascending."""
    sample = vector[::_SAMPLE].abs()
    expected = k / _SAMPLE
    rank = min(len(sample), int(expected + 4 * expected**0.5) + 4)
    bound = sample.topk(rank).values[-1]
    found, sizes = [], torch.empty(BLOCK)
    for first in range(0, len(vector), BLOCK):
        part = vector[first : first + BLOCK]
        found.append(np.flatnonzero(torch.abs(part, out=sizes[: len(part)]).gt(bound).numpy()) + first)
    return torch.from_numpy(np.concatenate(found))
