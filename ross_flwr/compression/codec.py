"""What a codec is: a vector of numbers becomes bytes, and bytes become a vector."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from numpy.random import Generator
from torch import Tensor

from ross_flwr.algorithms.messages import Refused, is_finite
from ross_flwr.learning.streams import stream

__all__ = ["Codec", "Leg", "Memory", "as_bytes", "exactly", "finite", "floats"]

Memory: TypeAlias = dict[str, Tensor]
"""What one end of an edge remembers about one kind of vector. Entries are replaced, never changed."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One vector on its way along one edge.

    Attributes
    ----------
    seed : int
        The run's seed.
    name, step : str
        The vector's name in its message, and the step that sends it.
    pass_number, number : int
        The pass and the number of the step in it.
    source, destination : int
        Agents. A vector that goes to several is encoded once, for the first of them.
    """

    seed: int
    name: str
    step: str
    pass_number: int
    number: int
    source: int
    destination: int

    @property
    def stamp(self) -> int:
        """The exchange as one number, which grows."""
        return self.pass_number << 20 | self.number

    def own(self) -> Generator:
        """Return the sender's random numbers for this vector."""
        purpose = f"compress {self.step} {self.name}"
        return stream(self.seed, purpose, self.source, self.pass_number, self.destination)


class Codec(ABC):
    """Turns a float32 vector of shape [n] into bytes, and back.

    A subclass is a frozen dataclass whose fields are its arguments in the key `compress`, each declared with `option`.
    Encoded vectors of one length have one length, so a receiver knows how many bytes must come before it reads any.

    Examples
    --------
    >>> from ross_flwr.compression.floats import Float16
    >>> leg = Leg(seed=0, name="model", step="share", pass_number=0, number=0, source=0, destination=1)
    >>> data = Float16().encode(torch.tensor([1.0, 0.1]), leg, {})
    >>> len(data), Float16().decode(data, 2, leg)
    (4, tensor([1.0000, 0.1000]))
    """

    biased: ClassVar[bool] = False
    """Whether the mean of what is decoded is another vector. What such a codec leaves out is added to the next one."""
    fixed: ClassVar[bool] = True
    """Whether all messages have the same size."""
    remembers: ClassVar[tuple[str, ...]] = ()
    """What the sender remembers for `encode`."""

    @property
    def coarse(self) -> bool:
        """Whether most of a single vector is lost: gradients survive that, models and momenta only as differences."""
        return False

    @property
    def hears(self) -> tuple[str, ...]:
        """What the receiver remembers."""
        return ()

    @property
    def damping(self) -> float:
        """By what to multiply what is decoded, so that it leaves out less than there was, however coarse it is."""
        return 1.0

    @abstractmethod
    def size(self, n: int) -> int:
        """Return how many bytes n numbers take."""

    def most(self, n: int) -> int:
        """Return the most bytes that a message of n numbers takes."""
        return self.size(n)

    @abstractmethod
    def encode(self, vector: Tensor, leg: Leg, memory: Memory) -> Tensor:
        """Return the bytes that stand for `vector`, uint8 of shape [size(n)]. The sender may write into `memory`."""

    @abstractmethod
    def decode(self, data: Tensor, n: int, leg: Leg) -> Tensor:
        """Return the vector, float32 of shape [n], for which `data` of shape [size(n)] stands.

        Raises
        ------
        Refused
            When no vector is encoded like this. The data comes from the network.
        """

    @property
    def keeps(self) -> tuple[str, ...]:
        """What the sender remembers, what it left out included."""
        return (*self.remembers, "owed") if self.biased else self.remembers

    def send(self, vector: Tensor, own: Tensor | None, sent: Memory, heard: Memory, leg: Leg) -> Tensor:
        """Return what travels for `vector`.

        Parameters
        ----------
        vector : Tensor
            Float32 of shape [n].
        own : Tensor, optional
            What the sender sends itself under this name.
        sent, heard : Memory
            What the sender remembers of what it sent along this edge, and of what it received. It may write into
            `sent`.
        leg : Leg
            Where the vector goes.

        Raises
        ------
        Refused
            When the numbers are too large.
        """
        if not self.biased:
            return self.encode(vector, leg, sent)
        wanted = vector + sent.pop("owed") if "owed" in sent else vector.clone()
        data = self.encode(wanted, leg, sent)
        sent["owed"] = finite(wanted.sub_(self.decode(data, len(vector), leg)))
        return data

    def receive(self, data: Tensor, n: int, sent: Memory, heard: Memory, leg: Leg, *, mixed: bool) -> Tensor:
        """Return the vector of shape [n] that the receiver reads.

        Parameters
        ----------
        data : Tensor
            What came, uint8 of shape [m] with any m.
        n : int
            The length of the vector.
        sent, heard : Memory
            What the receiver remembers of what it sent in the other direction, and of what it received. It may write
            into `heard`.
        leg : Leg
            Where the vector comes from.
        mixed : bool
            Whether the next step averages the vector with others; otherwise it needs the very vector.

        Raises
        ------
        Refused
            When `data` has another length than it should, or no vector is encoded like this.
        """
        return self.decode(exactly(data, self.size(n)), n, leg)

    def mark(self, sent: Memory, heard: Memory, leg: Leg) -> Hashable:
        """Return what `send` depends on besides the vector and what was sent."""
        return None


def exactly(data: Tensor, size: int) -> Tensor:
    """Return `data`, or refuse it unless it has `size` bytes."""
    if len(data) != size:
        raise Refused("shape")
    return data


def as_bytes(*parts: Tensor) -> Tensor:
    """Return the memory of the tensors, one after the other, as uint8 of shape [m]."""
    return torch.cat([part.contiguous().view(-1).view(torch.uint8) for part in parts])


def floats(data: Tensor) -> Tensor:
    """Return the float32 numbers in `data`, uint8 of shape [4 m], and refuse NaN and infinities."""
    return finite(data.view(torch.float32))


def finite(vector: Tensor) -> Tensor:
    """Return the vector, or refuse it if it holds NaN or an infinity."""
    if not is_finite(vector):
        raise Refused("not-finite")
    return vector
