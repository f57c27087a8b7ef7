"""The real thing: a SuperLink and four SuperNodes with TLS and node authentication, from `deploy/local.sh`."""

import signal
import time
from dataclasses import replace

import grpc
import peers
import pytest
import torch
from deployed import POSSIBLE, Deployment, until
from peers import channel_to

from ross_flwr.direct import certificates
from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.wire import layouts
from ross_flwr.peer.v1.peer_pb2 import Chunk, Header, Hello
from ross_flwr.peer.v1.peer_pb2_grpc import PeerExchangeStub

pytestmark = [pytest.mark.deployment, POSSIBLE]

FOUR = {"algorithm": "ross", "beside": "", "num-nodes": 4, "num-agents": 4, "topology": "ring", "attackers": 1}
TEXT = {"task": "language-model", "dataset": "python(kib=8)", "model": "transformer(width=16,context=16)"}
DIRECT = {**FOUR, "attack-target": "gradients", "transport": "direct", "return-model": "final", "phase-timeout": 60.0}


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """A deployment in which all tests here run."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"), "shell")
    try:
        until(deployment.stands, "the deployment did not come up")
        yield deployment
    finally:
        deployment.stop()


@pytest.fixture
def door(standing):
    """The nodes by the agents they host, and ways to call the one of agent 0 as anybody; its neighbours are 1 and 3."""
    nodes = standing.nodes()
    opened = []

    def call_as(credentials):
        opened.append(channel_to(nodes[0].name, nodes[0].address, credentials))
        return PeerExchangeStub(opened[-1])

    yield nodes, call_as
    for channel in opened:
        channel.close()


def position(neighbor):
    """The run of the node called, and where in it the node is; nothing if it does not answer."""
    try:
        return neighbor.Greet(Hello(), timeout=5)
    except grpc.RpcError:
        return None


def rests(neighbor):
    """Wait until a node does nothing but wait, and return where in the run it is."""
    last, since = None, time.monotonic()
    while last is None or time.monotonic() - since < 2:
        now = position(neighbor)
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.1)
    return last


def test_agents_have_the_models_they_have_in_one_process_over_the_relay(standing):
    keys = {**FOUR, **TEXT, "algorithm": "dpsgd", "num-nodes": 2, "num-rounds": 1, "phase-timeout": 120.0}
    run = standing.run("relay", keys)  # every message to a node costs a process that imports PyTorch
    run.finish()
    run.assert_is_as_locally()
    assert run.summary()["dropped"] == {}


def test_strangers_are_refused_and_counted_and_the_run_is_unharmed(standing, door, tmp_path):
    """They call the node of agent 0 while that of agent 1 is held, so that the run waits for it."""
    nodes, call_as = door
    certs = [Credentials.read(node.certs) for node in nodes]
    mallory = Credentials.read(certificates.issue(nodes[0].certs.parent, "mallory"))
    certificates.init(tmp_path)
    outsider = replace(Credentials.read(certificates.issue(tmp_path, nodes[1].name)), authority=mallory.authority)
    first = call_as(certs[1])

    run = standing.run("besieged", {**DIRECT, "num-rounds": 120, "segment-rounds": 120, "evaluate-every": 40})
    until(lambda: (at := position(first)) and at.pass_number >= 3, "agent 0 did not begin")
    nodes[1].signal_app(signal.SIGSTOP)
    try:
        held = rests(first)
        assert 3 <= held.pass_number < 120
        model = torch.full((4810,), 1e6)
        raw = model.numpy().tobytes()

        def deliver(credentials, source, data=raw, pass_number=held.pass_number, size=model.shape):
            """Send agent 0 an envelope of the exchange that it awaits; return why it is dropped."""
            header = Header(run=held.run, pass_number=pass_number, step=held.step, source=source, destination=0)
            header.tensors.extend(layouts({"model": model}))
            header.tensors[0].shape[:] = size
            return peers.deliver(call_as(credentials), [Chunk(header=header, data=data)])

        with pytest.raises(grpc.RpcError) as caught:
            deliver(outsider, 1)
        # gRPC refuses it in the TLS handshake, before it asks the node: there is nothing to count.
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert deliver(mallory, 1) == "stranger"
        assert deliver(certs[2], 1) == "stranger"
        assert deliver(certs[1], 2) == "no-edge"
        assert deliver(certs[1], 1, pass_number=held.pass_number - 1) == "old"
        assert deliver(certs[3], 3) == "duplicate"
        assert deliver(certs[1], 1, data=raw[:-4]) == "truncated"
        assert deliver(certs[1], 1, data=raw + raw[:4]) == "oversize"
        assert deliver(certs[1], 1, size=[10**12]) == "oversize"
    finally:
        nodes[1].signal_app(signal.SIGCONT)
    run.finish()
    run.assert_is_as_locally()
    refused = {"stranger": 2, "no-edge": 1, "old": 1, "duplicate": 1, "truncated": 1, "oversize": 2}
    assert run.summary()["dropped"] == refused


def test_a_killed_node_is_missing_and_takes_part_again_when_it_returns(standing, door):
    """The node of agent 1 dies in the first segment, which the others finish, and is back for the second.

    The SuperLink takes it back when it has missed it for up to a minute. The others wait a minute in each segment.
    """
    nodes, call_as = door
    first = call_as(Credentials.read(nodes[1].certs))
    keys = {"task": "signals", "num-rounds": 200, "segment-rounds": 100, "evaluate-every": 50, "return-model": "none"}
    run = standing.run("bad-day", {**DIRECT, **keys})
    until(lambda: (at := position(first)) and at.pass_number >= 5, "agent 0 did not begin")
    nodes[1].kill()
    until(lambda: run.says("[ROUNDS 101–"), "the others did not finish the segment")
    until(nodes[1].restart, "the SuperLink did not take the node back", pause=3)
    run.finish()
    lines = run.history()
    assert [line["round"] for line in lines] == list(range(1, 201))
    assert {tuple(line["absent"]) for line in lines[:100]} == {(1,)}, "what it told died with it"
    assert lines[0]["missing"] == []
    assert sorted(lines[99]["missing"]) == [[0, 1], [2, 1]]
    assert lines[199]["absent"] == lines[199]["missing"] == []


def test_a_run_whose_superlink_dies_goes_on_from_what_the_nodes_keep(standing, door, tmp_path):
    """The SuperLink dies with its ServerApp in a segment, which the nodes finish, and knows them when it is back."""
    nodes, call_as = door
    first = call_as(Credentials.read(nodes[1].certs))
    keys = {"num-rounds": 60, "segment-rounds": 40, "evaluate-every": 20, "checkpoint-every": 5}
    keys = {**DIRECT, **keys, "state-dir": str(tmp_path)}
    standing.run("lost", keys)
    until(lambda: (at := position(first)) and at.pass_number >= 10, "agent 0 did not begin")
    command = standing.kill_superlink()
    (name,) = [folder.name for folder in tmp_path.iterdir()]
    standing.restart_superlink(command)
    run = standing.run("lost", {**keys, "resume": name})
    run.finish()
    lines = run.history()
    assert [line["round"] for line in lines] == list(range(1, 61))
    assert lines[-1]["absent"] == lines[-1]["missing"] == []
    told = [line["round"] for line in lines if not line["absent"]]
    assert told == list(range(told[0], 61))
    assert 5 <= told[0] - 1 <= 40, "it goes on after a checkpoint"
    assert run.summary()["accuracy"]["mean"] > 0.7
    assert not list(tmp_path.iterdir())
