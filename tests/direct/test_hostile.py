"""One node of a ring is hostile: it lies about where it is, poisons what others fetch, or keeps them waiting."""

import asyncio
import threading
import time
from dataclasses import replace
from functools import partial

import torch
from peers import Net, method
from quadratics import objective_of

from ross_flwr.direct.agreement import Agreement
from ross_flwr.direct.server import Server
from ross_flwr.direct.wire import chunks, layouts
from ross_flwr.engine.rounds import Schedule
from ross_flwr.graph import topology
from ross_flwr.learning.rules import Median
from ross_flwr.peer.v1.peer_pb2 import Header

LIAR = 1


def ring(nodes, **settings):
    algorithm = replace(method("dpsgd", learning_rate=0.1), rule=Median())
    return Net(algorithm, tuple((k,) for k in range(nodes)), graph=topology.build("ring", nodes), **settings)


class Boastful(Agreement):
    """Says that it is far ahead, and farther each time."""

    said = 0

    def hello(self, exchange):
        type(self).said += 1
        return super().hello(exchange + 100 + self.said)


def test_who_claims_to_be_far_ahead_and_poisons_what_is_fetched_moves_nobody(monkeypatch):
    """It takes part for ten rounds, and then only makes claims. Everybody goes on without it, as if it were away."""
    net, over, honest = ring(6), threading.Barrier(6), Server.fetch

    async def fetch(self, request, context):
        if isinstance(self.agreement, Boastful):
            model = {"model": torch.full((6,), 100.0)}
            for chunk in chunks(Header(run="run", source=LIAR, tensors=layouts(model)), model.values()):
                await context.write(chunk)
        else:
            await honest(self, request, context)

    def lie(host):
        with net.join(LIAR, host) as node:
            for round in node.rounds(Schedule(60), 1, 60):
                if round.number == 10:
                    break
            node.peer.server.agreement = Boastful(**vars(node.peer.server.agreement))
            over.wait(60)
        return []

    def run(k, host):
        with net.join(k, host, 1.0) as node:
            rounds = list(node.rounds(Schedule(60), 1, 60))
            over.wait(60)
        return rounds

    monkeypatch.setattr(Server, "fetch", fetch)
    play = {k: partial(run, k) for k in range(6)} | {LIAR: lie}
    hosts, reports = net.run(60, play=play)
    expected, _ = ring(6, absent=lambda agent, t: agent == LIAR and t >= 10).locally(60)
    for k in {*range(6)} - {LIAR}:
        assert [round.number for round in reports[k]] == list(range(1, 61))
        torch.testing.assert_close(hosts[k].agents[k]["model"], expected.agents[k]["model"], rtol=0, atol=1e-6)


def test_who_never_reads_what_it_is_sent_slows_nobody_down_for_long(monkeypatch):
    """One model is more than gRPC buffers, so all that follow wait at the sender."""
    patience, deliver = 0.5, Server.deliver
    net = ring(3, objective=lambda agent: objective_of(agent, 300_000))
    over = threading.Barrier(3)

    async def ignore(self, pieces, context):
        if self is liars[0]:
            await asyncio.sleep(60)
        else:
            await deliver(self, pieces, context)

    def lie(host):
        with net.join(LIAR, host, patience) as node:
            liars.append(node.peer.server)
            over.wait(60)
            over.wait(60)
        return []

    def run(k, host):
        over.wait(60)
        with net.join(k, host, patience) as node:
            rounds = list(node.rounds(Schedule(40), 1, 40))
            over.wait(60)
        return rounds

    liars = []
    monkeypatch.setattr(Server, "deliver", ignore)
    hosts, reports = net.run(40, play={0: partial(run, 0), 2: partial(run, 2), LIAR: lie})
    for k in (0, 2):
        assert sum(round.seconds >= patience for round in reports[k]) < 24, "most rounds take the patience"
    assert hosts[0].dropped["unsent"] > 0
    next_segment = net.host([0])
    next_segment.restore(*hosts[0].snapshot())
    with net.join(0, next_segment, patience) as node:
        assert node.peer.progress.room("n1", time.monotonic()) < patience, "what is spent stays spent"
