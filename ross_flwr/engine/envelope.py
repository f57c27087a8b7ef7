"""One message in transit: source, destination, pass and step, and the named tensors that it carries."""

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
        The pass and step that sent it. The next step receives it.
    source, destination : int
        Agents.
    tensors : dict[str, Tensor]
        What it carries; empty if the step sends this receiver nothing. Nobody may change the tensors after they are
        sent, because receivers in one process share them.
    """

    run: str
    pass_number: int
    step: str
    source: int
    destination: int
    tensors: Message
