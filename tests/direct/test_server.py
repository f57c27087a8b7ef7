"""What a node takes, answers and refuses, whoever calls."""

import asyncio
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace

import grpc
import pytest
import torch
from addresses import free_port
from deployed import until
from peers import Net, channel_to, deliver, letter, method

from ross_flwr.direct import channels, server, wire
from ross_flwr.direct.channels import SERVICE
from ross_flwr.engine.envelope import Envelope
from ross_flwr.graph import topology
from ross_flwr.peer.v1.peer_pb2 import Chunk, DType, Hello, Refusal, Request
from ross_flwr.peer.v1.peer_pb2_grpc import PeerExchangeStub

MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 3, 6


def h2_settings(address, credentials, folder):
    """What a server says in its first HTTP/2 frame."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("authority", "certificate", "key"):
        (folder / name).write_bytes(getattr(credentials, name))
    context.load_verify_locations(folder / "authority")
    context.load_cert_chain(folder / "certificate", folder / "key")
    context.set_alpn_protocols(["h2"])
    host, port = address.split(":")
    with context.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname="n0.ross-flwr") as link:
        link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        with link.makefile("rb") as stream:
            head = stream.read(9)
            return dict(struct.iter_unpack(">HI", stream.read(int.from_bytes(head[:3], "big"))))


def huge(*shape):
    return [wire.Layout(name="model", shape=shape, dtype=DType.DTYPE_FLOAT32)]


@pytest.mark.parametrize(
    ("name", "stream", "reason"),
    [
        ("n1", letter(), ""),
        ("n1", letter(run="another"), "other-run"),
        ("n1", letter(step=3), "other-step"),
        ("n1", letter(pass_number=5), "ahead"),
        ("n1", letter(source=2), "no-edge"),
        ("n1", letter(destination=1), "no-edge"),
        ("n2", letter(), "stranger"),
        ("mallory", letter(), "stranger"),
        ("n1", letter(data=b"\0" * 20), "truncated"),
        ("n1", letter(data=b"\0" * 25), "oversize"),
        ("n1", [*letter(data=b"\0" * 20), Chunk(data=b"\0" * 5)], "oversize"),
        ("n1", letter(tensors=huge(10**12)), "oversize"),
        ("n1", letter(tensors=huge(0, 2**63)), "oversize"),
        ("n1", letter(tensors=huge(0, *[2**12] * 7)), "oversize"),
        ("n1", letter(tensors=huge(*[1] * 9)), "malformed"),
        ("n1", letter(tensors=[*huge(6), *huge(6)]), "malformed"),
        ("n1", letter(tensors=[wire.Layout(name="model", shape=[6])]), "malformed"),
        ("n1", [*letter(data=b"\0" * 20), *letter()], "malformed"),
        ("n1", [Chunk(data=b"\0" * 24)], "malformed"),
    ],
)
def test_an_envelope_is_taken_only_if_it_fits_and_from_the_node_of_its_source(door, name, stream, reason):
    call_as, peer, _ = door
    assert deliver(call_as(name), stream) == reason
    assert dict(peer.mail.dropped) == ({reason: 1} if reason else {})


def test_neighbours_are_not_called_through_a_proxy(door, certs, monkeypatch):
    """As in a laboratory whose machines have one: gRPC would send `CONNECT` there, and no neighbour would answer."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    _, _, net = door

    async def greet():
        channel = channels.Channel(channels.Neighbor("n0", net.nodes[0].address, (0,)), certs["n1"], 5)
        try:
            return await channel.greet(Hello(), timeout=5)
        finally:
            await channel.close()

    assert isinstance(asyncio.run(greet()), Hello)


def test_bytes_that_are_no_chunk_are_counted_and_the_stream_goes_on(door, certs):
    _, peer, net = door
    with channel_to("n0", net.nodes[0].address, certs["n1"]) as channel:
        deliver = channel.stream_stream(f"/{SERVICE}/Deliver", response_deserializer=Refusal.FromString)
        stream = [b"\xff", b"\x0a\x05\xff", *(each.SerializeToString() for each in letter())]
        assert [each.reason for each in deliver(iter(stream), timeout=30)] == ["malformed"]
    assert dict(peer.mail.dropped) == {"malformed": 1}
    assert len(peer.collect(0, [(1, 0)])) == 1


def test_a_replay_is_refused_before_and_after_the_exchange(door):
    call_as, peer, _ = door
    stub = call_as("n1")
    assert [deliver(stub, letter()) for _ in range(2)] == ["", "duplicate"]
    arrived = peer.collect(0, [(1, 0), (3, 0)])
    assert [(each.source, each.tensors["model"].tolist()) for each in arrived] == [(1, [1.0] * 6)]
    (refusal,) = stub.Deliver(iter(letter()), timeout=30)
    assert refusal == Refusal(reason="old", pass_number=0, step=1, refused_pass_number=0, refused_step=0)
    assert dict(peer.mail.dropped) == {"duplicate": 1, "old": 1}


def test_one_stream_delivers_many_envelopes_and_goes_on_after_one_that_is_refused(door):
    call_as, peer, _ = door
    stream = [*letter(), *letter(pass_number=1), Chunk(data=b"\0" * 24), *letter(), *letter(step=1)]
    refusals = list(call_as("n1").Deliver(iter(stream), timeout=30))
    assert [(each.reason, each.refused_pass_number) for each in refusals] == [("ahead", 1), ("duplicate", 0)]
    assert list(call_as("n1").Deliver(iter([]), timeout=30)) == []
    assert dict(peer.mail.dropped) == {"ahead": 1, "duplicate": 1}
    assert [each.source for each in peer.collect(1, [(1, 0)])] == [1]


def test_a_stream_that_breaks_off_leaves_its_place_free(door, monkeypatch):
    call_as, peer, _ = door
    stub = call_as("n1")
    admit, admitted = peer.mail.admit, threading.Event()

    async def noting(exchange, edge):
        await admit(exchange, edge)
        admitted.set()

    def broken():
        yield from letter(data=b"\0" * 8)
        assert admitted.wait(30)
        raise RuntimeError("the cable")

    monkeypatch.setattr(peer.mail, "admit", noting)
    with pytest.raises(grpc.RpcError):
        deliver(stub, broken())
    until(lambda: peer.mail.dropped, "the place is free", 30)
    assert dict(peer.mail.dropped) == {"truncated": 1}
    assert deliver(stub, letter()) == ""


def test_a_peer_cannot_open_more_than_a_few_streams(door):
    call_as, _, _ = door
    stub, done = call_as("n1"), threading.Event()

    def stay_open():
        yield from letter(run="another")
        done.wait(30)

    early = [stub.Deliver(stay_open(), timeout=30) for _ in range(2)]
    assert [next(each).reason for each in early] == ["other-run"] * 2
    assert deliver(stub, letter()) == "busy"
    done.set()
    assert [[*each] for each in early] == [[], []]
    assert deliver(stub, letter()) == ""


@pytest.mark.parametrize("method", ["Greet", "Deliver", "Fetch"])
def test_a_call_that_only_begins_is_one_of_a_few_or_is_refused(door, certs, monkeypatch, method):
    """A half-open call takes memory, and its request may never come: it is counted as soon as it begins."""
    monkeypatch.setattr(server, "GREETING", 1.0)
    _, peer, net = door
    opened, done = [], threading.Event()

    def begin(name):
        opened.append(channel_to("n0", net.nodes[0].address, certs[name]))
        return opened[-1].stream_stream(f"/{SERVICE}/{method}")(iter(done.wait, True), timeout=10)

    def refused(call):
        assert call.code() is grpc.StatusCode.PERMISSION_DENIED
        return call.details()

    calls = [begin("n1") for _ in range(3)]
    until(lambda: peer.mail.dropped["busy"], "one too many is taken", 5)
    assert refused(begin("mallory")) == "stranger"
    if method != "Deliver":  # a neighbour may have nothing to deliver for long
        assert sorted(map(refused, calls)) == ["busy", "stalled", "stalled"]
        assert dict(peer.mail.dropped) == {"busy": 1, "stranger": 1, "stalled": 2}
    done.set()
    for channel in opened:
        channel.close()


def test_nonsense_is_counted_and_fills_no_log(door, certs, caplog):
    _, peer, net = door
    with channel_to("n0", net.nodes[0].address, certs["n1"]) as channel:
        for method in ("Greet", "Fetch"):
            ask = channel.unary_unary(f"/{SERVICE}/{method}")
            for _ in range(50):
                with pytest.raises(grpc.RpcError) as caught:
                    ask(b"\xff", timeout=10)
                assert caught.value.details() == "malformed"
    assert dict(peer.mail.dropped) == {"malformed": 100}
    assert [message.partition(" from ")[0] for message in caplog.messages] == ["refused a message"]


STRANGERS = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from ross_flwr.direct import certificates
import grpc
certificates.init(Path(sys.argv[1]))
node = certificates.Credentials.read(certificates.issue(Path(sys.argv[1]), "n0"))
server = grpc.server(ThreadPoolExecutor(1))
identity = grpc.ssl_server_credentials([(node.key, node.certificate)], node.authority, require_client_auth=True)
port = server.add_secure_port("127.0.0.1:0", identity)
server.start()
for _ in range(5):
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
        stranger.sendall(b"GET / HTTP/1.1")
        while stranger.recv(100):
            pass
server.stop(None).wait()
"""


def test_strangers_whose_handshake_fails_leave_nothing_in_the_log(tmp_path):
    """In a process of its own: gRPC looks how much to log when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    command = [sys.executable, "-c", STRANGERS, str(tmp_path / "certs")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_grpc_is_told_how_much_one_connection_may_take(door, certs, tmp_path):
    call_as, _, net = door
    settings = h2_settings(net.nodes[0].address, certs["n1"], tmp_path)
    assert (settings[MAX_CONCURRENT_STREAMS], settings[MAX_HEADER_LIST_SIZE]) == (8, 8192)
    with pytest.raises(grpc.RpcError) as caught:
        call_as("n1").Greet(Hello(), metadata=(("x", "y" * 9000),), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_node_holds_a_few_connections_and_two_for_each_neighbour(certs, monkeypatch):
    monkeypatch.setattr(channels, "CONNECTIONS", 1)
    net = Net(method("ross"), certs=certs)
    host, port = net.nodes[0].address.split(":")
    with net.join(0, net.host([0]), patience=0.3), ExitStack() as opened:
        callers = [opened.enter_context(socket.create_connection((host, int(port)), 0.05)) for _ in range(8)]
        until(lambda: sum(map(closed, callers)) == 3, "it takes others than 5 of 8", 30)


def closed(connection):
    """Whether the other end has closed a connection, before any handshake."""
    try:
        return not connection.recv(1)
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def test_an_expelled_node_is_refused_whatever_it_calls_and_in_the_middle_of_a_stream(certs):
    expelled = set()
    net = Net(method("ross"), certs={**certs, "n0": replace(certs["n0"], revoked=expelled)})
    with (
        net.join(0, net.host([0]), patience=0.3) as node,
        channel_to("n0", net.nodes[0].address, certs["n1"]) as channel,
    ):
        stub = PeerExchangeStub(channel)

        def stream():
            yield from letter()
            until(lambda: node.peer.collect(0, [(1, 0)]), "nothing arrives", 30)
            expelled.add("n1")
            yield from letter(step=1)

        assert deliver(stub, stream()) == "revoked"
        for call in (lambda: stub.Greet(Hello(), timeout=30), lambda: [*stub.Fetch(Request(run="run"), timeout=30)]):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.details() == "revoked"
        assert dict(node.peer.mail.dropped) == {"revoked": 3}


def test_who_has_a_certificate_of_another_authority_gets_no_word_in(door):
    call_as, _, net = door
    for action in (
        lambda stub: deliver(stub, letter()),
        lambda stub: stub.Greet(Hello(), timeout=30),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            action(call_as("outsider"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(net.nodes[0].address) as plain, pytest.raises(grpc.RpcError):
        PeerExchangeStub(plain).Greet(Hello(), timeout=30)
    assert deliver(call_as("n1"), letter()) == ""


def test_a_node_that_is_no_neighbour_learns_nothing(door):
    call_as, peer, _ = door
    for name in ("mallory", "n2"):
        with pytest.raises(grpc.RpcError) as caught:
            call_as(name).Greet(Hello(), timeout=30)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert fetch(call_as(name)) == "stranger"
    assert dict(peer.mail.dropped) == {"stranger": 4}


def fetch(stub, source=0, destination=3, run="run"):
    """Fetch what was last sent on an edge; return its vectors by step, or why that was refused."""
    request = Request(run=run, source=source, destination=destination)
    try:
        chunks = list(stub.Fetch(request, timeout=30))
    except grpc.RpcError as error:
        return error.details()
    return {each.header.step: torch.frombuffer(bytearray(each.data), dtype=torch.float32).tolist() for each in chunks}


def sent(step, destination, **tensors):
    return Envelope("run", 40, step, 0, destination, {name: torch.full((6,), x) for name, x in tensors.items()})


def test_a_neighbour_that_is_far_behind_fetches_once_what_the_method_sent_it_with_a_model(door):
    call_as, peer, _ = door
    stub = call_as("n3")
    assert fetch(stub) == "not-behind", "everybody begins with exchange 0"
    peer.begin(120)
    assert fetch(stub) == "nothing-sent"
    for number, (step, names) in enumerate(
        [("share", ("model",)), ("cross_gradients", ("gradient",)), ("descend", ("model", "momentum"))]
    ):
        for destination, at in ((1, 1.0), (3, 3.0)):
            values = {name: at + k for k, name in enumerate(names)}
            peer.send(120 + number, [sent(step, destination, **values)])
    assert fetch(stub, run="another") == "other-run"
    assert fetch(stub, destination=1) == fetch(call_as("n2")) == fetch(call_as("mallory")) == "stranger"
    assert fetch(stub, source=2) == "nothing-sent"
    assert fetch(stub) == {0: [3.0] * 6, 2: [3.0] * 6 + [4.0] * 6}
    assert fetch(stub) == "nothing-sent", "it has fetched that"
    assert fetch(call_as("n1"), destination=1) == {0: [1.0] * 6, 2: [1.0] * 6 + [2.0] * 6}
    peer.send(123, [sent("share", 3, model=5.0)])
    assert fetch(stub) == {0: [5.0] * 6}
    assert dict(peer.mail.dropped) == {"not-behind": 1, "nothing-sent": 3, "other-run": 1, "stranger": 3}


def test_nothing_can_be_fetched_of_a_method_that_sends_no_models(certs):
    net = Net(method("cgsv-server"), certs=certs, graph=topology.build("star", 4))
    with net.join(0, net.host([0]), patience=0.3) as node:
        node.peer.begin(120)
        node.peer.send(120, [sent("share", 3, update=3.0)])
        with channel_to("n0", net.nodes[0].address, certs["n3"]) as channel:
            assert fetch(PeerExchangeStub(channel)) == "nothing-sent"


def test_an_envelope_from_beyond_the_end_of_the_run_is_refused_at_once(door):
    call_as, peer, _ = door
    assert deliver(call_as("n1"), letter(pass_number=2**62)) == "beyond-end"
    assert dict(peer.mail.dropped) == {"beyond-end": 1}
