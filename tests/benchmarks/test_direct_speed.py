"""What the direct transport costs beside its limit, a bare gRPC stream."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import ratio

from ross_flwr.learning.agent import Agent
from ross_flwr.transport.envelope import Envelope
from ross_flwr.transport.mail import Mail
from ross_flwr.transport.peer import Neighbor, Peer, Place
from ross_flwr.transport.wire import CHUNK


def two_addresses() -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


class Pair:
    """Two nodes of one agent each, which exchange models of `size` numbers."""

    def __init__(self, size: int) -> None:
        addresses = two_addresses()
        self.model = torch.randn(size)
        agents: dict[int, Agent] = {}
        self.peers = [
            Peer(
                Place("run", "topology", "layout", 1),
                addresses[k],
                [Neighbor(f"n{1 - k}", addresses[1 - k], (1 - k,))],
                [(1 - k, k)],
                Mail(60),
                agents,
                self.model.nbytes,
            )
            for k in range(2)
        ]
        self.exchange = 0

    def swap(self) -> None:
        """Each sends its model to the other, and waits for the other's."""

        def side(k: int) -> None:
            envelope = Envelope("run", self.exchange, "share", k, 1 - k, {"model": self.model})
            self.peers[k].send(self.exchange, [(envelope, 0)])
            (arrived,) = self.peers[k].collect(self.exchange, [(1 - k, k)])
            assert arrived.tensors["model"].nbytes == self.model.nbytes

        both(side)
        self.exchange += 1

    def close(self) -> None:
        for peer in self.peers:
            peer.close()


def both(side: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(side, range(2)))


class BareStreams:
    """The same bytes in chunks of the same size, as gRPC's own streams of bytes that nobody looks at."""

    def __init__(self, size: int) -> None:
        self.raw = torch.randn(size).numpy().tobytes()
        options = [("grpc.max_receive_message_length", 2 * CHUNK)]
        self.servers, self.calls = [], []
        for address in two_addresses():
            server = grpc.server(ThreadPoolExecutor(2))
            handler = grpc.stream_unary_rpc_method_handler(lambda chunks, _: str(sum(map(len, chunks))).encode())
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"send": handler}),))
            server.add_insecure_port(address)
            server.start()
            self.servers.append(server)
            self.calls.append(grpc.insecure_channel(address, options).stream_unary("/bare/send"))

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.raw), CHUNK):
            yield self.raw[start : start + CHUNK]

    def swap(self) -> None:
        def side(k: int) -> None:
            assert int(self.calls[k](self.chunks())) == len(self.raw)

        both(side)

    def close(self) -> None:
        for server in self.servers:
            server.stop(None).wait()


@pytest.mark.parametrize("size", [25_000_000], ids=["100 MB"])
def test_an_exchange_of_a_large_model_takes_at_most_four_times_as_long_as_a_bare_stream(
    benchmark: BenchmarkFixture, size: int
) -> None:
    """The bare stream throws its bytes away. The aim is 0.8; new memory for each model received is much of the rest."""
    pair, bare = Pair(size), BareStreams(size)
    try:
        measured = ratio(benchmark, pair.swap, bare.swap, repeats=7)
    finally:
        pair.close()
        bare.close()
    assert measured >= 0.25


@pytest.mark.parametrize("size", [2_500, 100_000_000], ids=["10 kB", "400 MB"])
def test_models_of_any_size_arrive(benchmark: BenchmarkFixture, size: int) -> None:
    pair = Pair(size)
    try:
        benchmark.pedantic(pair.swap, rounds=3, iterations=1)
    finally:
        pair.close()
