"""What agents here last sent to other nodes, for those that were away."""

from collections.abc import Collection, Iterable

from ross_flwr.algorithms.messages import Refused
from ross_flwr.direct.progress import Edge
from ross_flwr.engine.envelope import Envelope

__all__ = ["Kept"]


class Kept:
    """The latest message of each edge and step, of the steps that send models.

    Parameters
    ----------
    steps : collection of int
        The numbers of the steps that send models. Nothing of other steps is kept.
    """

    def __init__(self, steps: Collection[int]) -> None:
        self._steps = frozenset(steps)
        self._latest: dict[Edge, dict[int, Envelope]] = {}

    def keep(self, step: int, envelopes: Iterable[Envelope]) -> None:
        """Keep the envelopes of a step instead of those of its last pass; one without tensors leaves nothing."""
        if step in self._steps:
            for envelope in envelopes:
                latest = self._latest.setdefault((envelope.source, envelope.destination), {})
                latest.pop(step, None)
                if envelope.tensors:
                    latest[step] = envelope

    def take(self, edge: Edge) -> list[tuple[int, Envelope]]:
        """Return the envelopes of an edge with the numbers of their steps, and keep them no longer.

        Raises
        ------
        Refused
            When there are none: the method sends no models, has sent none yet, or they were taken already.
        """
        if not (latest := self._latest.pop(edge, {})):
            raise Refused("nothing-sent")
        return sorted(latest.items())
