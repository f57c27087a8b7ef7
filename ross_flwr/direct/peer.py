"""A node among its neighbours: it serves them and calls them."""

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any

from ross_flwr.direct.agreement import Agreement
from ross_flwr.direct.background import in_background, soon
from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.channels import Neighbor
from ross_flwr.direct.kept import Kept
from ross_flwr.direct.link import Link
from ross_flwr.direct.mail import Mail
from ross_flwr.direct.pace import SLOWEST, Pace
from ross_flwr.direct.progress import Edge, Progress
from ross_flwr.direct.server import Server
from ross_flwr.direct.wire import Memory
from ross_flwr.engine.envelope import Envelope

__all__ = ["Peer"]


class Peer:
    """One node among its neighbours. Its methods are called from outside the event loop, and run in it.

    Parameters
    ----------
    agreement : Agreement
        The run.
    address : str
        The ``host:port`` on which to serve.
    neighbors : sequence of Neighbor
        The nodes that host neighbours of agents here.
    edges : collection of Edge
        The edges on which messages may arrive here.
    models : collection of int
        The numbers of the steps that send models.
    passes : int
        The passes of the run.
    patience : float
        Seconds to wait for an exchange.
    limit : int
        The largest size of an envelope's tensors, in bytes.
    credentials : Credentials, optional
        Without them, nodes do not prove who they are.
    behind_by : float
        How many seconds earlier the other nodes may have started.
    slowest : float
        See `Pace`.
    left : mapping of str to float
        For how many seconds neighbours may still keep this node waiting, by name, if they did so before.

    Raises
    ------
    ConfigError
        When the address cannot be served.
    """

    def __init__(
        self,
        agreement: Agreement,
        address: str,
        neighbors: Sequence[Neighbor],
        edges: Collection[Edge],
        models: Collection[int],
        *,
        passes: int,
        patience: float,
        limit: int,
        credentials: Credentials | None = None,
        behind_by: float = 0.0,
        slowest: float = SLOWEST,
        left: Mapping[str, float] | None = None,
    ) -> None:
        homes = {agent: neighbor.name for neighbor in neighbors for agent in neighbor.agents}
        end = passes * agreement.exchanges
        pace = Pace(agreement.exchanges, patience, now := monotonic(), slowest)
        self.progress = Progress(homes, pace, now, end=end, behind_by=behind_by)
        for name, seconds in (left or {}).items():
            if name in self.progress.standings:
                self.progress.standings[name].budget.cut(seconds)
        self.mail = Mail(self.progress, self._ask)
        memory = Memory()
        links = [Link(neighbor, agreement, self.mail, limit, memory) for neighbor in neighbors]
        self.homes: Mapping[int, Link] = {agent: link for link in links for agent in link.neighbor.agents}
        self.links = {link.neighbor.name: link for link in links}
        self.kept = Kept(models)
        self.server = Server(agreement, edges, self.kept, links, self.mail, limit, memory)
        self._edges = {link: [edge for edge in edges if self.homes[edge[0]] is link] for link in links}
        self._work: set[asyncio.Task[None]] = set()
        in_background(self._open(address, credentials))

    def begin(self, exchange: int) -> None:
        """Begin with an exchange, which is the first of a pass."""
        soon(self.mail.begin, exchange)

    def send(self, exchange: int, envelopes: Iterable[Envelope]) -> None:
        """Send the envelopes of an exchange to other nodes."""
        by_link: dict[Link, list[Envelope]] = {}
        for envelope in envelopes:
            by_link.setdefault(self.homes[envelope.destination], []).append(envelope)
        soon(self._send, exchange, by_link)

    def collect(self, exchange: int, edges: Iterable[Edge]) -> list[Envelope] | None:
        """Return what came on the `edges` in an exchange; None when the neighbours have gone on without this node."""
        collected: Future[list[Envelope] | None] = Future()
        soon(self._collect, exchange, edges, collected)
        return collected.result()

    def follow(self, end: int) -> tuple[list[Envelope], int]:
        """Return what the neighbours last sent, of the steps that send models, and the pass in which to go on.

        That is `end` at most, and no neighbour has begun it.
        """
        return in_background(self._follow(end))

    @property
    def left(self) -> dict[str, float]:
        """For how many seconds each neighbour may still keep this node waiting."""
        return {name: standing.budget.left(monotonic()) for name, standing in self.progress.standings.items()}

    def close(self) -> None:
        """Deliver what is waiting to leave, and stop."""
        in_background(self._close())

    async def _open(self, address: str, credentials: Credentials | None) -> None:
        await self.server.open(address, credentials)
        for link in self.links.values():
            await link.open(credentials)

    def _send(self, exchange: int, by_link: Mapping[Link, Collection[Envelope]]) -> None:
        for link, envelopes in by_link.items():
            self.kept.keep(exchange % self.progress.exchanges, envelopes)
            link.send(exchange, envelopes)

    def _collect(self, exchange: int, edges: Iterable[Edge], collected: "Future[list[Envelope] | None]") -> None:
        if full := [link for link in self.links.values() if link.is_full(exchange)]:
            self._start(self._make_room(full, exchange, edges, collected))
        else:
            self.mail.collect(exchange, edges, collected, monotonic())

    async def _make_room(
        self, full: Collection[Link], exchange: int, edges: Iterable[Edge], collected: "Future[list[Envelope] | None]"
    ) -> None:
        ready = monotonic()
        await asyncio.gather(*(link.make_room(exchange) for link in full))
        self.mail.collect(exchange, edges, collected, ready)

    def _ask(self, names: Collection[str]) -> None:
        for name in names:
            self._start(self.links[name].ask_position())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run some work in the background, and keep a reference to it, which the event loop would not."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _follow(self, end: int) -> tuple[list[Envelope], int]:
        up = [link for link in self.links.values() if link.up]
        fetched = await asyncio.gather(*(link.fetch(self._edges[link]) for link in up))
        await asyncio.gather(*(link.ask_position() for link in up))
        return [envelope for envelopes in fetched for envelope in envelopes], self.mail.land(end)

    async def _close(self) -> None:
        await asyncio.gather(*(link.flush() for link in self.links.values()))
        self.mail.close()
        await asyncio.gather(*(link.close() for link in self.links.values()))
        await self.server.close()
