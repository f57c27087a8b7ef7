"""A node among its neighbours: serves them and calls them over gRPC, with mutual TLS."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from ipaddress import ip_address
from logging import INFO, WARNING, getLogger
from statistics import median_high
from threading import Lock, Thread
from time import monotonic
from typing import Any, TypeAlias, TypeVar

import grpc
import torch
from torch import Tensor

from ross_flwr.algorithms.messages import Refused
from ross_flwr.config import ConfigError, host_and_port
from ross_flwr.direct.certificates import DOMAIN, Credentials
from ross_flwr.direct.mail import Edge, Mail
from ross_flwr.direct.wire import CHUNK, Assembly, Memory, chunks, layouts, parse
from ross_flwr.engine.envelope import Envelope
from ross_flwr.learning.agent import Agent
from ross_flwr.peer.v1.peer_pb2 import Header, Hello, Refusal, Request
from ross_flwr.peer.v1.peer_pb2_grpc import PeerExchangeServicer, PeerExchangeStub

__all__ = ["Link", "Neighbor", "Peer", "Place", "check_address"]

logger = getLogger("ross_flwr")

PROTOCOL = 1
SERVICE = "ross_flwr.peer.v1.PeerExchange"
Piece: TypeAlias = tuple[Header | None, memoryview]
"""A chunk as it is read: header, if there is one, and data."""
MISSES = 3
"""A neighbour that missed so many exchanges in a row is no longer waited for, until it is heard again."""
GREETING = 5.0
"""Seconds that an answer to a greeting may take, and the longest pause between two greetings of a silent neighbour."""
GRACE = 0.2
"""Seconds in which neighbours who still send may end."""
STREAMS = 2
"""Calls that one peer may have open at a time, of each kind."""
OPTIONS = [
    ("grpc.max_receive_message_length", 2 * CHUNK),
    ("grpc.so_reuseport", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", int(1000 * GREETING)),  # what one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),  # so often the other end is asked whether it is still there
    ("grpc.http2.max_pings_without_data", 0),  # however little it says itself
    ("grpc.http2.max_ping_strikes", 0),  # and may ask in turn
]
BROKEN = (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError, TimeoutError)
"""How a call ends when the neighbour is gone."""
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Result = TypeVar("_Result")
_STARTING = Lock()


@dataclass(frozen=True)
class Neighbor:
    """A node that hosts neighbours of agents here: its name, its ``host:port``, and those agents."""

    name: str
    address: str
    agents: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """What all nodes of a run have to agree on: the run, digests of topology and model, the steps that send."""

    run: str
    topology: str
    layout: str
    steps: tuple[str, ...]

    @property
    def exchanges(self) -> int:
        """Exchanges in a pass over the method's steps."""
        return len(self.steps)

    @property
    def far(self) -> int:
        """So many exchanges ahead the rooms on the way may explain, and what one that returns adds."""
        return 2 * self.exchanges + 3

    def hello(self, exchange: int) -> Hello:
        """Return the greeting of somebody who awaits `exchange`."""
        round, step = divmod(exchange, self.exchanges)
        return Hello(
            protocol=PROTOCOL, run=self.run, topology=self.topology, layout=self.layout, round=round, step=step
        )

    def disagreement(self, hello: Hello) -> str:
        """Return why nothing can be exchanged with who says `hello`, or an empty string."""
        ours, theirs = self.hello(0), hello
        for name in ("protocol", "run", "topology", "layout"):
            if getattr(ours, name) != getattr(theirs, name):
                return f"other-{name}"
        return ""

    def exchange(self, position: Hello | Header | Refusal) -> int:
        """Return the exchange that a peer awaits, or that an envelope is of."""
        return position.round * self.exchanges + position.step


class Peer(PeerExchangeServicer):
    """One node among its neighbours.

    Parameters
    ----------
    place : Place
        The run.
    address : str
        The ``host:port`` to serve at.
    neighbors : sequence of Neighbor
        The nodes that host neighbours of agents here. Nobody else is served.
    edges : collection of Edge
        The edges on which something may come here.
    mail : Mail
        Where it goes.
    agents : mapping of int to Agent
        The agents here; neighbours that were away ask for their models.
    limit : int
        Bytes of tensors an envelope may have.
    credentials : Credentials, optional
        Without, nobody proves who it is.

    Attributes
    ----------
    behind : bool
        Whether the neighbours have gone on without this node.

    Raises
    ------
    ConfigError
        When the address cannot be served.
    """

    def __init__(
        self,
        place: Place,
        address: str,
        neighbors: Sequence[Neighbor],
        edges: Collection[Edge],
        mail: Mail,
        agents: Mapping[int, Agent],
        limit: int,
        credentials: Credentials | None = None,
    ) -> None:
        self.place = place
        self.mail = mail
        self.edges = frozenset(edges)
        self.agents = agents
        self.limit = limit
        self.memory = Memory()
        self.secure = credentials is not None
        self.behind = False
        self._streams: Counter[tuple[str, str]] = Counter()
        self.links = [Link(self, neighbor) for neighbor in neighbors]
        self.homes: Mapping[int, Link] = {agent: link for link in self.links for agent in link.neighbor.agents}
        in_loop(self._open(address, credentials))

    async def _open(self, address: str, credentials: Credentials | None) -> None:
        self._server = grpc.aio.server(options=[*OPTIONS, silence(self.mail.patience)])
        handlers = {
            "Greet": grpc.unary_unary_rpc_method_handler(self.Greet, Hello.FromString, Hello.SerializeToString),
            "Deliver": grpc.stream_stream_rpc_method_handler(self.Deliver, parse, Refusal.SerializeToString),
            "Fetch": grpc.unary_stream_rpc_method_handler(self.Fetch, Request.FromString),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            if credentials:
                pair = [(credentials.key, credentials.certificate)]
                identity = grpc.ssl_server_credentials(pair, credentials.authority, require_client_auth=True)
                self._server.add_secure_port(address, identity)
            else:
                self._server.add_insecure_port(address)
        except RuntimeError:
            raise ConfigError(
                f"peer-address = '{address}' cannot be served: it is taken, or not of this host"
            ) from None
        await self._server.start()
        for link in self.links:
            await link.open(credentials)

    def close(self) -> None:
        """Deliver what is on its way, and stop."""
        with self.mail.sent:
            self.mail.sent.wait_for(lambda: all(link.idle for link in self.links), self.mail.patience)
        self.mail.close()
        in_loop(self._close())

    async def _close(self) -> None:
        await asyncio.gather(*(link.close() for link in self.links))
        await self._server.stop(GRACE)

    def send(self, exchange: int, envelopes: Iterable[tuple[Envelope, int]]) -> None:
        """Send envelopes of an exchange, each with the number of its step, once those before the last one have left."""
        by_link: dict[Link, list[tuple[int, int, Envelope]]] = {}
        for envelope, step in envelopes:
            by_link.setdefault(self.homes[envelope.destination], []).append((exchange, step, envelope))
        with self.mail.sent:
            links = sorted(by_link, key=lambda link: link.full(exchange))  # nobody waits for the room of another
        for link in links:
            link.send(by_link[link])

    def collect(self, exchange: int, edges: Iterable[Edge]) -> list[Envelope]:
        """Return what came on the `edges` in an exchange, once all is there or too late."""
        arrived, missing = self.mail.collect(
            exchange, edges, lambda edge: self.homes[edge[0]].awaited, lambda: self.behind, self._excused
        )
        if not self.behind:
            with self.mail.changed:
                for link in {self.homes[source] for source, _ in missing}:
                    link.miss()
        return arrived

    def _excused(self, late: Collection[Edge]) -> bool:
        """Whether a neighbour has not sent what it owes because it waits for its own neighbours."""
        links = {self.homes[source] for source, _ in late}
        positions = [in_loop(link.position()) for link in links]
        return any(position is not None and position < self.mail.exchange for position in positions)

    def compare(self) -> None:
        """See whether the neighbours have gone on without this node.

        Most of them are far ahead, or all find what comes from here too late. One alone may lie.
        """
        lead = most([link.heard_at for link in self.links]) - self.mail.exchange
        stale = all(link.stale >= MISSES for link in self.links if link.reachable)
        if stale or lead > self.place.far:
            self.behind = True

    def forgive(self) -> None:
        """Begin anew after having been left behind."""
        with self.mail.changed:
            self.behind = False
            for link in self.links:
                link.forgive()

    # What neighbours call.

    async def Greet(self, request: Hello, context: Context) -> Hello:  # noqa: N802
        """Say where this node stands; and see who is back."""
        link = self._caller(context)
        if link is None:
            self._drop("stranger", context)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "you host no neighbour of an agent here")
        elif not self.place.disagreement(request):
            link.poke()
        return self.place.hello(self.mail.exchange)

    async def Deliver(self, request_iterator: AsyncIterator[Piece], context: Context) -> None:  # noqa: N802
        """Take envelopes, or say why not."""
        refused = False
        try:
            with self._stream("deliver", context):
                async for header, data in request_iterator:
                    if refused and header is None:
                        continue  # the rest of what was refused
                    try:
                        await self._receive(header, data, request_iterator, context)
                        refused = False
                    except Refused as error:
                        refused = True
                        await self._refuse(error.reason, header, context)
        except Refused as error:
            await self._refuse(error.reason, None, context)

    async def _refuse(self, reason: str, header: Header | None, context: Context) -> None:
        self._drop(reason, context)
        refused = header or Header()
        here = self.place.hello(self.mail.exchange)
        await context.write(
            Refusal(
                reason=reason,
                round=here.round,
                step=here.step,
                refused_round=refused.round,
                refused_step=refused.step,
            )
        )

    async def Fetch(self, request: Request, context: Context) -> None:  # noqa: N802
        """Send an agent's model to a neighbour of it."""
        try:
            with self._stream("fetch", context):
                if request.run != self.place.run:
                    raise Refused("other-run")
                if self._caller(context) is None:
                    raise Refused("stranger")
                if request.agent not in self.agents:
                    raise Refused("not-hosted")
                model = {"model": self.agents[request.agent]["model"]}
                header = Header(run=request.run, source=request.agent, tensors=layouts(model))
                for chunk in chunks(header, model.values()):
                    await context.write(chunk)
        except Refused as error:
            self._drop(error.reason, context)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.reason)

    async def _receive(
        self, header: Header | None, data: memoryview, rest: AsyncIterator[Piece], context: Context
    ) -> None:
        if header is None:
            raise Refused("malformed")
        edge = header.source, header.destination
        if header.run != self.place.run:
            raise Refused("other-run")
        if edge not in self.edges:
            raise Refused("no-edge")
        if not self._is(self.homes[header.source].neighbor, context):
            raise Refused("stranger")
        if header.step >= self.place.exchanges:
            raise Refused("other-step")
        exchange = self.place.exchange(header)
        await self._admit(exchange, edge)
        try:
            assembly = Assembly(header.tensors, self.limit, self.memory)
            assembly.add(data)
            while not assembly.complete and (piece := await anext(rest, None)):
                if piece[0] is not None:
                    raise Refused("malformed")
                assembly.add(piece[1])
            envelope = Envelope(header.run, header.round, self.place.steps[header.step], *edge, assembly.finish())
            self.mail.keep(exchange, edge, envelope)
        except asyncio.CancelledError:  # the stream broke off
            self._drop("truncated", context)
            raise
        finally:
            self.mail.leave(exchange, edge)
        self.homes[header.source].hear()

    async def _admit(self, exchange: int, edge: Edge) -> None:
        """Keep a place for an envelope, once there is room."""
        moved = asyncio.Event()
        end = monotonic() + self.mail.patience
        while not self.mail.admit(exchange, edge, partial(_loop().call_soon_threadsafe, moved.set)):
            try:
                await asyncio.wait_for(moved.wait(), end - monotonic())
            except TimeoutError:
                raise Refused("ahead") from None
            moved.clear()

    def _caller(self, context: Context) -> "Link | None":
        return next((link for link in self.links if self._is(link.neighbor, context)), None)

    def _is(self, neighbor: Neighbor, context: Context) -> bool:
        """Whether the peer's certificate names this node."""
        names = context.auth_context().get("x509_subject_alternative_name", ())
        return not self.secure or f"{neighbor.name}.{DOMAIN}".encode() in names

    @contextmanager
    def _stream(self, kind: str, context: Context) -> Iterator[None]:
        """Hold one of the few calls that a peer may have open."""
        names = context.auth_context().get("x509_subject_alternative_name")
        key = kind, str(names or context.peer())
        with self.mail.changed:
            if self._streams[key] >= STREAMS:
                raise Refused("busy")
            self._streams[key] += 1
        try:
            yield
        finally:
            with self.mail.changed:
                self._streams[key] -= 1
                if not self._streams[key]:
                    del self._streams[key]

    def _drop(self, reason: str, context: Context) -> None:
        if not self.mail.dropped[reason]:
            logger.log(WARNING, "refused a message from %s: %s", context.peer(), reason)
        self.mail.drop(reason)


class Link:
    """The way to one neighbouring node. Envelopes leave in their order, one at a time.

    A neighbour that cannot be reached is greeted again and again, with growing pauses; meanwhile nothing is sent to it
    and nobody waits for it. One that has never been reached has the time of one exchange to appear.

    Attributes
    ----------
    heard_at : int
        The exchange that the neighbour awaited when it last said so; 0 if it never did. One that was in step and is
        suddenly far ahead has been away, begins ahead and waits there: that counts only once it moves on.
    stale : int
        In so many exchanges in a row, up to now, envelopes came too late there; 0 where it waits ahead.
    """

    def __init__(self, peer: Peer, neighbor: Neighbor) -> None:
        self.neighbor = neighbor
        self._peer = peer
        self._mail = peer.mail
        self._queue: deque[tuple[int, int, Envelope]] = deque()
        self._state = "new"
        self._told = False
        self._misses = 0
        self.heard_at = 0
        self._in_step = False
        self._waits_at: int | None = None
        self._late_in = range(0)
        self._call: Any = None
        self._began = monotonic()
        self._wake = asyncio.Event()
        self._poked = asyncio.Event()

    @property
    def awaited(self) -> bool:
        """Whether an exchange waits for what comes from here."""
        return self._state != "lost" and self._misses < MISSES

    @property
    def reachable(self) -> bool:
        """Whether the neighbour answers."""
        return self._state == "up"

    @property
    def stale(self) -> int:  # noqa: D102 (see the class)
        recent = self._late_in.stop >= self._mail.exchange - MISSES
        return len(self._late_in) if recent and self._waits_at is None else 0

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._queue

    def full(self, exchange: int) -> bool:
        """Whether there is no room for envelopes of this exchange."""
        return bool(self._queue) and self._queue[0][0] < exchange - 1

    def send(self, letters: Sequence[tuple[int, int, Envelope]]) -> None:
        """Send (exchange, step, envelope), all of one exchange, when there is room: at most two exchanges wait here."""
        mail, exchange = self._mail, letters[0][0]
        with mail.sent:
            mail.sent.wait_for(lambda: not self.full(exchange), mail.patience)
            if self._state == "lost":
                self._drop(len(letters))
                return
            while self.full(exchange) and len(self._queue) > 1:
                del self._queue[1]  # the first is being sent
                mail.drop("unsent")
            self._queue.extend(letters)
        _loop().call_soon_threadsafe(self._wake.set)

    def forgive(self) -> None:
        """Forget what came too late there, and wait for what comes from there."""
        self._late_in = range(0)
        self._misses = 0

    def hear(self) -> None:
        """Note that something came from there."""
        with self._mail.changed:
            self._misses = 0

    def miss(self) -> None:
        """Note that nothing came from there."""
        self._misses += 1
        if self._misses == MISSES:
            logger.log(WARNING, "agents %s are no longer waited for", self.neighbor.agents)

    def poke(self) -> None:
        """Greet the neighbour now: it is there."""
        _loop().call_soon_threadsafe(self._poked.set)

    async def open(self, credentials: Credentials | None) -> None:
        """Begin to greet the neighbour."""
        options: list[tuple[str, int | str]] = [*OPTIONS, silence(self._mail.patience)]
        if credentials:
            # The certificate has to be of this name, wherever the node is.
            options.append(("grpc.ssl_target_name_override", f"{self.neighbor.name}.{DOMAIN}"))
            identity = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
            self._channel = grpc.aio.secure_channel(self.neighbor.address, identity, options)
        else:
            self._channel = grpc.aio.insecure_channel(self.neighbor.address, options)
        self._stub = PeerExchangeStub(self._channel)  # type: ignore[no-untyped-call]
        deliver, fetch = f"/{SERVICE}/Deliver", f"/{SERVICE}/Fetch"
        self._deliver = self._channel.stream_stream(deliver, response_deserializer=Refusal.FromString)
        self._fetch = self._channel.unary_stream(fetch, Request.SerializeToString, parse)
        self._task = asyncio.create_task(self._run())

    async def position(self) -> int | None:
        """Return the exchange that the neighbour awaits, if it answers."""
        place = self._peer.place
        hello = await self._hello(min(GREETING, self._mail.patience))
        return None if hello is None or place.disagreement(hello) else place.exchange(hello)

    async def _hello(self, timeout: float) -> Hello | None:
        """Return what the neighbour answers to a greeting, if it does and that makes sense."""
        try:
            hello: Hello | None = await self._stub.Greet(self._peer.place.hello(self._mail.exchange), timeout=timeout)
        except grpc.aio.AioRpcError:
            return None
        return hello

    async def fetch(self, agent: int) -> Tensor | None:
        """Return the model of one of the neighbour's agents, if it can be had."""
        assembly = None
        try:
            request = Request(run=self._peer.place.run, agent=agent)
            async for header, data in self._fetch(request, timeout=self._mail.patience):
                assembly = assembly or Assembly(header.tensors if header else (), self._peer.limit, self._peer.memory)
                assembly.add(data)
            model = assembly.finish().get("model") if assembly else None
        except (grpc.aio.AioRpcError, Refused):
            return None
        return model if model is not None and bool(torch.isfinite(model).all()) else None

    async def close(self) -> None:
        """Stop, once the neighbour has read what was sent."""
        call = self._call
        if call and self.idle:
            with suppress(*BROKEN):
                async with asyncio.timeout(self._mail.patience):
                    await call.done_writing()
                    await call.code()
        await end(self._task)
        await self._channel.close()

    async def _run(self) -> None:
        pause = 0.05
        while True:
            self._poked.clear()
            if await self._greet():
                began = monotonic()
                self._call = self._deliver()
                work = [asyncio.create_task(each) for each in (self._write(), self._read())]
                try:
                    await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await end(*work)
                    self._call.cancel()
                    self._call = None
                self._lose()
                if monotonic() - began > GREETING:
                    pause = 0.05
            elif self._state == "new" and monotonic() - self._began > self._mail.patience:
                self._lose()
            try:
                await asyncio.wait_for(self._poked.wait(), pause)
            except TimeoutError:
                pause = min(2 * pause, GREETING)

    async def _greet(self) -> bool:
        place = self._peer.place
        hello = await self._hello(GREETING)
        if hello is None:
            return False
        if reason := place.disagreement(hello):
            if not self._mail.dropped[reason]:
                logger.log(WARNING, "node %s takes part in something else: %s", self.neighbor.name, reason)
            self._mail.drop(reason)
            return False
        if self._state != "up":
            logger.log(INFO, "node %s is there, in round %d", self.neighbor.name, hello.round)
        with self._mail.changed:
            self._state = "up"
            self._stands(place.exchange(hello))
        return True

    async def _write(self) -> None:
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            _, step, envelope = self._queue[0]
            header = Header(
                run=envelope.run,
                round=envelope.pass_number,
                step=step,
                source=envelope.source,
                destination=envelope.destination,
                tensors=layouts(envelope.tensors),
            )
            async with asyncio.timeout(self._mail.patience + GREETING):
                for chunk in chunks(header, envelope.tensors.values()):
                    await self._call.write(chunk)
            with self._mail.changed:
                self._queue.popleft()
                self._mail.sent.notify_all()

    async def _read(self) -> None:
        """See what is dropped there because it comes too late, until the neighbour ends or is gone."""
        place = self._peer.place
        async for refusal in self._call:
            if refusal.reason == "old":
                exchange = refusal.refused_round * place.exchanges + refusal.refused_step
                with self._mail.changed:
                    late = self._late_in
                    self._late_in = range(late.start if exchange - late.stop in (-1, 0) else exchange, exchange + 1)
                    self._stands(place.exchange(refusal))

    def _stands(self, exchange: int) -> None:
        """Note the exchange that the neighbour says it awaits."""
        if exchange <= self._mail.exchange + self._peer.place.far:
            self._in_step, self._waits_at = True, None
        elif self._in_step:
            self._in_step, self._waits_at = False, exchange
        elif exchange != self._waits_at:
            self._waits_at = None
        if self._waits_at is None:
            self.heard_at = exchange
        self._peer.compare()
        self._mail.changed.notify_all()

    def _lose(self) -> None:
        with self._mail.changed:
            if self._state != "lost":
                self._told = False
            self._state = "lost"
            self._misses = MISSES
            if self._queue:
                self._drop(len(self._queue))
                self._queue.clear()
            self._mail.changed.notify_all()
            self._mail.sent.notify_all()

    def _drop(self, count: int) -> None:
        """Count envelopes that cannot be delivered, and say so once an absence: who has merely ended gets none."""
        if not self._told:
            logger.log(WARNING, "node %s cannot be reached", self.neighbor.name)
        self._told = True
        self._mail.drop("unreachable", count)


@cache
def _started() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="links", daemon=True).start()
    return loop


def _loop() -> asyncio.AbstractEventLoop:
    """Return the event loop, in a thread of its own, in which all calls of this process are made and answered."""
    with _STARTING:  # two threads that call a cached function for the first time may both run it
        return _started()


async def end(*tasks: "asyncio.Task[None]") -> None:
    """Cancel tasks, and again: before Python 3.12 a cancellation gets lost in `asyncio.wait_for` now and then."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.1)
    for task in tasks:
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, BROKEN):
            logger.error("a link failed", exc_info=error)


def in_loop(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what `work` returns in the links' event loop."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()


def most(positions: Sequence[int]) -> int:
    """Return how far most neighbours are: no further than an honest one, if fewer than half of them lie.

    Of two it is the one ahead: the other may be back from an absence itself.
    """
    return median_high(positions)


def silence(patience: float) -> tuple[str, int]:
    """Return gRPC's option for how long the other end may take to say that it is there: any longer, and it is gone."""
    return "grpc.keepalive_timeout_ms", int(1000 * (patience + GREETING))


def check_address(address: str, secure: bool, remote: bool) -> None:
    """Refuse to serve strangers by mistake.

    Parameters
    ----------
    address : str
        The ``host:port`` to serve at.
    secure : bool
        Whether peers prove who they are.
    remote : bool
        Whether it was said twice that they need not, elsewhere than on this machine too.

    Raises
    ------
    ConfigError
        When the address is none, or others could call it unseen.
    """
    host, _ = host_and_port(address, f"peer-address = '{address}'")
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if not (secure or here or remote):
        raise ConfigError(
            f"peer-insecure = true lets anybody who reaches peer-address = '{address}' send models: use peer-certs and "
            "peer-insecure = false, or say peer-insecure-remote = true too"
        )
