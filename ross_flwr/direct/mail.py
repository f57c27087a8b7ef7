"""What neighbours on other nodes sent, until it is its turn."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from threading import Condition, RLock
from time import monotonic
from typing import TypeAlias

from ross_flwr.algorithms.messages import Refused
from ross_flwr.engine.envelope import Envelope

__all__ = ["Edge", "Mail"]

Edge: TypeAlias = tuple[int, int]
"""Source and destination."""

AHEAD = 1
"""So many exchanges more than the awaited one have room here: a neighbour may be one ahead."""


class Mail:
    """A bounded inbox: for each edge one envelope of the awaited exchange, and one of each of the next `AHEAD`.

    Exchanges are counted over the whole run: number e = t·(s−1) + k is what step k of round t of a method with s steps
    sends. One thread delivers, another collects.

    Parameters
    ----------
    patience : float
        Seconds to wait for the envelopes of an exchange.

    Attributes
    ----------
    changed : Condition
        Guards everything here; told whenever somebody who waits should look again.
    sent : Condition
        Of the same lock; told whenever something has left for a neighbour, so that nobody else wakes up for it.
    exchange : int
        The awaited exchange.
    dropped : Counter
        Envelopes refused so far, by reason.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        lock = RLock()
        self.changed = Condition(lock)
        self.sent = Condition(lock)
        self.exchange = 0
        self.closed = False
        self.dropped: Counter[str] = Counter()
        self._kept: dict[int, dict[Edge, Envelope]] = {}
        self._coming: set[tuple[int, Edge]] = set()
        self._latest: dict[Edge, int] = {}
        self._late: set[Edge] = set()
        self._moved: dict[Edge, Callable[[], object]] = {}

    def admit(self, exchange: int, edge: Edge, moved: Callable[[], object]) -> bool:
        """Keep a place for an envelope that is about to be read, if there is room.

        Who waits for an earlier one on the same edge waits no longer: they come in their order.

        Parameters
        ----------
        exchange : int
            The exchange it belongs to.
        edge : Edge
            Whence it comes.
        moved : callable
            Called, if there is no room yet, when it is worth to ask again. An edge has one; a later one replaces it.

        Raises
        ------
        Refused
            When it comes too late or again, or nothing is collected any more.
        """
        with self.changed:
            if self.closed:
                raise Refused("closed")
            if exchange < self.exchange:
                raise Refused("old")
            if (exchange, edge) in self._coming or edge in self._kept.get(exchange, {}):
                raise Refused("duplicate")
            self._latest[edge] = max(exchange, self._latest.get(edge, 0))
            if exchange > self.exchange:
                self._arrive(edge)
            if exchange > self.exchange + AHEAD:
                self._moved[edge] = moved
                return False
            self._coming.add((exchange, edge))
            return True

    def keep(self, exchange: int, edge: Edge, envelope: Envelope) -> None:
        """Put an admitted envelope into its place.

        Raises
        ------
        Refused
            When its exchange went on without it.
        """
        with self.changed:
            if exchange < self.exchange:
                raise Refused("late")
            self._kept.setdefault(exchange, {})[edge] = envelope
            if exchange == self.exchange:
                self._arrive(edge)

    def leave(self, exchange: int, edge: Edge) -> None:
        """Give the place of an admitted envelope back, whatever became of it."""
        with self.changed:
            self._coming.discard((exchange, edge))

    def collect(
        self,
        exchange: int,
        edges: Iterable[Edge],
        awaited: Callable[[Edge], bool],
        stop: Callable[[], bool],
        excused: Callable[[Collection[Edge]], bool] = lambda _: False,
    ) -> tuple[list[Envelope], list[Edge]]:
        """Wait for the envelopes of an exchange; return them, and the edges on which none came.

        Parameters
        ----------
        exchange : int
            Earlier ones are over, and what comes of them is refused.
        edges : iterable of Edge
            Whence an envelope may come.
        awaited : callable
            Whether to wait for an edge; it may change its mind.
        stop : callable
            Whether to stop waiting.
        excused : callable
            Whether those that are late wait for others themselves: then they get the same time again.
        """
        edges = list(edges)
        with self.changed:
            self._go_to(exchange)
            kept = self._kept.setdefault(exchange, {})

            def late() -> set[Edge]:
                coming = {edge for edge in edges if edge not in kept and self._latest.get(edge, 0) <= exchange}
                self._late = set() if stop() else set(filter(awaited, coming))
                return self._late

        # Asked at half-time too: those who waited give up at about the same moment, and are then only just at work.
        end, excuse = monotonic() + self.patience, False
        for moment in (end - self.patience / 2, end):
            with self.changed:
                self.changed.wait_for(lambda: not late(), moment - monotonic())
                absent = late()
            excuse = bool(absent) and (excuse or excused(absent))
        with self.changed:
            if excuse:
                self.changed.wait_for(lambda: not late(), self.patience)
            self._go_to(exchange + 1)
            return list(kept.values()), [edge for edge in edges if edge not in kept]

    def skip_to(self, exchange: int) -> None:
        """Forget all exchanges before this one."""
        with self.changed:
            self._go_to(exchange)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count dropped envelopes."""
        with self.changed:
            self.dropped[reason] += count

    def close(self) -> None:
        """Let go of everybody who waits for room."""
        with self.changed:
            self.closed = True
            self._move()

    def _go_to(self, exchange: int) -> None:
        self.exchange = exchange
        for number in [number for number in self._kept if number < exchange]:
            del self._kept[number]
        self._move()

    def _arrive(self, edge: Edge) -> None:
        """Wake up who collects once nothing is late any more."""
        self._late.discard(edge)
        if not self._late:
            self.changed.notify_all()

    def _move(self) -> None:
        moved, self._moved = self._moved, {}
        for tell in moved.values():
            tell()
