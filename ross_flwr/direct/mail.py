"""What neighbours on other nodes sent, until its exchange comes."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from logging import WARNING, getLogger
from time import monotonic

from ross_flwr.algorithms.messages import Refused
from ross_flwr.direct.progress import Ask, Edge, GoOn, Progress, Wait
from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.refusals import Refusals, Sparing

__all__ = ["Mail"]

logger = getLogger("ross_flwr")


class Mail:
    """A bounded inbox: for each edge one envelope of the awaited exchange, and one of the next.

    It is used only in the event loop. Code that tells `progress` of an event must call `look` afterwards.

    Parameters
    ----------
    progress : Progress
        Decides what has room and how long to wait.
    ask : callable
        Starts to ask neighbours, by name, for their positions.

    Attributes
    ----------
    log : Sparing
        Where the node says what happens to its neighbours.
    """

    def __init__(self, progress: Progress, ask: Callable[[Collection[str]], object]) -> None:
        self.progress = progress
        self.log = Sparing(logger)
        self._refusals = Refusals(logger)
        self._ask = ask
        self._closed = False
        self._kept: dict[int, dict[Edge, Envelope]] = {}
        self._coming: set[tuple[int, Edge]] = set()
        self._moved = asyncio.Event()
        self._collected: Future[list[Envelope] | None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def admit(self, exchange: int, edge: Edge) -> None:
        """Reserve a place for an envelope that is beginning to arrive; wait until there is room.

        Raises
        ------
        Refused
            When the envelope is too old, too early or already here, or when nothing is collected any more.
        """
        if not self._has_room(exchange, edge):
            try:
                async with asyncio.timeout(self.progress.patience):
                    while not self._has_room(exchange, edge):
                        await self._moved.wait()
            except TimeoutError:
                raise Refused("ahead") from None
        self._coming.add((exchange, edge))

    def keep(self, exchange: int, edge: Edge, envelope: Envelope) -> None:
        """Put an admitted envelope into its place.

        Raises
        ------
        Refused
            When this node has moved on from its exchange.
        """
        if exchange < self.progress.exchange:
            raise Refused("late")
        self._kept.setdefault(exchange, {})[edge] = envelope
        self.progress.arrived(exchange, edge, monotonic())
        self.look()

    def leave(self, exchange: int, edge: Edge) -> None:
        """Give back the place of an admitted envelope, whatever happened to it."""
        self._coming.discard((exchange, edge))

    def collect(
        self, exchange: int, edges: Iterable[Edge], collected: "Future[list[Envelope] | None]", ready: float
    ) -> None:
        """Wait for the envelopes of an exchange, and end all earlier ones. The node has been ready since `ready`.

        `collected` gets those that came on the `edges`, or None when the neighbours have gone on without this node.
        """
        self._collected = collected
        self.progress.wait(exchange, edges, monotonic(), ready)
        self._forget()
        self.look()

    def look(self) -> None:
        """Check whether the wait for an exchange is over."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._collected:
            now = monotonic()
            exchange = self.progress.exchange
            decision = self.progress.decide(now)
            if isinstance(decision, Wait):
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(decision.until - now, self.look)
                return
            if isinstance(decision, Ask):
                self._ask(decision.neighbors)
                continue
            arrived = None
            if isinstance(decision, GoOn):
                arrived = [*self._kept.get(exchange, {}).values()]
                if decision.overdue:
                    self.drop("overdue", count=len(decision.overdue))
                for name in decision.given_up:
                    self.log.log(WARNING, f"given-up {name}", f"node {name} is no longer waited for")
                self._forget()
            self._collected.set_result(arrived)
            self._collected = None

    def begin(self, exchange: int) -> None:
        """Begin with an exchange, and end all earlier ones."""
        self.progress.begin(exchange, monotonic())
        self._forget()

    def land(self, end: int) -> int:
        """Return the pass in which to go on, `end` at most, once the neighbours have said where they are."""
        target = self.progress.land(end, monotonic())
        self._forget()
        return target

    @property
    def dropped(self) -> Counter[str]:
        """Envelopes and calls refused so far, by reason."""
        return self._refusals.counts

    def drop(self, reason: str, text: str = "", count: int = 1) -> None:
        """Count refused envelopes or calls, and log `text`, if there is one, with the reason."""
        self._refusals.add(reason, text, count)

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True
        self._move()

    def _has_room(self, exchange: int, edge: Edge) -> bool:
        if self._closed:
            raise Refused("closed")
        if (exchange, edge) in self._coming or edge in self._kept.get(exchange, {}):
            raise Refused("duplicate")
        has_room = self.progress.announced(exchange, edge, monotonic())
        if exchange < self.progress.exchange:
            raise Refused("old")
        if exchange > self.progress.exchange:  # nothing earlier will come on this edge
            asyncio.get_running_loop().call_soon(self.look)
        return has_room

    def _forget(self) -> None:
        """Forget what is too old, and wake those who wait for room."""
        for number in [number for number in self._kept if number < self.progress.exchange]:
            del self._kept[number]
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
