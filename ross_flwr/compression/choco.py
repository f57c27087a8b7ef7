"""Differences instead of vectors, so that what is mixed survives a coarse codec."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import torch
from torch import Tensor

from ross_flwr.algorithms.messages import Refused
from ross_flwr.compression.codec import Codec, Leg, Memory, as_bytes, exactly, finite
from ross_flwr.compression.floats import BFloat16
from ross_flwr.config import option

__all__ = ["Choco"]

_FULL = BFloat16()
_HEAD = 16
_NOTHING = -1
_PATIENCE = 20
"""After so many passes without a word from the receiver, the sender sends the whole vector again."""


@dataclass(frozen=True)
class Choco(Codec):
    """Differences from what the receiver holds, coded by another codec (Koloskova, Stich and Jaggi, ICML 2019).

    ::

        q_ij = a C(x_i − x̂_ij);   x̂_ij ← x̂_ij + q_ij   at both ends
        what j reads of i, to average it with its own x_j:   x_j + γ (x̂_ij − x̂_ji)

    The mean of what j reads, by W, is x_j + γ Σ_i w_ji (x̂_ij − x̂_ji), CHOCO's step, which leaves the mean of all
    agents as it was. Where the next step does not average, j reads x̂_ij. γ is `rate` (0.5), and a the
    codec's `damping`.

    The first message along an edge holds the whole vector, in bfloat16. Each later one names the copy that it builds
    on: a checksum of everything since the last whole vector. A receiver that holds another copy, since it missed a
    message or was away, refuses the difference. Each message also says which copy of the other direction its sender
    holds, and who sees that a neighbour holds an old one sends it the whole vector next.
    """

    fixed: ClassVar[bool] = False
    hears: ClassVar[tuple[str, ...]] = ("copy", "state")

    codec: Codec
    rate: float = option(0.5, "γ", minimum=1e-3, maximum=1.0)

    @property
    def keeps(self) -> tuple[str, ...]:
        """The copy, how it came about, the own vector, and what the codec remembers."""
        return ("copy", "state", "own", *self.codec.remembers)

    def size(self, n: int) -> int:
        """Return the bytes of a difference: sixteen say what it builds on, and what its sender holds."""
        return _HEAD + self.codec.size(n)

    def most(self, n: int) -> int:
        """Return the bytes of a difference or of a whole vector."""
        return _HEAD + max(self.codec.size(n), _FULL.size(n))

    def encode(self, vector: Tensor, leg: Leg, memory: Memory) -> Tensor:
        """Encode as the other codec does."""
        return self.codec.encode(vector, leg, memory)

    def decode(self, data: Tensor, n: int, leg: Leg) -> Tensor:
        """Decode as the other codec does."""
        return self.codec.decode(data, n, leg)

    def send(self, vector: Tensor, own: Tensor | None, sent: Memory, heard: Memory, leg: Leg) -> Tensor:
        """Return a difference, or the whole vector if the receiver has no copy or an old one."""
        n, state = len(vector), Sent.of(sent)
        if self._is_lost(state, heard, leg):
            body, base = _FULL.encode(vector, leg, {}), _NOTHING
            copy = _FULL.decode(body, n, leg)
        else:
            body, base = self.codec.encode(vector - sent["copy"], leg, sent), state.last
            copy = self._moved(sent["copy"], body, leg)
        sent["copy"] = finite(copy)
        sent["state"] = state.after(leg.stamp, chained(base, body), whole=base == _NOTHING).as_tensor()
        sent.pop("own", None)
        if own is vector:  # it is to be averaged; a lie is not what its sender averages
            sent["own"] = own
        return as_bytes(torch.tensor([base, Heard.of(heard).copy]), body)

    def receive(self, data: Tensor, n: int, sent: Memory, heard: Memory, leg: Leg, *, mixed: bool) -> Tensor:
        """Bring the copy up to date, and return what the next step reads."""
        if len(data) < _HEAD:
            raise Refused("shape")
        base, theirs = data[:_HEAD].view(torch.int64).tolist()
        state = Heard.of(heard)
        heard["state"] = Heard(state.copy, theirs, leg.stamp).as_tensor()
        body = data[_HEAD:]
        if base == _NOTHING:
            copy = _FULL.decode(exactly(body, _FULL.size(n)), n, leg)
        elif base != state.copy:
            raise Refused("out-of-step")
        else:
            copy = self._moved(heard["copy"], exactly(body, self.codec.size(n)), leg)
        heard["copy"] = finite(copy)
        heard["state"] = Heard(chained(base, body), theirs, leg.stamp).as_tensor()
        if not mixed or "own" not in sent or Sent.of(sent).stamp != leg.stamp:
            return copy
        return sent["own"] + self.rate * (copy - sent["copy"])

    def mark(self, sent: Memory, heard: Memory, leg: Leg) -> Hashable:
        """Return the receiver's copy of the other direction, and whether it needs the whole vector."""
        return Heard.of(heard).copy, self._is_lost(Sent.of(sent), heard, leg)

    def _moved(self, copy: Tensor, body: Tensor, leg: Leg) -> Tensor:
        """Return the copy after a difference."""
        return copy.add(self.codec.decode(body, len(copy), leg), alpha=self.codec.damping)

    def _is_lost(self, state: "Sent", heard: Memory, leg: Leg) -> bool:
        """Return whether the receiver's copy is unknown or known to be old."""
        if state.last == _NOTHING:
            return True
        said = Heard.of(heard)
        if said.stamp >= state.stamp:  # it has spoken since the last message to it, or at the same time
            together = said.stamp == state.stamp
            expected = state.before if together else state.last
            return said.holds != expected and not (together and state.whole == state.stamp)
        return leg.pass_number - (max(said.stamp, state.whole) >> 20) >= _PATIENCE


@dataclass(frozen=True)
class Sent:
    """What a sender knows of the copy along an edge."""

    stamp: int = _NOTHING
    """The exchange of the last message."""
    last: int = _NOTHING
    """The copy that it made."""
    before: int = _NOTHING
    """The copy before it."""
    whole: int = _NOTHING
    """The exchange of the last whole vector."""

    @classmethod
    def of(cls, memory: Memory) -> "Sent":
        """Return what is remembered."""
        return cls(*memory["state"].tolist()) if "state" in memory else cls()

    def after(self, stamp: int, copy: int, *, whole: bool) -> "Sent":
        """Return what is known once another message has been sent."""
        return Sent(stamp, copy, self.last, stamp if whole else self.whole)

    def as_tensor(self) -> Tensor:
        """Return the four numbers."""
        return torch.tensor([self.stamp, self.last, self.before, self.whole])


@dataclass(frozen=True)
class Heard:
    """What a receiver knows of the copies along an edge."""

    copy: int = _NOTHING
    """The copy that it holds."""
    holds: int = _NOTHING
    """The copy that the other end holds, as that said with its last message."""
    stamp: int = _NOTHING
    """The exchange of that message."""

    @classmethod
    def of(cls, memory: Memory) -> "Heard":
        """Return what is remembered."""
        return cls(*memory["state"].tolist()) if "state" in memory else cls()

    def as_tensor(self) -> Tensor:
        """Return the three numbers."""
        return torch.tensor([self.copy, self.holds, self.stamp])


def chained(base: int, body: Tensor) -> int:
    """Return the name of the copy that `body` makes of the copy called `base`."""
    return crc32(body.numpy().data, max(base, 0))
