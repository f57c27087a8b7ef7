"""What agents send each other between two steps, and what may change it on the way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TypeAlias

import torch
from torch import Tensor

from ross_flwr.learning.agent import Agent

__all__ = [
    "Broadcast",
    "Exchange",
    "Form",
    "Forms",
    "Inbox",
    "Message",
    "MessageTransform",
    "Outbox",
    "Refused",
    "broadcast",
    "on_the_wire",
    "require_form",
    "vector",
]

Message: TypeAlias = dict[str, Tensor]
"""Named tensors from one agent to another. Neither side changes them after they are sent."""


class Inbox(dict[int, Message]):
    """The messages that arrived from the step before, by source in ascending order.

    It includes what the agent sent to itself. It does not include messages that were late, lost or bad.

    Examples
    --------
    >>> Inbox({1: {"model": torch.ones(2)}}).gather("model")
    {1: tensor([1., 1.])}
    """

    def gather(self, name: str) -> dict[int, Tensor]:
        """Return the tensor called `name` of every message, by source."""
        return {source: message[name] for source, message in self.items()}


@dataclass(frozen=True, slots=True)
class Broadcast:
    """The same message to the whole closed neighbourhood, the agent itself included."""

    message: Message


Outbox: TypeAlias = Broadcast | Mapping[int, Message]
"""What a step sends: one message to everybody, or one by destination. Empty after the last step of a pass."""


def broadcast(**tensors: Tensor) -> Broadcast:
    """Send the same named tensors to every neighbour, and to oneself for the next step.

    Examples
    --------
    >>> broadcast(model=torch.zeros(2))
    Broadcast(message={'model': tensor([0., 0.])})
    """
    return Broadcast(tensors)


class Refused(Exception):  # noqa: N818 (it is an outcome)
    """A message is dropped. `reason` is one word, under which the drop is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Form:
    """The shape and type of a tensor in a message.

    Attributes
    ----------
    shape : tuple of int or None
        The lengths of its dimensions. None stands for any length.
    dtype : torch.dtype (default: float32)
        The type of its numbers.
    optional : bool (default: False)
        Whether a message may leave it out.

    Examples
    --------
    >>> labels = Form((None,), torch.int64)
    >>> labels.check(torch.tensor([3, 1, 4]))
    >>> labels.check(torch.tensor([3.0, 1.0, 4.0]))
    Traceback (most recent call last):
        ...
    ross_flwr.algorithms.messages.Refused: dtype
    """

    shape: tuple[int | None, ...]
    dtype: torch.dtype = torch.float32
    optional: bool = False

    def check(self, tensor: Tensor) -> None:
        """Raise `Refused` unless `tensor` has this form and all its numbers are finite."""
        lengths = zip(tensor.shape, self.shape, strict=False)
        if tensor.dim() != len(self.shape) or any(want not in (None, has) for has, want in lengths):
            raise Refused("shape")
        if tensor.dtype != self.dtype:
            raise Refused("dtype")
        if not is_finite(tensor):
            raise Refused("not-finite")


def vector(agent: Agent) -> Form:
    """Return the form of the flat vectors of an agent, shape [P]."""
    return Form((agent.objective.size,), agent["model"].dtype)


Forms: TypeAlias = Mapping[str, Form]
"""What a message looks like: the form of each tensor, by name."""


def require_form(message: Message, forms: Forms) -> None:
    """Raise `Refused` unless `message` has the tensors that `forms` names and no others, each in its form."""
    if not {name for name, form in forms.items() if not form.optional} <= message.keys() <= forms.keys():
        raise Refused("names")
    for name, tensor in message.items():
        forms[name].check(tensor)


def is_finite(tensor: Tensor) -> bool:
    """Return whether no entry is NaN or infinite. Checking the sum is forty times faster than checking every entry."""
    return isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One step of the agents of a node, as the transforms of its messages see it.

    Attributes
    ----------
    pass_number, number, step : int, int, str
        The pass, and the number and name of the step in it that sends.
    forms : Forms
        What the step declares that it sends.
    agents : mapping of int to Agent
        The agents of this node that ran the step.
    inboxes, outboxes : mapping of int to mapping
        What each of them received in the step, and what it sends, before any transform.
    """

    pass_number: int
    number: int
    step: str
    forms: Forms = field(default_factory=dict)
    agents: Mapping[int, Agent] = field(default_factory=dict)
    inboxes: Mapping[int, Inbox] = field(default_factory=dict)
    outboxes: Mapping[int, Mapping[int, Message]] = field(default_factory=dict)


class MessageTransform:
    """One link of the message chain: it changes messages between the step that makes them and the step that reads them.

    An attack, a fault or a codec overrides what it needs; the other methods pass messages on unchanged. It keeps what
    it must remember in ``agent.state``, which survives a restart and travels with the agent. Receivers share messages,
    so a changed message must be a new dictionary with new tensors.

    Examples
    --------
    >>> class HalfPrecision(MessageTransform):
    ...     def send(self, agent, outbox, exchange):
    ...         return {j: {name: x.half() for name, x in message.items()} for j, message in outbox.items()}
    ...
    ...     def receive(self, agent, source, message, exchange):
    ...         return {name: x.float() for name, x in message.items()}
    ...
    ...     def wire(self, forms):
    ...         return {name: Form(form.shape, torch.float16) for name, form in forms.items()}
    >>> on_the_wire({"model": Form((2,))}, [HalfPrecision()])["model"].dtype
    torch.float16
    """

    def send(self, agent: Agent, outbox: dict[int, Message], exchange: Exchange) -> dict[int, Message]:
        """Return what `agent` sends instead of `outbox`, by destination. It is called after every step."""
        return outbox

    def receive(self, agent: Agent, source: int, message: Message, exchange: Exchange) -> Message:
        """Return what `agent` reads instead of `message` from `source`; raise `Refused` to drop it.

        The message comes from the network, and has only been checked against `wire`.
        """
        return message

    def wire(self, forms: Forms) -> Forms:
        """Return the forms on the wire of messages that have `forms` before `send`."""
        return forms


def on_the_wire(forms: Forms, transforms: Iterable[MessageTransform]) -> Forms:
    """Return the forms of messages as they travel, after all `transforms`."""
    for transform in transforms:
        forms = transform.wire(forms)
    return forms
