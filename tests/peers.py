"""Nodes of one process that talk to each other, and callers of their ports, for tests."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import torch
from addresses import free_addresses
from quadratics import team

from ross_flwr import resolve
from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.channels import OPTIONS, Neighbor
from ross_flwr.direct.neighborhood import Neighborhood
from ross_flwr.direct.wire import layouts
from ross_flwr.engine import rounds as local
from ross_flwr.engine.host import Host
from ross_flwr.engine.rounds import Schedule
from ross_flwr.graph import topology
from ross_flwr.peer.v1.peer_pb2 import Chunk, Header

RING = topology.build("ring", 4)


def channel_to(name: str, address: str, credentials: Credentials) -> grpc.Channel:
    """Return a channel to the node `name` at `address`, for somebody with these credentials."""
    identity = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
    return grpc.secure_channel(address, identity, [*OPTIONS, ("grpc.ssl_target_name_override", f"{name}.ross-flwr")])


def method(name, **options):
    return resolve({key.replace("_", "-"): value for key, value in options.items()}).part(ALGORITHMS[name])


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

    def join(self, k, host, patience=10.0, **changes):
        near = {j for i in self.blocks[k] for j in (*self.graph.neighbors(i), *self.graph.receivers(i))}
        near -= set(self.blocks[k])
        settings = {
            "address": self.nodes[k].address,
            "topology": self.graph.digest,
            "layout": "layout",
            "passes": 1000,
            "patience": patience,
            "credentials": self.certs[f"n{k}"] if self.certs else None,
        }
        return Neighborhood(host, [node for node in self.nodes if near & set(node.agents)], **{**settings, **changes})

    def run(self, rounds, play=None, **settings):
        """Run all nodes side by side; return their hosts and, by node, their rounds."""
        hosts = [self.host(block) for block in self.blocks]

        def run_node(k):
            if play and k in play:
                return play[k](hosts[k])
            with self.join(k, hosts[k], **settings) as node:
                return list(node.rounds(Schedule(rounds), 1, rounds))

        with ThreadPoolExecutor(len(hosts)) as pool:
            return hosts, list(pool.map(run_node, range(len(hosts))))

    def locally(self, rounds):
        host = self.host(range(self.graph.num_agents))
        return host, list(local.rounds(host, Schedule(rounds), 1, rounds))


def letter(data=None, *, source=1, **changes):
    """The chunks of an envelope from agent `source` to agent 0, which fits unless something is changed."""
    model = torch.ones(6)
    header = {"run": "run", "pass_number": 0, "step": 0, "source": source, "destination": 0}
    header["tensors"] = layouts({"model": model})
    raw = model.numpy().tobytes() if data is None else data
    return [Chunk(header=Header(**{**header, **changes}), data=raw)]


def deliver(stub, stream):
    """Deliver one envelope, and return why it or the call was refused, or an empty string."""
    try:
        refusals = list(stub.Deliver(iter(stream), timeout=30))
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
            raise
        return error.details()
    assert len(refusals) <= 1
    return refusals[0].reason if refusals else ""
