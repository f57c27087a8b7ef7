"""Agents that talk to each other: nodes of one process, each in a thread, over real sockets with mutual TLS."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from types import SimpleNamespace

import grpc
import pytest
import torch
from deployed import until
from peers import Net, channel_to, deliver, letter, method

from ross_flwr import ConfigError
from ross_flwr.direct.agreement import Agreement
from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.rounds import Schedule
from ross_flwr.graph import topology
from ross_flwr.learning.rules import Median
from ross_flwr.peer.v1.peer_pb2 import Hello
from ross_flwr.peer.v1.peer_pb2_grpc import PeerExchangeStub
from ross_flwr.threats.faults import Attendance, Dropout, Loss


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
    hosts, _ = net.run(12, patience=60)
    assert time.monotonic() - began < 60, "somebody waited for something"
    expected, _ = net.locally(12)
    assert_same_models(hosts, expected)


def before_gradient(host, number, action):
    """Let the only agent of a host do something before its gradient of this number, counted from 1."""
    (agent,) = host.agents.values()
    compute, numbers = agent.objective.gradient, count(1)

    def gradient(*arguments, **options):
        if next(numbers) == number:
            action()
        return compute(*arguments, **options)

    agent.objective.gradient = gradient


def test_a_late_neighbour_is_missing_for_the_step_and_the_run_goes_on():
    """Agent 2 computes the gradient of round 3 until both of its neighbours have ended round 4."""
    net = Net(method("dpsgd"))
    ended = threading.Barrier(3)

    def late(host):
        before_gradient(host, 3, partial(ended.wait, 30))
        with net.join(2, host, 2.0) as node:
            return list(node.rounds(Schedule(30), 1, 30))

    def neighbor(k, host):
        rounds = []
        with net.join(k, host, 2.0) as node:
            for round in node.rounds(Schedule(30), 1, 30):
                rounds.append(round)
                if round.number == 4:
                    ended.wait(30)
        return rounds

    hosts, reports = net.run(30, {2: late, 1: partial(neighbor, 1), 3: partial(neighbor, 3)}, patience=10.0)
    missed = {(r.agent, j) for rounds in reports for each in rounds for r in each.reports for j in r.missing}
    assert missed >= {(1, 2), (3, 2)}
    assert all(2 in pair for pair in missed)
    for k in (0, 1, 3):
        assert [round.number for round in reports[k]] == list(range(1, 31))
    assert all(bool(agent["model"].isfinite().all()) for host in hosts for agent in host.agents.values())


def test_a_node_that_fell_silent_is_brought_to_its_neighbours_round_and_model(certs, caplog):
    """It stops after round 4, without a word, and comes back as a new process would, with nothing but round 1.

    The others are in round 20 by then, and go on once they hear from it there.
    """
    net = Net(method("dpsgd"), certs=certs)
    in_round_20 = threading.Barrier(4)
    returned = {}

    def falter(host):
        with net.join(0, host) as node:
            for round in node.rounds(Schedule(60), 1, 60):
                if round.number == 4:
                    break
        in_round_20.wait(30)
        fresh = net.host([0])
        with net.join(0, fresh) as node:
            for round in node.rounds(Schedule(60), 1, 60):
                returned.setdefault(round.number, dict.fromkeys(round.reports[0].missing))
        host.agents = fresh.agents

    def stay(k, host):
        def is_back():
            standing = node.peer.progress.standings["n0"]
            return standing.state == "up" and standing.position >= 20

        def pause():
            in_round_20.wait(30)
            if k != 2:
                until(is_back, "node 0 does not come back", 30)

        before_gradient(host, 20, pause)
        with net.join(k, host) as node:
            return list(node.rounds(Schedule(60), 1, 60))

    hosts, reports = net.run(60, play={0: falter} | {k: partial(stay, k) for k in (1, 2, 3)})
    for k in (1, 2, 3):
        assert [round.number for round in reports[k]] == list(range(1, 61))
    assert (min(returned) > 20, max(returned)) == (True, 60), f"it repeats rounds: {[*returned]}"
    assert caplog.messages.count("node n0 cannot be reached") == 2, "each of its neighbours says so"
    missing = [sorted(j for r in round.reports for j in r.missing) for round in reports[1]]
    assert (missing[3], missing[18]) == ([], [0])
    assert missing[-5:] == [[]] * 5, "they hear from it again"
    assert not any(returned[number] for number in range(56, 61)), "and it from them"
    models = torch.stack([agent["model"] for host in hosts for agent in host.agents.values()])
    expected, _ = Net(method("dpsgd")).locally(60)
    spread = torch.stack([agent["model"] for agent in expected.agents.values()])
    assert (models - models.mean(0)).norm() < 2 * (spread - spread.mean(0)).norm()


OK, LONG, HUGE, NONE = 2.0, 100.0, 1e30, float("nan")


@pytest.mark.parametrize(
    ("served", "mixes", "dropped"),
    [
        ({1: OK, 3: OK + 1}, True, {}),
        ({1: OK}, False, {}),
        ({}, False, {}),
        ({1: LONG, 3: OK}, False, {"too-long": 1}),
        ({1: HUGE, 3: OK}, False, {"too-long": 1}),
        ({1: NONE, 3: OK}, False, {"not-finite": 1}),
    ],
)
def test_a_node_that_catches_up_takes_in_fetched_models_by_the_rule_of_the_run_or_not_at_all(served, mixes, dropped):
    net = Net(replace(method("dpsgd"), rule=Median()))
    host, alone = net.host([0]), net.host([0])
    fetched = {j: Envelope("run", 7, "share", j, 0, {"model": torch.full((6,), x)}) for j, x in served.items()}
    with net.join(0, host) as node:
        node.peer.follow = lambda end: ([*fetched.values()], 9)
        before = {name: vector.clone() for name, vector in host.agents[0].state.items()}
        goes_on = node.catch_up(2, 60)
        assert all(torch.equal(host.agents[0][name], vector) for name, vector in before.items())
        assert goes_on == (8 if mixes else 9)
        if mixes:
            host.activate(8, 0, node.collect(8, 0))
            host.activate(8, 1, node.collect(8, 1))
            alone.activate(8, 0)
            alone.activate(8, 1, [replace(each, pass_number=8) for each in fetched.values()])
            assert_same_models([host], alone)
    assert dict(host.dropped) == dropped


class Boastful(Agreement):
    """Claims to be far ahead."""

    def hello(self, exchange):
        return super().hello(exchange + 500)


@pytest.mark.parametrize("graph", ["ring", "complete"])
def test_a_neighbour_that_claims_to_be_far_ahead_does_not_make_others_jump(graph, certs):
    net = Net(method("dpsgd", learning_rate=0.1), certs=certs, graph=topology.build(graph, 4))
    lying = threading.Event()

    def boast(host):
        with net.join(1, host) as node:
            node.peer.server.agreement = Boastful(**vars(node.peer.server.agreement))
            lying.set()
            return list(node.rounds(Schedule(10), 1, 10))

    def hear(k, host):
        assert lying.wait(30)
        with net.join(k, host) as node:
            return list(node.rounds(Schedule(10), 1, 10))

    hosts, reports = net.run(10, play={1: boast} | {k: partial(hear, k) for k in (0, 2, 3)})
    assert [[round.number for round in rounds] for rounds in reports] == [list(range(1, 11))] * 4
    assert_same_models(hosts, net.locally(10)[0])


def test_a_node_of_another_run_topology_or_model_is_not_exchanged_with(certs):
    net = Net(method("dpsgd"), ((0, 1), (2, 3)), certs=certs)
    for name in ("topology", "layout"):
        reason, greeted = f"other-{name}", threading.Barrier(2)

        def play(k, changes, host, reason=reason, greeted=greeted):
            with net.join(k, host, 0.5, **changes) as node:
                until(lambda: node.peer.mail.dropped[reason], "the other node is not greeted", 30)
                greeted.wait(30)
                return list(node.rounds(Schedule(2), 1, 2))

        _, reports = net.run(2, play={0: partial(play, 0, {}), 1: partial(play, 1, {name: "another"})})
        for rounds in reports:
            assert all(len(report.missing) == 1 for round in rounds for report in round.reports)


def test_a_run_is_unharmed_by_strangers(certs):
    net = Net(method("ross", learning_rate=0.1), certs=certs)
    poison = torch.full((6,), 1e6).numpy().tobytes()

    done = threading.Event()

    def pester(name):
        with channel_to("n0", net.nodes[0].address, certs[name]) as channel:
            stub = PeerExchangeStub(channel)
            for number in count():
                if done.is_set():
                    return
                assert deliver(stub, letter(poison, pass_number=number % 10)) == "stranger"

    def besieged(host):
        rounds = []
        with ThreadPoolExecutor(3) as pool, net.join(0, host) as node:
            pestering = [pool.submit(pester, name) for name in ("mallory", "n2", "n3")]
            try:
                for round in node.rounds(Schedule(10), 1, 10):
                    rounds.append(round)
                    until(lambda: node.peer.mail.dropped["stranger"] >= len(rounds), "no stranger is refused", 30)
            finally:
                done.set()
            for each in pestering:
                each.result()
        return rounds

    hosts, _ = net.run(10, play={0: besieged})
    expected, _ = net.locally(10)
    assert_same_models(hosts, expected)
    assert hosts[0].dropped["stranger"] >= 10


def test_a_node_that_its_neighbours_expel_is_left_out_and_learns_nothing_more(certs):
    """Its neighbours 1 and 3 revoke node 2 after round 5, of which it knows nothing."""
    expelled = set()
    revoking = {name: replace(certs[name], revoked=expelled) for name in ("n1", "n3")}
    net = Net(method("dpsgd"), certs={**certs, **revoking})
    last = threading.Barrier(4)

    def play(k, host):
        with net.join(k, host, 0.5) as node:
            rounds = []
            for round in node.rounds(Schedule(20), 1, 20):
                rounds.append(round)
                if round.number == 5:
                    last.wait(30)
                    expelled.add("n2")
            last.wait(60)
            return rounds

    hosts, reports = net.run(20, play={k: partial(play, k) for k in range(4)})
    missing = [[[*round.reports[0].missing] for round in rounds] for rounds in reports]
    assert [rounds[:5] for rounds in missing] == [[[]] * 5] * 4
    assert [rounds[8:] for rounds in missing] == [[[]] * 12, [[2]] * 12, [[1, 3]] * 12, [[2]] * 12]
    assert all(hosts[k].dropped["revoked"] for k in (1, 3))


def test_a_neighbour_that_answers_nonsense_is_greeted_again_and_fills_no_log(caplog):
    net, asked = Net(method("dpsgd")), Counter()
    hello = Hello(protocol=1, run="run", topology=net.graph.digest, layout="layout").SerializeToString()

    def answer(call):
        name = call.method.rpartition("/")[2]
        asked[name] += 1
        sound = name == "Greet" and asked[name] > 3
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: iter([hello if sound else b"\xff"]))

    liar = grpc.server(ThreadPoolExecutor(4), handlers=[SimpleNamespace(service=answer)])
    liar.add_insecure_port(net.nodes[1].address)
    liar.start()
    try:
        with net.join(0, net.host([0]), 0.3):
            until(lambda: asked["Deliver"] > 2, "it is given up", 20)
    finally:
        liar.stop(0).wait()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_who_ends_waits_until_its_neighbours_have_read_what_it_sent():
    """Agent 1's third envelope finds no room at agent 0 before agent 0 has begun its second exchange."""
    net = Net(method("dpsgd"), blocks=((0,), (1,)), graph=topology.build("ring", 2))
    hosts = [net.host([k]) for k in range(2)]
    with ThreadPoolExecutor(1) as pool, net.join(0, hosts[0]) as reader:
        writer = net.join(1, hosts[1])
        for exchange in range(3):
            envelope = Envelope("run", exchange, "share", 1, 0, {"model": torch.full((6,), float(exchange))})
            writer.peer.send(exchange, [envelope])
        ending = pool.submit(writer.peer.close)
        time.sleep(0.3)
        assert not ending.done()
        arrived = [reader.peer.collect(exchange, [(1, 0)]) for exchange in range(3)]
        ending.result(timeout=30)
    assert [[float(each.tensors["model"][0]) for each in envelopes] for envelopes in arrived] == [[0.0], [1.0], [2.0]]


def test_an_address_that_is_taken_is_told():
    net = Net(method("dpsgd"))
    with net.join(0, net.host([0]), 0.1), pytest.raises(ConfigError, match="cannot be served"):
        net.join(0, net.host([0]), 0.1)
