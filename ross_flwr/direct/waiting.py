"""The wait for one exchange: what is missing, until when to wait for it, and who is to blame."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ross_flwr.direct.pace import Pace
from ross_flwr.direct.standings import GREETING, Standing

__all__ = ["Edge", "Waiting"]

Edge: TypeAlias = tuple[int, int]
"""Source and destination: two agents."""


@dataclass
class Waiting:
    """The wait for one exchange.

    Attributes
    ----------
    exchange : int
        The exchange.
    edges : tuple of Edge
        Where something is to come.
    since : float
        When the wait began.
    arrived : mapping of Edge to float
        What has arrived, and when.
    latest : mapping of Edge to int
        The latest exchange of which something has begun to arrive.
    asked : int
        How often late neighbours were asked for their positions.
    silent : frozenset of str
        Those who have not answered yet.
    excused : bool
        Whether a late neighbour says that it is behind.
    """

    exchange: int
    edges: tuple[Edge, ...]
    since: float
    arrived: Mapping[Edge, float]
    latest: Mapping[Edge, int]
    asked: int = 0
    silent: frozenset[str] = frozenset()
    excused: bool = False

    @property
    def missing(self) -> list[Edge]:
        """The edges on which nothing has arrived."""
        return [edge for edge in self.edges if edge not in self.arrived]

    @property
    def expected(self) -> list[Edge]:
        """The edges on which something is missing and may still come: envelopes come in their order."""
        return [edge for edge in self.missing if self.latest.get(edge, 0) <= self.exchange]

    @property
    def alone_since(self) -> float:
        """The time from which only those who are missing keep the node waiting."""
        return max(self.since, *self.arrived.values(), self.since)

    def end(self, patience: float, now: float) -> tuple[float, bool]:
        """Return the time until which to wait for late neighbours, and whether to ask them before waiting on."""
        end = self.since + patience
        if self.excused:  # it may wait as long itself, and began a little later
            return end + patience + min(GREETING, patience) / 2, False
        if self.asked < 2:
            # Ask halfway too: others that wait for the same neighbour give up at about that time, so are not behind.
            moment = end - patience / 2 if self.asked == 0 else end
            return moment, now >= moment
        return end + (min(GREETING, patience) if self.silent else 0.0), False

    def spent(self, late: Collection[Standing], tolerance: float) -> float:
        """Return when the budgets of all these neighbours, who are late, are spent, and the tolerance is over."""
        return self.alone_since + max(tolerance, *(each.budget.left(self.since) for each in late))

    def blame(self, late: Collection[Standing], source: Callable[[Edge], Standing], pace: Pace, now: float) -> None:
        """Let those who kept the node waiting spend their budgets: the last to deliver, and those who are `late` still.

        Who delivers after all, and hardly late, spends nothing.
        """
        if now - self.since > pace.spared:
            came: dict[str, float] = {}
            for edge, at in self.arrived.items():
                name = source(edge).name
                came[name] = max(at, came.get(name, self.since))
            *_, before, last = sorted([self.since, self.since, *came.values()])
            for edge, at in self.arrived.items():
                if at == last:
                    source(edge).budget.spend(last - before - pace.grace if last - before > pace.spared else 0.0, now)
                    break
        for standing in late:
            standing.budget.spend(max(0.0, now - self.alone_since - pace.grace), now)
