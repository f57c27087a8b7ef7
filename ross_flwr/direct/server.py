"""What neighbours call: greetings, envelopes and requests for models."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Container, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message  # type: ignore[import-untyped]

from ross_flwr.algorithms.messages import Refused
from ross_flwr.direct.agreement import Agreement
from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.channels import Context, is_node, listen, read
from ross_flwr.direct.kept import Kept
from ross_flwr.direct.link import Link
from ross_flwr.direct.mail import Mail
from ross_flwr.direct.progress import Edge
from ross_flwr.direct.standings import GREETING
from ross_flwr.direct.wire import Incoming, Memory, Piece, chunks
from ross_flwr.engine.envelope import Envelope
from ross_flwr.peer.v1.peer_pb2 import Header, Hello, Refusal, Request

__all__ = ["Server"]

CALLS = 2
"""The most calls of each kind that one caller may have open at a time."""

GRACE = 0.2
"""Seconds for open calls to end when the server stops."""

_Request = TypeVar("_Request", bound=Message)


class Server:
    """Serves one node's neighbours, and nobody else.

    Parameters
    ----------
    agreement : Agreement
        The run.
    edges : collection of Edge
        The edges on which messages may arrive here.
    kept : Kept
        What agents here last sent. Neighbours that were away fetch it.
    links : sequence of Link
        The ways to the neighbours.
    mail : Mail
        Where envelopes go.
    limit : int
        The largest size of an envelope's tensors, in bytes.
    memory : Memory
        Where tensors are put.
    """

    def __init__(
        self,
        agreement: Agreement,
        edges: Collection[Edge],
        kept: Kept,
        links: Sequence[Link],
        mail: Mail,
        limit: int,
        memory: Memory,
    ) -> None:
        self.agreement = agreement
        self._edges = frozenset(edges)
        self._kept = kept
        self._links = links
        self._homes = {agent: link for link in links for agent in link.neighbor.agents}
        self._mail = mail
        self._limit = limit
        self._memory = memory
        self._secure = False
        self._revoked: Container[str] = ()
        self._open_calls: Counter[tuple[str, str]] = Counter()

    async def open(self, address: str, credentials: Credentials | None) -> None:
        """Begin to serve at ``host:port``."""
        if credentials:
            self._secure, self._revoked = True, credentials.revoked
        handlers: dict[str, Callable[..., Any]] = {"Greet": self.greet, "Deliver": self.deliver, "Fetch": self.fetch}
        patience, neighbors = self._mail.progress.patience, len(self._links)
        self._server = await listen(address, handlers, credentials, patience, neighbors)

    async def close(self) -> None:
        """Stop."""
        await self._server.stop(GRACE)

    async def greet(self, requests: AsyncIterator[bytes], context: Context) -> Hello:
        """Say which exchange this node awaits, and greet a neighbour that is back."""
        async with self._call("greet", context, self._time) as callers:
            if not self.agreement.disagreement(await _only(Hello, requests)):
                for link in callers:
                    link.greet_now()
        return self._here()

    async def deliver(self, pieces: AsyncIterator[Piece], context: Context) -> None:
        """Take envelopes, and tell the caller which of them are dropped."""
        refused = False
        async with self._call("deliver", context):
            async for header, data in pieces:
                if refused and header is None:
                    continue  # the rest of what was refused
                try:
                    await self._receive(header, data, pieces, context)
                    refused = False
                except Refused as error:
                    refused = True
                    await self._refuse(error.reason, header, context)

    async def fetch(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Send a neighbour that is far behind what an agent here last sent on an edge to it.

        It learns nothing that the method did not send it, and each message is fetched once at most.
        """
        async with self._call("fetch", context, self._time) as callers:
            request = await _only(Request, requests)
            if request.run != self.agreement.run:
                raise Refused("other-run")
            link = self._homes.get(request.destination)
            if not link or link not in callers:
                raise Refused("stranger")
            if not self._mail.progress.is_behind(link.neighbor.name):
                raise Refused("not-behind")
            for step, envelope in self._kept.take((request.source, request.destination)):
                for chunk in chunks(self.agreement.header(envelope, step), envelope.tensors.values()):
                    await context.write(chunk)

    async def _receive(
        self, header: Header | None, data: memoryview, rest: AsyncIterator[Piece], context: Context
    ) -> None:
        if header is None:
            raise Refused("malformed")
        edge = header.source, header.destination
        if header.run != self.agreement.run:
            raise Refused("other-run")
        if edge not in self._edges:
            raise Refused("no-edge")
        self._require([self._homes[header.source]], context)
        if header.step >= self.agreement.exchanges:
            raise Refused("other-step")
        exchange = self.agreement.exchange(header)
        await self._mail.admit(exchange, edge)
        try:
            incoming = Incoming(header.tensors, self._limit, self._memory)
            incoming.add(data)
            while not incoming.complete and (piece := await anext(rest, None)):
                if piece[0] is not None:
                    raise Refused("malformed")
                incoming.add(piece[1])
            step = self.agreement.steps[header.step]
            self._mail.keep(exchange, edge, Envelope(header.run, header.pass_number, step, *edge, incoming.finish()))
        except asyncio.CancelledError:  # the stream broke off
            self._mail.drop("truncated", _from(context))
            raise
        finally:
            self._mail.leave(exchange, edge)

    async def _refuse(self, reason: str, header: Header | None, context: Context) -> None:
        self._mail.drop(reason, _from(context))
        refused, here = header or Header(), self._here()
        await context.write(
            Refusal(
                reason=reason,
                pass_number=here.pass_number,
                step=here.step,
                refused_pass_number=refused.pass_number,
                refused_step=refused.step,
            )
        )

    def _here(self) -> Hello:
        return self.agreement.hello(self._mail.progress.exchange)

    def _require(self, links: Iterable[Link], context: Context) -> list[Link]:
        """Return the neighbours that the caller may be; without certificates, anybody may be any of them.

        Raises
        ------
        Refused
            When it is none of them, or was expelled.
        """
        callers = [link for link in links if not self._secure or is_node(link.neighbor, context)]
        if not callers:
            raise Refused("stranger")
        if any(link.neighbor.name in self._revoked for link in callers):
            raise Refused("revoked")
        return callers

    @property
    def _time(self) -> float:
        """Seconds that a call may take to say what it wants and to read the answer."""
        return self._mail.progress.patience + GREETING

    @asynccontextmanager
    async def _call(self, kind: str, context: Context, seconds: float | None = None) -> AsyncIterator[list[Link]]:
        """Take up one of the few calls that a neighbour may have open, and yield the ways to it.

        A call that is refused is counted and aborted with its reason. That a call is open costs memory, so it is
        refused as soon as it begins.
        """
        names: Any = context.auth_context().get("x509_subject_alternative_name")
        key = kind, str(names or context.peer())
        try:
            callers = self._require(self._links, context)
            if self._open_calls[key] >= CALLS:
                raise Refused("busy")
            self._open_calls[key] += 1
            try:
                async with asyncio.timeout(seconds):
                    yield callers
            finally:
                self._open_calls[key] -= 1
                if not self._open_calls[key]:
                    del self._open_calls[key]
        except (Refused, TimeoutError) as error:
            reason = error.reason if isinstance(error, Refused) else "stalled"
            self._mail.drop(reason, _from(context))
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)


async def _only(kind: type[_Request], requests: AsyncIterator[bytes]) -> _Request:
    """Return the one message of a call, once it is here."""
    request = read(kind, await anext(requests, b"\xff"))
    if request is None:
        raise Refused("malformed")
    return request


def _from(context: Context) -> str:
    return f"refused a message from {context.peer()}"
