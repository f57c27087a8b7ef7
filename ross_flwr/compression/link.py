"""The link of the message chain that compresses."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ross_flwr.algorithms.messages import Exchange, Form, Forms, Message, MessageTransform, Refused, is_finite
from ross_flwr.compression.codec import Codec, Leg, Memory
from ross_flwr.learning.agent import Agent

__all__ = ["EVERYTHING", "Compression"]

EVERYTHING = ""
"""The kind that stands for all vectors that are not named."""

SHORTEST = 64
"""Vectors of fewer numbers, such as the weights of push-sum, travel as they are."""


@dataclass(frozen=True)
class Compression(MessageTransform):
    """Compresses vectors after all that changes what they say, and decompresses them at the receiver.

    It looks at vectors of a fixed length that a step declares, and leaves everything else alone. What it remembers of
    an edge is in the state of the agent at each end, under ``compress.NAME.NEIGHBOUR.``.

    Parameters
    ----------
    codecs : mapping of str to Codec or None
        By the name of a vector in its message; `EVERYTHING` for all others. None leaves vectors as they are.
    asked : frozenset of str
        Steps whose vectors the next step needs as they are, as it takes gradients there or sends what to add to them.

    Examples
    --------
    >>> from ross_flwr.algorithms.messages import on_the_wire
    >>> from ross_flwr.compression.integers import Int8
    >>> on_the_wire({"model": Form((1000,))}, [Compression({"model": Int8()})])["model"]
    Form(shape=(1008,), dtype=torch.uint8, optional=False)
    """

    codecs: Mapping[str, Codec | None]
    asked: frozenset[str] = frozenset()

    def codec(self, name: str, form: Form | None) -> Codec | None:
        """Return what compresses a tensor of this name and form, if anything does."""
        if form is None or not form.dtype.is_floating_point or len(form.shape) != 1 or (form.shape[0] or 0) < SHORTEST:
            return None
        return self.codecs.get(name, self.codecs.get(EVERYTHING))

    def wire(self, forms: Forms) -> Forms:
        """Return the forms of what is compressed."""
        return {name: self._on_the_wire(name, form) for name, form in forms.items()}

    def send(self, agent: Agent, outbox: dict[int, Message], exchange: Exchange) -> dict[int, Message]:
        """Return the messages with their vectors compressed. What several receivers get alike is one object."""
        bring_to_cpu(agent)
        made: dict[Hashable, tuple[Tensor, Memory]] = {}
        messages: dict[tuple[int, ...], Message] = {}
        own = exchange.outboxes.get(agent.index, {}).get(agent.index, {})
        compressed = {}
        for j, message in outbox.items():
            packed = dict(message)
            for name, vector in message.items():
                if codec := self.codec(name, exchange.forms.get(name)):
                    packed[name] = self._sent(codec, agent, j, name, vector, own.get(name), exchange, made)
            compressed[j] = messages.setdefault(tuple(map(id, packed.values())), packed)
        return compressed

    def receive(self, agent: Agent, source: int, message: Message, exchange: Exchange) -> Message:
        """Return the message with its vectors decompressed."""
        bring_to_cpu(agent)
        unpacked = dict(message)
        for name, data in message.items():
            form = exchange.forms.get(name)
            if form and (codec := self.codec(name, form)):
                unpacked[name] = self._received(codec, agent, source, name, data, form, exchange)
        return unpacked

    def _on_the_wire(self, name: str, form: Form) -> Form:
        codec = self.codec(name, form)
        if codec is None:
            return form
        size = codec.size(form.shape[0] or 0) if codec.fixed else None
        return Form((size,), torch.uint8, form.optional)

    def _sent(
        self,
        codec: Codec,
        agent: Agent,
        destination: int,
        name: str,
        vector: Tensor,
        own: Tensor | None,
        exchange: Exchange,
        made: dict[Hashable, tuple[Tensor, Memory]],
    ) -> Tensor:
        sent = recall(agent, name, destination, "sent", codec.keeps)
        heard = recall(agent, name, destination, "heard", codec.hears)
        leg = Leg(agent.seed, name, exchange.step, exchange.pass_number, exchange.number, agent.index, destination)
        key = (name, id(vector), *map(id, sent.values()), codec.mark(sent, heard, leg))
        if key not in made:
            made[key] = (self._encoded(codec, vector, own, sent, heard, leg), sent)
        data, sent = made[key]
        remember(agent, name, destination, "sent", codec.keeps, sent)
        return data

    def _encoded(
        self, codec: Codec, vector: Tensor, own: Tensor | None, sent: Memory, heard: Memory, leg: Leg
    ) -> Tensor:
        """Return what travels; for numbers that no receiver would take, bytes that none takes."""
        flat = vector.to("cpu", torch.float32)
        try:
            if is_finite(flat):
                return codec.send(flat, flat if own is vector else None, sent, heard, leg)
        except Refused:
            sent.clear()
        return torch.full((codec.most(len(flat)),), 255, dtype=torch.uint8)

    def _received(
        self, codec: Codec, agent: Agent, source: int, name: str, data: Tensor, form: Form, exchange: Exchange
    ) -> Tensor:
        sent = recall(agent, name, source, "sent", codec.keeps)
        heard = recall(agent, name, source, "heard", codec.hears)
        leg = Leg(agent.seed, name, exchange.step, exchange.pass_number, exchange.number, source, agent.index)
        mixed = exchange.step not in self.asked
        try:
            vector = codec.receive(data.cpu(), form.shape[0] or 0, sent, heard, leg, mixed=mixed)
        finally:
            remember(agent, name, source, "heard", codec.hears, heard)
        return vector.to(agent["model"].device, form.dtype)


def bring_to_cpu(agent: Agent) -> None:
    """Move what an agent remembers to the CPU, where codecs work: a restart puts all of its state on one device."""
    if agent["model"].device.type == "cpu":
        return
    moved: dict[int, Tensor] = {}
    for key, tensor in agent.state.items():
        if key.startswith("compress.") and tensor.device.type != "cpu":
            agent.state[key] = moved.setdefault(id(tensor), tensor.cpu())


def recall(agent: Agent, name: str, neighbor: int, end: str, keys: Iterable[str]) -> Memory:
    """Return what an agent remembers of what it sent (``"sent"``) or heard (``"heard"``) along an edge."""
    prefix = f"compress.{name}.{neighbor}.{end}."
    return {key: agent.state[prefix + key] for key in keys if prefix + key in agent.state}


def remember(agent: Agent, name: str, neighbor: int, end: str, keys: Iterable[str], memory: Memory) -> None:
    """Keep that, and forget what is no longer in `memory`."""
    for key in keys:
        if key in memory:
            agent.state[f"compress.{name}.{neighbor}.{end}.{key}"] = memory[key]
        else:
            agent.state.pop(f"compress.{name}.{neighbor}.{end}.{key}", None)
