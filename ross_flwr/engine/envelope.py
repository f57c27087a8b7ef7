"""One message on its way: who to whom, when, and the named tensors it carries."""

from dataclasses import dataclass

from ross_flwr.algorithms.messages import Message

__all__ = ["Envelope"]


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message from one agent to another.

    Attributes
    ----------
    run : str
        The run it belongs to.
    pass_number, step : int, str
        The pass and the step that sent it; the next step receives it.
    source, destination : int
        Agents.
    tensors : dict[str, Tensor]
        What it carries; empty where the step has nothing to say. Nobody changes the tensors after they are sent:
        receivers in one process share them.
    """

    run: str
    pass_number: int
    step: str
    source: int
    destination: int
    tensors: Message
