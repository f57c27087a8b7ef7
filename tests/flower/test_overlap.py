"""Exchanges of a relayed round that overlap, in nodes of this process that take seconds of a clock of their own."""

import random
from collections import Counter
from functools import partial

import pytest
from flwr.app import Error, Message
from nodes import Nodes
from tables import Later

from ross_flwr import PeerRelay, peer_app
from ross_flwr.flower import strategy
from ross_flwr.flower.grid import Post
from ross_flwr.flower.protocol import Call
from ross_flwr.flower.records import record_of, routes
from ross_flwr.flower.relay import Relay

SMALL = {"num_agents": 8, "attackers": 0, "validation_size": 10, "test_size": 10, "hidden": 4, "topology": "ring"}
DIRECTED = {"algorithm": "sgp", "mixing": "push", "batches_per_round": 4, "num_rounds": 4}
KINDS = {
    "ring": SMALL | {"num_rounds": 6},
    "several passes": SMALL | {"num_rounds": 3, "batches_per_round": 3},
    "directed": SMALL | DIRECTED | {"topology": "random-out", "topology_degree": 2},
    "changing": SMALL | DIRECTED | {"topology": "one-peer-exponential", "topology_every": 1},
}


class Timed(Later, Nodes):
    """Nodes that answer a training message `seconds(node, call)` after they get it, or fail: then that is negative.

    A message to a node may get lost on its way: then it is None.

    Attributes
    ----------
    told : dict
        When a node got each message, and the nodes whose mail was in it, by node and (pass, step).
    """

    def __init__(self, num_nodes, seconds):
        Later.__init__(self)
        Nodes.__init__(self, peer_app(), range(num_nodes))
        self.seconds, self.told, self.lifetimes, self.busy = seconds, {}, {}, set()

    def push_messages(self, messages):
        (message,) = messages
        node, number, seconds = message.metadata.dst_node_id, str(len(self.due)), 0.0
        if message.metadata.message_type.startswith("train"):
            call = Call.of(message.content)
            call = call.pass_number, call.step
            seconds = self.seconds(node, call)
            if seconds is None:
                return [""]
            assert node not in self.busy, "it does one thing at a time"
            assert call > max(self.told.setdefault(node, {}), default=(-1, 0)), "it has done that already"
            mail = {int(key.split(".")[0]) for key in message.content if key.endswith(".route")}
            self.told[node][call] = self.now, mail
            self.lifetimes[node, call] = message.metadata.ttl
        self.busy.add(node)
        message.metadata.__dict__["_message_id"] = number
        reply = self.answer(message) if seconds >= 0 else Message(Error(code=0, reason="broken"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = node
        self.due[number] = self.now + abs(seconds), reply
        return [number]

    def pull_messages(self, numbers):
        done = super().pull_messages(numbers)
        self.busy -= {reply.metadata.src_node_id for reply in done}
        return done


@pytest.fixture
def play(monkeypatch):
    """Run a relay over nodes that take these seconds; return it, the nodes, and the replies of every exchange."""

    def run(seconds, *, num_nodes=8, timeout=60.0, **options):
        nodes, relay, heard, exchange = Timed(num_nodes, seconds), PeerRelay(**options), {}, Relay.exchange

        def listen(way, messages):
            heard[way._call.pass_number, way._call.step] = replies = exchange(way, messages)
            return replies

        monkeypatch.setattr(Relay, "exchange", listen)
        monkeypatch.setattr(strategy, "Post", partial(Post, clock=nodes.clock, sleep=nodes.sleep))
        model = relay.assembly.task.model
        relay.start(nodes, record_of(model.named(model.initial)), options["num_rounds"], timeout)
        return relay, nodes, heard

    return run


def absences(relay):
    return Counter(agent for line in relay.history.lines for agent in line["absent"])


def test_a_node_goes_on_when_its_neighbours_have_replied_and_a_round_when_all_have(play):
    """On a ring of eight, agent 0 takes 10 s for the cross-gradients of round 2; all else takes 1 s.

    Nobody is ahead by more than an exchange.
    """
    relay, nodes, _ = play(lambda node, call: 10.0 if (node, call) == (0, (1, 1)) else 1.0, **KINDS["ring"])
    node = {agent: node for node, (agent,) in relay.placement.blocks.items()}
    began = min(nodes.told[k][1, 1][0] for k in range(8))
    descend, mix = ({k: nodes.told[node[k]][1, step][0] - began for k in range(8)} for step in (2, 3))
    assert node[0] == 0
    assert [descend[k] for k in (2, 3, 4, 5, 6)] == pytest.approx([1.0] * 5, abs=0.2)
    assert [descend[k] for k in (7, 0, 1)] == pytest.approx([10.0] * 3, abs=0.2)
    assert [mix[k] for k in range(8)] == pytest.approx([11.0] * 3 + [10.0] * 3 + [11.0] * 2, abs=0.3)


def test_an_agent_that_nearly_takes_the_timeout_costs_its_neighbours_nothing(play):
    relay, *_ = play(lambda node, call: 59.0 if node == 5 else 30.0, **SMALL | {"num_rounds": 25})
    assert absences(relay).keys() <= {relay.placement.blocks[5][0]}


def test_a_message_that_is_sent_ahead_lasts_until_its_exchange_could_begin_and_as_long_as_others(play):
    _, nodes, _ = play(lambda node, call: 1.0, **SMALL | {"num_rounds": 2})
    assert {lifetime for (_, call), lifetime in nodes.lifetimes.items() if call == (0, 1)} == {600 + 3 * 60}
    assert {lifetime for (_, call), lifetime in nodes.lifetimes.items() if call == (1, 1)} == {3 * 60}
    assert {lifetime for (_, call), lifetime in nodes.lifetimes.items() if call == (1, 2)} == {4 * 60}


@pytest.mark.parametrize("num_nodes", [8, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_messages_hold_the_mail_of_all_that_replied_in_time_whatever_happens(kind, num_nodes, play):
    """Nodes are slow, late, fail and cannot be reached, at random."""
    draw = random.Random(0)

    def seconds(node, call):
        taken = draw.choice([1.0, draw.uniform(1, 5), draw.uniform(1, 25)])
        return draw.choices([taken, -taken, None], [0.9, 0.07, 0.03])[0]

    relay, nodes, heard = play(seconds, num_nodes=num_nodes, timeout=10.0, **KINDS[kind])
    home, checked = relay.placement.home, 0
    for before, call in zip(heard, [*heard][1:], strict=False):
        senders = {node: set() for node in nodes.contexts}
        for reply in heard[before]:
            if "route" in reply.content:
                for _, destination, _ in routes(reply.content["route"]):
                    senders[home[destination]].add(reply.metadata.src_node_id)
        for node, calls in nodes.told.items():
            if call in calls:
                assert calls[call][1] == senders[node]
                checked += 1
    assert checked > 40
    assert relay.dropped.keys() >= {"late", "error", "unreachable"}
