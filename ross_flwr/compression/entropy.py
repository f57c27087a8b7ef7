"""What another codec makes, with fewer bytes for what is frequent in it."""

import zlib
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from ross_flwr.algorithms.messages import Refused
from ross_flwr.compression.codec import Codec, Leg, Memory

__all__ = ["Zlib"]

LEVEL = 1
"""Of zlib: a higher level takes three times as long for a few percent."""


@dataclass(frozen=True)
class Zlib(Codec):
    """What another codec sends, through zlib (DEFLATE, RFC 1951), which loses nothing. Sizes differ.

    It is worth it for places of `topk`, whole numbers, and gradients with many zeros; models hardly get shorter.
    """

    fixed = False

    codec: Codec

    @property
    def coarse(self) -> bool:
        """As the other codec."""
        return self.codec.coarse

    @property
    def keeps(self) -> tuple[str, ...]:
        """What the other codec remembers."""
        return self.codec.keeps

    @property
    def hears(self) -> tuple[str, ...]:
        """What the other codec remembers."""
        return self.codec.hears

    def size(self, n: int) -> int:
        """Return the bytes before they are compressed."""
        return self.codec.size(n)

    def most(self, n: int) -> int:
        """Return the most bytes before they are compressed."""
        return self.codec.most(n)

    def encode(self, vector: Tensor, leg: Leg, memory: Memory) -> Tensor:
        """Encode as the other codec does, and compress."""
        return deflated(self.codec.encode(vector, leg, memory))

    def decode(self, data: Tensor, n: int, leg: Leg) -> Tensor:
        """Decompress as many bytes as the other codec makes, and decode them."""
        return self.codec.receive(inflated(data, self.most(n)), n, {}, {}, leg, mixed=False)

    def send(self, vector: Tensor, own: Tensor | None, sent: Memory, heard: Memory, leg: Leg) -> Tensor:
        """Return what the other codec sends, compressed."""
        return deflated(self.codec.send(vector, own, sent, heard, leg))

    def receive(self, data: Tensor, n: int, sent: Memory, heard: Memory, leg: Leg, *, mixed: bool) -> Tensor:
        """Return what the other codec reads."""
        return self.codec.receive(inflated(data, self.most(n)), n, sent, heard, leg, mixed=mixed)

    def mark(self, sent: Memory, heard: Memory, leg: Leg) -> Hashable:
        """Return what the other codec depends on."""
        return self.codec.mark(sent, heard, leg)


def deflated(data: Tensor) -> Tensor:
    """Return the bytes compressed, uint8 of shape [m]."""
    return torch.frombuffer(bytearray(zlib.compress(data.numpy().data, LEVEL)), dtype=torch.uint8)


def inflated(data: Tensor, most: int) -> Tensor:
    """Return the bytes of which `deflated` made `data`; refuse more than `most` without making more."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data.numpy().data, most + 1)
    except zlib.error:
        raise Refused("malformed") from None
    if len(found) > most:
        raise Refused("oversize")
    if not stream.eof or stream.unused_data:
        raise Refused("malformed")
    return torch.frombuffer(bytearray(found), dtype=torch.uint8) if found else torch.empty(0, dtype=torch.uint8)
