"""Agents that talk to each other: nodes of one process, each in a thread, over real sockets with mutual TLS."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count

import grpc
import pytest
import torch
from addresses import free_addresses
from deployed import until
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import channel_to
from quadratics import Quadratic, normal, objective_of, team

from ross_flwr import ConfigError, resolve
from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.direct import certificates, wire
from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.loop import Session
from ross_flwr.direct.mail import Mail
from ross_flwr.direct.peer import SERVICE, Neighbor, Peer, Place, check_address
from ross_flwr.direct.wire import chunks, layouts
from ross_flwr.engine import rounds as local
from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.host import Host
from ross_flwr.engine.rounds import Schedule
from ross_flwr.graph import topology
from ross_flwr.peer.v1.peer_pb2 import Chunk, DType, Header, Hello, Refusal, Request
from ross_flwr.peer.v1.peer_pb2_grpc import PeerExchangeStub
from ross_flwr.threats.faults import Attendance, Dropout, Loss

RING = topology.build("ring", 4)


def method(name, **options):
    return resolve({key.replace("_", "-"): value for key, value in options.items()}).part(ALGORITHMS[name])


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    """What proves nodes n0 … n3, a stranger of the same deployment, and one of another, who takes ours for sound."""
    folder = tmp_path_factory.mktemp("certs")
    for deployment in ("ours", "theirs"):
        certificates.init(folder / deployment)
    names = {f"n{k}": "ours" for k in range(4)} | {"mallory": "ours", "outsider": "theirs"}
    read = {name: Credentials.read(certificates.issue(folder / where, name)) for name, where in names.items()}
    return {name: replace(credentials, authority=read["n0"].authority) for name, credentials in read.items()}


class Net:
    """Nodes n0, n1, … on free ports of this machine, each with a block of agents."""

    def __init__(
        self,
        algorithm,
        blocks=((0,), (1,), (2,), (3,)),
        *,
        graph=RING,
        certs=None,
        transforms=(),
        absent=None,
        **settings,
    ):
        self.blocks, self.graph, self.certs = blocks, graph, certs
        self.algorithm, self.settings = algorithm, settings
        self.threats = {"transforms": transforms, "absent": absent}
        self.nodes = [
            Neighbor(f"n{k}", address, tuple(block))
            for k, (block, address) in enumerate(zip(blocks, free_addresses(len(blocks)), strict=True))
        ]

    def host(self, members):
        agents = team(self.graph, self.algorithm, members=members, **self.settings)
        for agent in agents:
            agent.place(self.graph.mixing_row(agent.index), self.graph.mixing_column(agent.index))
        return Host("run", self.algorithm, agents, **self.threats)

    def session(self, k, host, patience=10.0, **changes):
        near = {j for i in self.blocks[k] for j in (*self.graph.neighbors(i), *self.graph.receivers(i))}
        near -= set(self.blocks[k])
        settings = {
            "address": self.nodes[k].address,
            "topology": self.graph.digest,
            "layout": "layout",
            "patience": patience,
            "credentials": self.certs[f"n{k}"] if self.certs else None,
        }
        return Session(host, [node for node in self.nodes if near & set(node.agents)], **{**settings, **changes})

    def run(self, rounds, play=None, **settings):
        """Run all nodes side by side; return their hosts and, by node, their rounds."""
        hosts = [self.host(block) for block in self.blocks]

        def run_node(k):
            if play and k in play:
                return play[k](hosts[k])
            with self.session(k, hosts[k], **settings) as session:
                return list(session.rounds(Schedule(rounds), 1, rounds))

        with ThreadPoolExecutor(len(hosts)) as pool:
            return hosts, list(pool.map(run_node, range(len(hosts))))

    def locally(self, rounds):
        host = self.host(range(self.graph.num_agents))
        return host, list(local.rounds(host, Schedule(rounds), 1, rounds))


def assert_same_models(hosts, expected):
    agents = {i: agent for host in hosts for i, agent in host.agents.items()}
    assert sorted(agents) == sorted(expected.agents)
    for i, agent in agents.items():
        assert agent.state.keys() == expected.agents[i].state.keys()
        for name, vector in expected.agents[i].state.items():
            torch.testing.assert_close(agent[name], vector, rtol=0, atol=1e-6)


def untimed(reports):
    return [replace(report, time={}) for report in reports]


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("dpsgd", ((0,), (1,), (2,), (3,))),
        ("ross", ((0,), (1,), (2,), (3,))),
        ("ross", ((0, 2), (1, 3))),
        ("dfedsam", ((0, 1), (2,), (3,))),
        ("dsgt", ((0,), (1, 2, 3))),
        ("isolated", ((0,), (1,), (2,), (3,))),
    ],
)
def test_agents_compute_what_they_compute_in_one_process(name, blocks, certs, caplog):
    net = Net(method(name, learning_rate=0.1, gossip_steps=2), blocks, certs=certs, batch_size=2)
    hosts, reports = net.run(8)
    expected, lines = net.locally(8)
    assert_same_models(hosts, expected)
    for number, round in enumerate(lines):
        heard = sorted((r for rounds in reports for r in rounds[number].reports), key=lambda r: r.agent)
        assert untimed(heard) == untimed(round.reports)
    assert [dict(host.dropped) for host in hosts] == [{}] * len(blocks)
    assert caplog.messages == [], "a neighbour that has ended is nothing to warn of"


def test_nobody_waits_for_agents_that_are_away_or_for_messages_that_are_lost():
    attendance = Attendance([Dropout(0.3)], seed=3, num_agents=4, num_rounds=12)
    net = Net(method("ross", learning_rate=0.1), transforms=[Loss(0.2)], absent=attendance.absent)
    began = time.monotonic()
    hosts, _ = net.run(12, patience=30)
    assert time.monotonic() - began < 20
    expected, _ = net.locally(12)
    assert_same_models(hosts, expected)


class Slow(Quadratic):
    """Takes its time for one of its gradients."""

    def __init__(self, inner, number, seconds):
        super().__init__(inner.examples)
        self.number, self.seconds = number, seconds

    def gradient(self, vector, batch, **_):
        self.number -= 1
        if self.number == 0:
            time.sleep(self.seconds)
        return super().gradient(vector, batch)


def test_a_late_neighbour_is_missing_for_the_step_and_the_run_goes_on():
    net = Net(method("dpsgd"), objective=lambda i: Slow(objective_of(i), 3, 1.2) if i == 2 else objective_of(i))
    hosts, reports = net.run(30, patience=0.5)
    missed = {(r.agent, j) for rounds in reports for each in rounds for r in each.reports for j in r.missing}
    assert missed >= {(1, 2), (3, 2)}
    assert all(2 in pair for pair in missed)
    for k in (0, 1, 3):
        assert [round.number for round in reports[k]] == list(range(1, 31))
    assert all(bool(agent["model"].isfinite().all()) for host in hosts for agent in host.agents.values())


class Steady(Quadratic):
    """Takes a little time for every gradient, as real models do."""

    def gradient(self, vector, batch, **_):
        time.sleep(0.02)
        return super().gradient(vector, batch)


def test_a_node_that_fell_silent_is_brought_to_its_neighbours_round_and_model(certs, caplog):
    """It stops in round 4, without a word, and comes back as a new process would, with nothing but round 1."""
    net = Net(method("dpsgd"), certs=certs, objective=lambda i: Steady(objective_of(i).examples))
    returned = {}

    def falter(host):
        with net.session(0, host) as session:
            for round in session.rounds(Schedule(150), 1, 150):
                if round.number == 4:
                    break
        time.sleep(0.5)
        fresh = net.host([0])
        with net.session(0, fresh) as session:
            for round in session.rounds(Schedule(150), 1, 150):
                returned.setdefault(round.number, dict.fromkeys(round.reports[0].missing))
        host.agents = fresh.agents
        return returned

    hosts, reports = net.run(150, play={0: falter})
    for k in (1, 2, 3):
        assert [round.number for round in reports[k]] == list(range(1, 151))
    first, last = min(returned), max(returned)
    assert 4 < first < 100, "it did not repeat what the others were past"
    assert last == 150
    assert sum(not missing for missing in returned.values()) > 20, "its neighbours talk to it again"
    assert caplog.messages.count("node n0 cannot be reached") >= 2, "each of its neighbours says so"
    missing = [sorted(j for r in round.reports for j in r.missing) for round in reports[1]]
    assert missing[3] == []
    assert [0] in missing
    assert missing[-20:] == [[]] * 20, "and it to them"
    models = torch.stack([agent["model"] for host in hosts for agent in host.agents.values()])
    expected, _ = Net(method("dpsgd")).locally(150)
    spread = torch.stack([agent["model"] for agent in expected.agents.values()])
    assert (models - models.mean(0)).norm() < 2 * (spread - spread.mean(0)).norm()


@pytest.mark.parametrize("alone", [False, True])
def test_a_neighbour_that_begins_far_ahead_is_followed_only_once_it_goes_on(alone):
    """Node 0 is in exchange 10 with both of its neighbours when node 1, which was away, begins in exchange 40.

    So it is where the other neighbour is gone.
    """
    place = Place("run", "topology", "layout", ("share",))
    nodes = [Neighbor(f"n{k}", address, (k,)) for k, address in enumerate(free_addresses(3))]
    peers = []
    for k, node in enumerate(nodes):
        mail = Mail(5)
        mail.skip_to(10)
        others = [other for other in nodes if other is not node]
        peers.append(Peer(place, node.address, others, [(j, k) for j in range(3) if j != k], mail, {}, 1000))
    own, other, _ = peers
    try:
        until(lambda: all(link.reachable for link in own.links), "both neighbours answer", 10)
        if alone:
            peers.pop().close()
            until(lambda: not own.homes[2].reachable, "node 2 is gone", 10)
        other.mail.skip_to(40)
        for late in range(1, 5):
            own.send(9 + late, [(Envelope("run", 9 + late, "share", 0, 1, {}), 0)])
            until(lambda late=late: other.mail.dropped["old"] == late, "it came too late", 10)
        time.sleep(0.2)
        assert not own.behind
        other.mail.skip_to(41)
        own.send(14, [(Envelope("run", 14, "share", 0, 1, {}), 0)])
        until(lambda: own.behind, "node 1 is followed", 10)
    finally:
        for peer in peers:
            peer.close()


class Boastful(Place):
    """Claims to be far ahead."""

    def hello(self, exchange):
        return super().hello(exchange + 10**6)


def test_a_neighbour_that_claims_to_be_far_ahead_does_not_make_others_jump(certs):
    net = Net(method("dpsgd", learning_rate=0.1), certs=certs, graph=topology.build("complete", 4))
    lying = threading.Event()

    def boast(host):
        with net.session(1, host) as session:
            session.peer.place = Boastful(**vars(session.peer.place))
            lying.set()
            return list(session.rounds(Schedule(10), 1, 10))

    def hear(k, host):
        assert lying.wait(10)
        with net.session(k, host) as session:
            return list(session.rounds(Schedule(10), 1, 10))

    hosts, reports = net.run(10, play={1: boast} | {k: partial(hear, k) for k in (0, 2, 3)})
    assert [[round.number for round in rounds] for rounds in reports] == [list(range(1, 11))] * 4
    assert_same_models(hosts, net.locally(10)[0])


@pytest.fixture
def door(certs):
    """Node n0 of the ring, which hosts agent 0 and awaits exchange 0, and a way to call it as anybody."""
    net = Net(method("ross"), certs=certs)
    host = net.host([0])
    opened = []
    with net.session(0, host, patience=0.3) as session:

        def call_as(name):
            opened.append(channel_to("n0", net.nodes[0].address, certs[name]))
            return PeerExchangeStub(opened[-1])

        yield call_as, session.mail, net
        for channel in opened:
            channel.close()


def letter(data=None, *, source=1, **changes):
    """The chunks of an envelope from agent `source` to agent 0, which fits unless something is changed."""
    model = torch.ones(6)
    header = {"run": "run", "round": 0, "step": 0, "source": source, "destination": 0}
    header["tensors"] = layouts({"model": model})
    raw = model.numpy().tobytes() if data is None else data
    return [Chunk(header=Header(**{**header, **changes}), data=raw)]


def deliver(stub, stream):
    """Deliver one envelope, and return why it was dropped, or an empty string."""
    refusals = list(stub.Deliver(iter(stream), timeout=10))
    assert len(refusals) <= 1
    return refusals[0].reason if refusals else ""


def huge(*shape):
    return [wire.Layout(name="model", shape=shape, dtype=DType.DTYPE_FLOAT32)]


@pytest.mark.parametrize(
    ("name", "stream", "reason"),
    [
        ("n1", letter(), ""),
        ("n1", letter(run="another"), "other-run"),
        ("n1", letter(step=3), "other-step"),
        ("n1", letter(round=5), "ahead"),
        ("n1", letter(source=2), "no-edge"),
        ("n2", letter(source=2), "no-edge"),
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
    call_as, mail, _ = door
    assert deliver(call_as(name), stream) == reason
    assert dict(mail.dropped) == ({reason: 1} if reason else {})


def test_bytes_that_are_no_chunk_are_counted_and_the_stream_goes_on(door, certs):
    _, mail, net = door
    with channel_to("n0", net.nodes[0].address, certs["n1"]) as channel:
        deliver = channel.stream_stream(f"/{SERVICE}/Deliver", response_deserializer=Refusal.FromString)
        stream = [b"\xff", b"\x0a\x05\xff", *(each.SerializeToString() for each in letter())]
        assert [each.reason for each in deliver(iter(stream), timeout=10)] == ["malformed"]
    assert dict(mail.dropped) == {"malformed": 1}
    arrived, _ = mail.collect(0, [(1, 0)], lambda _: True, lambda: False)
    assert len(arrived) == 1


def test_a_replay_is_refused_before_and_after_the_exchange(door):
    call_as, mail, _ = door
    stub = call_as("n1")
    assert [deliver(stub, letter()) for _ in range(2)] == ["", "duplicate"]
    arrived, missing = mail.collect(0, [(1, 0), (3, 0)], lambda edge: edge[0] == 1, lambda: False)
    assert [(each.source, each.tensors["model"].tolist()) for each in arrived] == [(1, [1.0] * 6)]
    assert missing == [(3, 0)]
    (refusal,) = stub.Deliver(iter(letter()), timeout=10)
    assert refusal == Refusal(reason="old", round=0, step=1, refused_round=0, refused_step=0)
    assert dict(mail.dropped) == {"duplicate": 1, "old": 1}


def test_one_stream_delivers_many_envelopes_and_goes_on_after_one_that_is_refused(door):
    call_as, mail, _ = door
    stream = [*letter(), *letter(round=1), Chunk(data=b"\0" * 24), *letter(), *letter(step=1)]
    refusals = list(call_as("n1").Deliver(iter(stream), timeout=10))
    assert [(each.reason, each.refused_round) for each in refusals] == [("ahead", 1), ("duplicate", 0)]
    assert list(call_as("n1").Deliver(iter([]), timeout=10)) == []
    assert dict(mail.dropped) == {"ahead": 1, "duplicate": 1}
    arrived, _ = mail.collect(1, [(1, 0)], lambda _: True, lambda: False)
    assert [each.source for each in arrived] == [1]


def test_a_stream_that_breaks_off_leaves_its_place_free(door):
    call_as, mail, _ = door
    stub = call_as("n1")

    def broken():
        yield from letter(data=b"\0" * 8)
        time.sleep(0.2)
        raise RuntimeError("the cable")

    with pytest.raises(grpc.RpcError):
        deliver(stub, broken())
    until(lambda: mail.dropped, "the place is free", 5)
    assert dict(mail.dropped) == {"truncated": 1}
    assert deliver(stub, letter()) == ""


def test_a_peer_cannot_open_more_than_a_few_streams(door):
    call_as, _, _ = door
    stub = call_as("n1")
    early = [stub.Deliver(iter(letter(round=5 + k)), timeout=10) for k in range(2)]
    time.sleep(0.1)
    assert deliver(stub, letter()) == "busy"
    assert [refusal.reason for each in early for refusal in each] == ["ahead", "ahead"]
    assert deliver(stub, letter()) == ""


def test_who_has_a_certificate_of_another_authority_gets_no_word_in(door):
    call_as, _, net = door
    for action in (
        lambda stub: deliver(stub, letter()),
        lambda stub: stub.Greet(Hello(), timeout=5),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            action(call_as("outsider"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(net.nodes[0].address) as plain, pytest.raises(grpc.RpcError):
        PeerExchangeStub(plain).Greet(Hello(), timeout=5)
    assert deliver(call_as("n1"), letter()) == ""


def test_a_node_that_is_no_neighbour_learns_nothing(door):
    call_as, mail, _ = door
    for name in ("mallory", "n2"):
        with pytest.raises(grpc.RpcError) as caught:
            call_as(name).Greet(Hello(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as caught:
            list(call_as(name).Fetch(Request(run="run", agent=0), timeout=5))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert dict(mail.dropped) == {"stranger": 4}
    (chunk,) = call_as("n3").Fetch(Request(run="run", agent=0), timeout=5)
    assert torch.equal(torch.frombuffer(bytearray(chunk.data), dtype=torch.float32), normal(77, 6))


def test_a_node_of_another_run_topology_or_model_is_not_exchanged_with(certs):
    net = Net(method("dpsgd"), ((0, 1), (2, 3)), certs=certs)
    for changes in ({"topology": "another"}, {"layout": "another"}):

        def play(host, changes=changes):
            with net.session(1, host, 0.5, **changes) as session:
                list(session.rounds(Schedule(2), 1, 2))

        hosts, _ = net.run(2, play={1: play}, patience=0.5)
        (reason,) = (f"other-{name}" for name in changes)
        assert hosts[0].dropped[reason] > 0
        assert hosts[0].agents[1].mixing_row.keys() == {0, 1, 2}


def test_a_run_is_unharmed_by_strangers(certs):
    net = Net(method("ross", learning_rate=0.1), certs=certs, objective=lambda i: Steady(objective_of(i).examples))
    poison = torch.full((6,), 1e6).numpy().tobytes()

    done = threading.Event()

    def pester(name):
        with channel_to("n0", net.nodes[0].address, certs[name]) as channel:
            stub = PeerExchangeStub(channel)
            for number in count():
                if done.is_set():
                    return
                assert deliver(stub, letter(poison, round=number % 10)) == "stranger"

    def besieged(host):
        with ThreadPoolExecutor(3) as pool, net.session(0, host) as session:
            pestering = [pool.submit(pester, name) for name in ("mallory", "n2", "n3")]
            while session.mail.dropped["stranger"] < 10 and not any(each.done() for each in pestering):
                time.sleep(0.01)
            rounds = list(session.rounds(Schedule(10), 1, 10))
            done.set()
            for each in pestering:
                each.result()
        return rounds

    hosts, _ = net.run(10, play={0: besieged})
    expected, _ = net.locally(10)
    assert_same_models(hosts, expected)
    assert hosts[0].dropped["stranger"] > 10


def test_a_slow_reader_slows_its_sender():
    """Who is more than an exchange ahead has to wait, and is told when there is room."""
    mail, told = Mail(patience=5), []
    assert not mail.admit(2, (1, 0), lambda: told.append(2))
    assert told == []
    mail.collect(0, [], lambda _: True, lambda: False)
    assert told == [2]
    assert mail.admit(2, (1, 0), lambda: told.append(2))


def test_who_ends_waits_until_its_neighbours_have_read_what_it_sent():
    """Agent 1's third envelope finds no room at agent 0 before agent 0 has begun its second exchange."""
    net = Net(method("dpsgd"), blocks=((0,), (1,)), graph=topology.build("ring", 2))
    hosts = [net.host([k]) for k in range(2)]
    with ThreadPoolExecutor(1) as pool, net.session(0, hosts[0]) as reader:
        writer = net.session(1, hosts[1])
        for exchange in range(3):
            envelope = Envelope("run", exchange, "share", 1, 0, {"model": torch.full((6,), float(exchange))})
            writer.peer.send(exchange, [(envelope, 0)])
        ending = pool.submit(writer.peer.close)
        time.sleep(0.3)
        assert not ending.done()
        arrived = [reader.peer.collect(exchange, [(1, 0)]) for exchange in range(3)]
        ending.result(timeout=5)
    assert [[float(each.tensors["model"][0]) for each in envelopes] for envelopes in arrived] == [[0.0], [1.0], [2.0]]


def test_an_envelope_that_was_skipped_is_not_waited_for():
    mail = Mail(patience=30)
    envelope = object.__new__(type("Letter", (), {"tensors": {"model": torch.ones(1)}}))
    mail.admit(1, (1, 0), int)
    mail.keep(1, (1, 0), envelope)
    began = time.monotonic()
    assert mail.collect(0, [(1, 0)], lambda _: True, lambda: False) == ([], [(1, 0)])
    assert mail.collect(1, [(1, 0)], lambda _: True, lambda: False) == ([envelope], [])
    assert time.monotonic() - began < 5


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(wire.DTYPES.values(), key=str)), st.lists(st.integers(0, 9), max_size=3)),
        max_size=5,
    )
)
@settings(max_examples=50)
def test_tensors_of_any_type_and_shape_arrive_as_they_left(kinds):
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"t{k}": torch.randint(0, 100, shape, generator=generator).to(dtype) for k, (dtype, shape) in enumerate(kinds)
    }
    check_round_trip(tensors)


@pytest.mark.parametrize("size", [wire.CHUNK // 4 - 1, wire.CHUNK // 4, wire.CHUNK // 4 + 1, 3 * wire.CHUNK // 4 + 7])
def test_tensors_longer_than_a_chunk_arrive_as_they_left(size):
    check_round_trip({"a": normal(1, 3), "b": normal(2, size), "c": normal(3, 5)})


def check_round_trip(tensors):
    """What is written and read by hand is what protobuf writes and reads."""
    sent = list(chunks(Header(tensors=layouts(tensors)), tensors.values()))
    pieces = [Chunk.FromString(each) for each in sent]
    assert all(len(each.data) <= wire.CHUNK for each in pieces)
    assert [each.HasField("header") for each in pieces] == [True] + [False] * (len(sent) - 1)
    assembly = wire.Assembly(pieces[0].header.tensors, limit=10**8, memory=wire.Memory())
    for written, piece in zip(sent, pieces, strict=True):
        for form in (written, piece.SerializeToString()):
            header, data = wire.parse(form)
            assert (header, bytes(data)) == (piece.header if piece.HasField("header") else None, piece.data)
        assembly.add(data)
    arrived = assembly.finish()
    assert list(arrived) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(arrived[name], tensor)
        assert arrived[name].dtype == tensor.dtype


@pytest.mark.parametrize("address", ["", "9700", "host:", "host:0", "host:70000", "host:http"])
def test_what_is_no_address_is_told(address):
    with pytest.raises(ConfigError, match="is no address"):
        check_address(address, secure=True, remote=False)


def test_without_certificates_only_this_machine_is_served_unless_said_twice():
    for address in ("127.0.0.1:9700", "localhost:9700", "[::1]:9700"):
        check_address(address, secure=False, remote=False)
    for address in ("0.0.0.0:9700", "192.168.1.20:9700", "kitchen:9700"):
        check_address(address, secure=True, remote=False)
        check_address(address, secure=False, remote=True)
        with pytest.raises(ConfigError, match="peer-insecure-remote"):
            check_address(address, secure=False, remote=False)


def test_an_address_that_is_taken_is_told():
    net = Net(method("dpsgd"))
    with net.session(0, net.host([0]), 0.1), pytest.raises(ConfigError, match="cannot be served"):
        net.session(0, net.host([0]), 0.1)
