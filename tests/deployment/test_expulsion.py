"""A stolen node is expelled in the middle of a run: by the list that its neighbours read, and from the SuperLink."""

import re
import signal
import subprocess

import grpc
import pytest
from deployed import POSSIBLE, Deployment, until
from peers import channel_to

from ross_flwr.direct import certificates
from ross_flwr.direct.certificates import Credentials
from ross_flwr.peer.v1.peer_pb2 import Hello
from ross_flwr.peer.v1.peer_pb2_grpc import PeerExchangeStub

pytestmark = [pytest.mark.deployment, POSSIBLE]

KEYS = {"algorithm": "dpsgd", "beside": "", "num-nodes": 4, "num-agents": 4, "topology": "ring", "attackers": 0}
KEYS |= {"num-rounds": 200, "segment-rounds": 100, "evaluate-every": 50, "return-model": "none"}


@pytest.fixture
def deployment(tmp_path):
    deployment = Deployment(tmp_path, "shell")
    try:
        until(deployment.stands, "the deployment did not come up")
        yield deployment
    finally:
        deployment.stop()


def unregister(deployment, number):
    command = ["flwr", "supernode", "unregister", number, "here"]
    done = subprocess.run(command, env=deployment.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_expelled_node_takes_no_part_any_more_and_the_others_finish(deployment):
    """Agent 2 is expelled while agent 0 is held, so that the run waits for it."""
    nodes = deployment.nodes()
    run = deployment.run("expulsion", {**KEYS, "transport": "direct", "phase-timeout": 20.0})
    with channel_to(nodes[0].name, nodes[0].address, Credentials.read(nodes[1].certs)) as channel:

        def has_begun():
            try:
                return PeerExchangeStub(channel).Greet(Hello(), timeout=5).pass_number >= 3
            except grpc.RpcError:
                return False

        until(has_begun, "agent 0 did not begin")
    nodes[0].signal_app(signal.SIGSTOP)
    try:
        certificates.revoke(deployment.work / "certs", [nodes[2].name])
        _, _, number, _ = re.findall(r"SuperNode (\d+) registered", (deployment.work / "register.log").read_text())
        unregister(deployment, number)
    finally:
        nodes[0].signal_app(signal.SIGCONT)
    run.finish()
    lines = run.history()
    assert [line["round"] for line in lines] == list(range(1, 201))
    assert all(line["absent"] == [2] for line in lines), "it can tell the SuperLink nothing"
    assert sorted(lines[99]["missing"]) == sorted(lines[199]["missing"]) == [[1, 2], [3, 2]]
