"""The way to one neighbouring node."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Container, Iterable
from contextlib import suppress
from logging import INFO, WARNING
from time import monotonic
from typing import Any

import grpc

from ross_flwr.algorithms.messages import Refused
from ross_flwr.direct.agreement import Agreement
from ross_flwr.direct.background import BROKEN, end
from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.channels import Channel, Neighbor
from ross_flwr.direct.mail import Mail
from ross_flwr.direct.progress import Edge
from ross_flwr.direct.standings import GREETING, Standing
from ross_flwr.direct.wire import Incoming, Memory, chunks
from ross_flwr.engine.envelope import Envelope
from ross_flwr.peer.v1.peer_pb2 import Header, Hello, Request

__all__ = ["Link"]


class Outbox:
    """Envelopes waiting to go to one node, with their exchanges. They leave in order, one at a time."""

    def __init__(self) -> None:
        self.letters: deque[tuple[int, Envelope]] = deque()
        self._filled = asyncio.Event()
        self._left = asyncio.Event()

    def put(self, exchange: int, envelopes: Collection[Envelope]) -> None:
        """Add envelopes of an exchange."""
        self.letters.extend((exchange, each) for each in envelopes)
        self._filled.set()

    async def first(self) -> tuple[int, Envelope]:
        """Return the next letter once there is one. It stays here until `sent` is called."""
        while not self.letters:
            self._filled.clear()
            await self._filled.wait()
        return self.letters[0]

    def sent(self) -> None:
        """Remove the first letter, which has left."""
        self.letters.popleft()
        self._left.set()

    def clear(self) -> int:
        """Remove all letters, and return how many there were."""
        count = len(self.letters)
        self.letters.clear()
        self._left.set()
        return count

    def is_full(self, exchange: int) -> bool:
        """Return whether something here is older than the exchange before this one."""
        return bool(self.letters) and self.letters[0][0] < exchange - 1

    async def make_room(self, exchange: int, patience: float) -> int:
        """Wait until the outbox is not full; after `patience` seconds, drop what is too old and return how many it was.

        The first letter stays, because it is being sent.
        """
        await self._until(lambda: not self.is_full(exchange), patience)
        if not self.is_full(exchange):
            return 0
        first, *rest = self.letters
        keep = [letter for letter in rest if letter[0] >= exchange - 1]
        self.letters = deque([first, *keep])
        return len(rest) - len(keep)

    async def flush(self, patience: float) -> None:
        """Wait until everything has left, `patience` seconds at most."""
        await self._until(lambda: not self.letters, patience)

    async def _until(self, condition: Callable[[], bool], patience: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not condition():
                    self._left.clear()
                    await self._left.wait()


class Link:
    """The way to one neighbouring node.

    A neighbour that cannot be reached is greeted repeatedly; until it answers, nothing is sent to it.

    Parameters
    ----------
    neighbor : Neighbor
        The node.
    agreement : Agreement
        The run.
    mail : Mail
        Counts what is dropped; its `progress` is told what happens to the neighbour.
    limit : int
        The largest size of a fetched model, in bytes.
    memory : Memory
        Where fetched models are put.
    """

    def __init__(self, neighbor: Neighbor, agreement: Agreement, mail: Mail, limit: int, memory: Memory) -> None:
        self.neighbor = neighbor
        self._agreement = agreement
        self._mail = mail
        self._progress = mail.progress
        self._limit = limit
        self._memory = memory
        self._outbox = Outbox()
        self._call: Any = None
        self._greeting = asyncio.Event()
        self._revoked: Container[str] = ()

    @property
    def up(self) -> bool:
        """Whether the neighbour answers."""
        return self._standing.state == "up" and not self._expelled

    @property
    def _standing(self) -> Standing:
        return self._progress.standings[self.neighbor.name]

    @property
    def _expelled(self) -> bool:
        return self.neighbor.name in self._revoked

    async def open(self, credentials: Credentials | None) -> None:
        """Start greeting the neighbour."""
        self._revoked = credentials.revoked if credentials else ()
        self._channel = Channel(self.neighbor, credentials, self._progress.patience)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop, once the neighbour has read what was sent."""
        call = self._call
        if call and not self._outbox.letters:
            with suppress(*BROKEN):
                async with asyncio.timeout(self._progress.room(self.neighbor.name, monotonic())):
                    await call.done_writing()
                    await call.code()
        await end(self._task)
        await self._channel.close()

    def send(self, exchange: int, envelopes: Collection[Envelope]) -> None:
        """Send envelopes of an exchange once those before them have left."""
        if self._standing.state == "lost":
            self._drop(len(envelopes))
        else:
            self._outbox.put(exchange, envelopes)

    def is_full(self, exchange: int) -> bool:
        """Return whether envelopes that are older than the exchange before this one are still here."""
        return self._outbox.is_full(exchange)

    async def make_room(self, exchange: int) -> None:
        """Wait for them to leave, for the usual time or what is left of the neighbour's budget, and then drop them."""
        name, since = self.neighbor.name, monotonic()
        dropped = await self._outbox.make_room(exchange, self._progress.room(name, since))
        self._progress.held_up(name, since, monotonic())
        if dropped:
            self._mail.drop("unsent", f"node {name} is too slow", dropped)

    async def flush(self) -> None:
        """Wait until everything has left, for the usual time or what is left of the neighbour's budget."""
        name, since = self.neighbor.name, monotonic()
        await self._outbox.flush(self._progress.room(name, since))
        self._progress.held_up(name, since, monotonic())

    async def ask_position(self) -> None:
        """Ask the neighbour which exchange it awaits, and tell `progress`."""
        hello = await self._hello(min(GREETING, self._progress.patience))
        position = self._agreement.exchange(hello) if hello and not self._agreement.disagreement(hello) else None
        try:
            self._progress.told(self.neighbor.name, position)
        except Refused as error:
            self._refused(error)
            self._progress.told(self.neighbor.name, None)
        self._mail.look()

    async def fetch(self, edges: Iterable[Edge]) -> list[Envelope]:
        """Return what the neighbour's agents last sent on these edges, as far as it arrives in the usual time."""
        envelopes: list[Envelope] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(self._progress.patience):
                for edge in edges:
                    call = self._channel.fetch(Request(run=self._agreement.run, source=edge[0], destination=edge[1]))
                    try:
                        async for envelope in _read_kept(call, edge, self._agreement, self._limit, self._memory):
                            envelopes.append(envelope)  # noqa: PERF401 (what came before a fault stays)
                    except grpc.aio.AioRpcError:
                        continue
                    except Refused as error:
                        self._refused(error)
        return envelopes

    async def _hello(self, timeout: float) -> Hello | None:
        """Return the answer to a greeting, if one comes and makes sense. An expelled node is not greeted."""
        if self._expelled:
            self._mail.log.log(WARNING, f"revoked {self.neighbor.name}", f"node {self.neighbor.name} is revoked")
            return None
        try:
            hello: Hello | None = await self._channel.greet(
                self._agreement.hello(self._progress.exchange), timeout=timeout
            )
        except grpc.aio.AioRpcError:
            return None
        return hello

    def greet_now(self) -> None:
        """Greet the neighbour at once, because it is there."""
        self._greeting.set()

    async def _run(self) -> None:
        name = self.neighbor.name
        while True:
            self._greeting.clear()
            if await self._greet():
                self._call = self._channel.deliver()
                work = [asyncio.create_task(each) for each in (self._write(), self._read())]
                try:
                    await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await end(*work)
                    self._call.cancel()
                    self._call = None
                self._progress.lost(name, monotonic())
            else:
                self._progress.unanswered(name, monotonic())
            if self._standing.state == "lost" and (left := self._outbox.clear()):
                self._drop(left)
            self._mail.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._standing.greet_at - monotonic()):
                    await self._greeting.wait()

    async def _greet(self) -> bool:
        hello = await self._hello(GREETING)
        if hello is None:
            return False
        if reason := self._agreement.disagreement(hello):
            self._mail.drop(reason, f"node {self.neighbor.name} takes part in something else")
            return False
        name = self.neighbor.name
        try:
            self._progress.answered(name, self._agreement.exchange(hello), monotonic())
        except Refused as error:
            self._refused(error)
            return False
        self._mail.log.log(INFO, f"there {name}", f"node {name} is there, in pass {hello.pass_number}")
        self._mail.look()
        return True

    async def _write(self) -> None:
        while True:
            exchange, envelope = await self._outbox.first()
            if self._expelled:
                return
            header = self._agreement.header(envelope, exchange % self._agreement.exchanges)
            async with asyncio.timeout(self._progress.patience + GREETING):
                for chunk in chunks(header, envelope.tensors.values()):
                    await self._call.write(chunk)
            self._outbox.sent()

    async def _read(self) -> None:
        """Listen to what the neighbour drops as too old, until the neighbour ends or is gone."""
        async for refusal in self._call:
            if refusal and refusal.reason == "old":
                try:
                    self._progress.refused(self.neighbor.name, self._agreement.exchange(refusal))
                except Refused as error:
                    self._refused(error)
                self._mail.look()

    def _refused(self, error: Refused) -> None:
        """Count an answer of the neighbour that is not believed."""
        self._mail.drop(error.reason, f"refused an answer from node {self.neighbor.name}")

    def _drop(self, count: int) -> None:
        """Count envelopes that cannot be delivered. A node that has ended gets none."""
        name = self.neighbor.name
        self._mail.log.log(WARNING, f"unreachable {name}", f"node {name} cannot be reached")
        self._mail.drop("unreachable", count=count)


async def _read_kept(
    call: Any, edge: Edge, agreement: Agreement, limit: int, memory: Memory
) -> AsyncIterator[Envelope]:
    """Yield what was last sent on an edge; raise `Refused` at the first message that makes no sense."""
    header, incoming, left = Header(), None, agreement.exchanges
    async for head, data in call:
        if head:
            if incoming or not left or head.step >= agreement.exchanges:
                raise Refused("malformed")
            header, incoming, left = head, Incoming(head.tensors, limit, memory), left - 1
        if not incoming:
            raise Refused("malformed")
        incoming.add(data)
        if incoming.complete:
            step, tensors = agreement.steps[header.step], incoming.finish()
            yield Envelope(agreement.run, header.pass_number, step, *edge, tensors)
            incoming = None
