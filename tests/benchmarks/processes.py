"""Agents in processes of their own, one thread of PyTorch each, which run rounds together when they are told to."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from time import sleep
from types import TracebackType
from typing import Any, TypeAlias

import grpc
import torch
from addresses import free_addresses
from torch import Tensor

from ross_flwr import resolve
from ross_flwr.direct import certificates
from ross_flwr.direct.background import in_background, soon
from ross_flwr.direct.certificates import DOMAIN, Credentials
from ross_flwr.direct.channels import Neighbor
from ross_flwr.direct.neighborhood import Neighborhood
from ross_flwr.direct.wire import CHUNK, Incoming, Memory, chunks, layouts, parse
from ross_flwr.engine.rounds import Schedule
from ross_flwr.learning.agent import Agent
from ross_flwr.peer.v1.peer_pb2 import Header
from ross_flwr.runs.assemble import assemble
from ross_flwr.runs.assembly import Assembly
from ross_flwr.runs.options import RunOptions

Run: TypeAlias = Callable[[int], None]
"""Runs so many rounds more."""
Exchanged: TypeAlias = tuple[dict[int, Tensor], Sequence[Future[Any]]]
"""The neighbours' models, and what is still being sent to them."""
Carrier: TypeAlias = Callable[[Assembly, int, list[str], Path | None], AbstractContextManager[Run]]
"""How an agent, by its index, and its neighbours exchange messages, at these addresses and with these certificates."""


def issue(folder: Path, number: int) -> Path:
    """Make certificates for so many nodes in `folder`."""
    certificates.init(folder)
    for k in range(number):
        certificates.issue(folder, f"n{k}")
    return folder


@contextmanager
def direct(assembly: Assembly, index: int, addresses: list[str], certs: Path | None) -> Iterator[Run]:
    """Over the direct transport, as in the segment of a deployment."""
    topology = assembly.topology
    host = assembly.host("run", {index: topology.place(index)})
    (agent,) = host.agents.values()
    with Neighborhood(
        host,
        [Neighbor(f"n{j}", addresses[j], (j,)) for j in agent.neighbors],
        address=addresses[index],
        topology=topology.digest,
        layout=assembly.task.model.digest,
        passes=10**6,
        patience=60,
        credentials=Credentials.read(certs / f"n{index}") if certs else None,
    ) as neighborhood:
        done = 0

        def run(rounds: int) -> None:
            nonlocal done
            for round in neighborhood.rounds(Schedule(10**6, evaluate_every=10**6), done + 1, done + rounds):
                assert not round.reports[0].missing
            done += rounds

        yield run


@contextmanager
def bare(assembly: Assembly, index: int, addresses: list[str], certs: Path | None) -> Iterator[Run]:
    """D-PSGD on a ring over sockets, as one would write it for this case alone: the same models and gradients."""
    (agent,) = assembly.agents({index: assembly.topology.place(index)})
    before, after = (index - 1) % len(addresses), (index + 1) % len(addresses)
    host, port = addresses[index].split(":")
    with socket.create_server((host, int(port))) as server:
        sockets = {after: _connected(addresses[after])}
        sockets[before], _ = server.accept()
    received = {j: torch.empty_like(agent["model"]) for j in sockets}
    for each in sockets.values():
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(model: Tensor) -> Exchanged:
        sending = [pool.submit(each.sendall, model.numpy()) for each in sockets.values()]
        for j, each in sockets.items():
            receive(each, received[j])
        return received, sending

    with ThreadPoolExecutor(2) as pool:
        yield _rounds(assembly, agent, exchange)


@contextmanager
def streams(assembly: Assembly, index: int, addresses: list[str], certs: Path | None) -> Iterator[Run]:
    """The same over gRPC, as bare as it gets: a stream to each neighbour, all of them in one event loop.

    The bytes are the message, and nobody checks or confirms anything; TLS checks the authority alone.
    """
    (agent,) = assembly.agents({index: assembly.topology.place(index)})
    neighbors = [(index - 1) % len(addresses), (index + 1) % len(addresses)]
    inboxes: dict[int, SimpleQueue[bytes]] = {j: SimpleQueue() for j in neighbors}
    credentials = Credentials.read(certs / f"n{index}") if certs else None
    channels, calls = [], {}

    async def deliver(messages: AsyncIterator[bytes], context: Any) -> None:
        inbox = inboxes[int(dict(context.invocation_metadata())["source"])]
        async for message in messages:
            inbox.put(message)

    async def connect() -> tuple[asyncio.AbstractEventLoop, grpc.aio.Server]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers = {"Deliver": grpc.stream_stream_rpc_method_handler(deliver)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Bare", handlers),))
        if credentials:
            pair = [(credentials.key, credentials.certificate)]
            server.add_secure_port(addresses[index], grpc.ssl_server_credentials(pair, credentials.authority, True))
        else:
            server.add_insecure_port(addresses[index])
        await server.start()
        for j in neighbors:
            channels.append(_channel(j, addresses[j], credentials))
            await channels[-1].channel_ready()
            calls[j] = channels[-1].stream_stream("/Bare/Deliver")(metadata=[("source", str(index))])
        return asyncio.get_running_loop(), server

    async def write(j: int, message: bytes) -> None:
        await calls[j].write(message)

    def exchange(model: Tensor) -> Exchanged:
        message = model.numpy().tobytes()
        sending = [asyncio.run_coroutine_threadsafe(write(j, message), loop) for j in neighbors]
        return {j: torch.frombuffer(bytearray(inboxes[j].get()), dtype=model.dtype) for j in neighbors}, sending

    loop, server = in_background(connect())
    yield _rounds(assembly, agent, exchange)
    in_background(server.stop(None))


def _channel(j: int, address: str, credentials: Credentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address)
    identity = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
    return grpc.aio.secure_channel(address, identity, [("grpc.ssl_target_name_override", f"n{j}.{DOMAIN}")])


class Frames(asyncio.BufferedProtocol):
    """Reads chunks, each after its length, where they land, and delivers tensors and source of each envelope."""

    def __init__(self, limit: int, deliver: Callable[[dict[str, Tensor], int], None]) -> None:
        self.limit, self.deliver, self.memory = limit, deliver, Memory()
        self.buffer, self.filled = bytearray(2 * CHUNK), 0

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self.buffer)[self.filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self.filled += nbytes
        begin = 0
        while self.filled - begin >= 4:
            end = begin + 4 + int.from_bytes(self.buffer[begin : begin + 4])
            if end > self.filled:
                break
            head, data = parse(bytes(memoryview(self.buffer)[begin + 4 : end]))
            if head:
                self.incoming, self.source = Incoming(head.tensors, self.limit, self.memory), head.source
            self.incoming.add(data)
            if self.incoming.complete:
                self.deliver(self.incoming.finish(), self.source)
            begin = end
        self.buffer[: self.filled - begin] = self.buffer[begin : self.filled]
        self.filled -= begin


@contextmanager
def frames(assembly: Assembly, index: int, addresses: list[str], certs: Path | None) -> Iterator[Run]:
    """The same over connections of asyncio: the chunks of the direct transport, each after its length.

    They are read as the direct transport reads them; nobody confirms anything, and TLS checks the authority alone.
    """
    (agent,) = assembly.agents({index: assembly.topology.place(index)})
    size = agent["model"].nbytes
    neighbors = [(index - 1) % len(addresses), (index + 1) % len(addresses)]
    inboxes: dict[int, SimpleQueue[Tensor]] = {j: SimpleQueue() for j in neighbors}
    writers: dict[int, asyncio.StreamWriter] = {}
    tls_here, tls_there = (_tls(certs / f"n{index}", server) if certs else None for server in (True, False))

    def deliver(tensors: dict[str, Tensor], source: int) -> None:
        inboxes[source].put(tensors["model"])

    async def connect() -> tuple[asyncio.AbstractEventLoop, asyncio.Server]:
        loop = asyncio.get_running_loop()
        host, port = addresses[index].split(":")
        server = await loop.create_server(lambda: Frames(size, deliver), host, int(port), ssl=tls_here)
        for j in neighbors:
            host, port = addresses[j].split(":")
            while j not in writers:
                with suppress(ConnectionRefusedError):
                    _, writers[j] = await asyncio.open_connection(host, int(port), ssl=tls_there)
                await asyncio.sleep(0.01)
        return loop, server

    async def write(j: int, model: Tensor) -> None:
        header = Header(run="run", source=index, destination=j, tensors=layouts({"model": model}))
        for chunk in chunks(header, [model]):
            writers[j].writelines([len(chunk).to_bytes(4), chunk])
            await writers[j].drain()

    def exchange(model: Tensor) -> Exchanged:
        sending = [asyncio.run_coroutine_threadsafe(write(j, model), loop) for j in neighbors]
        return {j: inboxes[j].get() for j in neighbors}, sending

    loop, server = in_background(connect())
    yield _rounds(assembly, agent, exchange)
    soon(server.close)


def _rounds(assembly: Assembly, agent: Agent, exchange: Callable[[Tensor], Exchanged]) -> Run:
    """Return rounds of D-PSGD on a ring as one would write them for this case alone."""
    learning_rate = assembly.algorithm.learning_rate

    def run(rounds: int) -> None:
        for _ in range(rounds):
            model = agent["model"]
            received, sending = exchange(model)
            mixed = agent.mix({agent.index: model, **received})
            for each in sending:
                each.result()
            agent["model"] = mixed.sub_(agent.gradient(model), alpha=learning_rate)
            agent.pass_number += 1

    return run


def _tls(folder: Path, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(folder / "node.pem", folder / "node.key")
    context.load_verify_locations(folder / "ca.pem")
    context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
    return context


def receive(end: socket.socket, tensor: Tensor) -> None:
    """Fill a tensor with what comes out of a socket."""
    left = tensor.view(torch.uint8).numpy().data
    while left:
        left = left[end.recv_into(left) :]


def _connected(address: str) -> socket.socket:
    host, port = address.split(":")
    while True:
        try:
            return socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            sleep(0.01)


class Nodes:
    """A process for each agent of a run. A context manager.

    Parameters
    ----------
    carrier : callable
        `direct`, `bare`, `streams` or `frames`.
    options : dict
        The run's configuration.
    certs : Path, optional
        Where `issue` made certificates; without, nobody proves who it is.

    Attributes
    ----------
    processes : list of Process
        By agent.
    """

    def __init__(self, carrier: Carrier, options: dict[str, Any], certs: Path | None = None) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__, "torch.distributed.tensor"])
        addresses = free_addresses(resolve(options).part(RunOptions).num_agents)
        self._pipes: list[Connection] = []
        self.processes = []
        for index in range(len(addresses)):
            here, there = context.Pipe()
            work = (there, carrier, options, index, addresses, certs)
            self.processes.append(context.Process(target=_node, args=work, daemon=True))
            self.processes[-1].start()
            there.close()
            self._pipes.append(here)

    def run(self, rounds: int) -> None:
        """Run so many rounds more, in all processes side by side."""
        for pipe in self._pipes:
            pipe.send(rounds)
        for pipe in self._pipes:
            pipe.recv()

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self.processes:
            process.join()


def _node(
    pipe: Connection, carrier: Carrier, options: dict[str, Any], index: int, addresses: list[str], certs: Path | None
) -> None:
    torch.set_num_threads(1)
    with carrier(assemble(resolve(options)), index, addresses, certs) as run, suppress(EOFError):
        while True:
            run(pipe.recv())
            pipe.send(None)
