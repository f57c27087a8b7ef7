"""What the nodes of a run must agree on before they exchange anything."""

from dataclasses import dataclass

from ross_flwr.direct.wire import layouts
from ross_flwr.engine.envelope import Envelope
from ross_flwr.peer.v1.peer_pb2 import Header, Hello, Refusal

__all__ = ["Agreement"]

PROTOCOL = 1


@dataclass(frozen=True)
class Agreement:
    """What the nodes of a run must agree on.

    Attributes
    ----------
    run : str
        The name of the run.
    topology, layout : str
        Digests of the topology and of the model.
    steps : tuple of str
        The steps that send messages, in the order of a pass.
    """

    run: str
    topology: str
    layout: str
    steps: tuple[str, ...]

    @property
    def exchanges(self) -> int:
        """The number of exchanges in a pass."""
        return len(self.steps)

    def hello(self, exchange: int) -> Hello:
        """Return the greeting of a node that awaits `exchange`."""
        pass_number, step = divmod(exchange, self.exchanges)
        return Hello(
            protocol=PROTOCOL,
            run=self.run,
            topology=self.topology,
            layout=self.layout,
            pass_number=pass_number,
            step=step,
        )

    def disagreement(self, hello: Hello) -> str:
        """Return why this node cannot exchange anything with the sender of `hello`, or an empty string."""
        ours = self.hello(0)
        for name in ("protocol", "run", "topology", "layout"):
            if getattr(ours, name) != getattr(hello, name):
                return f"other-{name}"
        return ""

    def header(self, envelope: Envelope, step: int) -> Header:
        """Return the header of an envelope of step number `step`."""
        return Header(
            run=envelope.run,
            pass_number=envelope.pass_number,
            step=step,
            source=envelope.source,
            destination=envelope.destination,
            tensors=layouts(envelope.tensors),
        )

    def exchange(self, position: Hello | Header | Refusal) -> int:
        """Return the exchange that a node awaits, or that an envelope belongs to."""
        return position.pass_number * self.exchanges + position.step
