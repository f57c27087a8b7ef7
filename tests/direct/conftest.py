"""What nodes prove themselves by, and a node to call."""

from dataclasses import replace

import pytest
from peers import Net, channel_to, method

from ross_flwr.direct import certificates
from ross_flwr.direct.certificates import Credentials
from ross_flwr.peer.v1.peer_pb2_grpc import PeerExchangeStub


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    """What proves nodes n0 … n3, a stranger of the same deployment, and one of another, who takes ours for sound."""
    folder = tmp_path_factory.mktemp("certs")
    for deployment in ("ours", "theirs"):
        certificates.init(folder / deployment)
    names = {f"n{k}": "ours" for k in range(4)} | {"mallory": "ours", "outsider": "theirs"}
    read = {name: Credentials.read(certificates.issue(folder / where, name)) for name, where in names.items()}
    return {name: replace(credentials, authority=read["n0"].authority) for name, credentials in read.items()}


@pytest.fixture
def door(certs):
    """Node n0 of the ring, which hosts agent 0 and awaits exchange 0, and a way to call it as anybody."""
    net = Net(method("ross"), certs=certs)
    host = net.host([0])
    opened = []
    with net.join(0, host, patience=0.3) as node:

        def call_as(name):
            opened.append(channel_to("n0", net.nodes[0].address, certs[name]))
            return PeerExchangeStub(opened[-1])

        yield call_as, node.peer, net
        for channel in opened:
            channel.close()
