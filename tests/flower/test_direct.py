"""Segments as the ServerApp orders them: nodes of one process, over sockets, beside the local engine."""

import itertools
import threading

import pytest
import torch
from addresses import free_addresses
from deployed import until
from flwr.app import ArrayRecord
from nodes import KilledError, Nodes, app_of, keys_beside

from ross_flwr import ConfigError, PeerDirect, PeerHybrid, PeerRelay, resolve
from ross_flwr.direct import certificates
from ross_flwr.flower import handlers, questions
from ross_flwr.flower.direct import Segments
from ross_flwr.flower.hosting import HOSTS
from ross_flwr.flower.records import tensors_of
from ross_flwr.runs.assemble import assemble
from ross_flwr.runs.local import LocalRun
from ross_flwr.runs.options import RunOptions

BASE = {"num_agents": 4, "num_rounds": 5, "topology": "ring", "validation_size": 20, "hidden": 8, "test_size": 50}
DIRECT = {"segment_rounds": 2, "return_model": "final", "phase_timeout": 20.0}


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    """The folders of nodes n0, n1, … with what they prove themselves by.

    Without, gRPC would let all nodes of this process call a node over one connection, as if they were one.
    """
    folder = tmp_path_factory.mktemp("certs")
    certificates.init(folder)
    return [certificates.issue(folder, f"n{k}") for k in range(6)]


def play(strategy, certs, *, app=None, **options):
    """Run a strategy over nodes that load what the options name, and the same in the local engine; return both."""
    options = BASE | {"attackers": 0} | options
    config = resolve({name.replace("_", "-"): value for name, value in options.items()})
    expected = LocalRun(config)
    lines = list(expected.rounds())
    addresses = free_addresses(config.part(RunOptions).num_agents)
    nodes = Nodes(
        app or app_of(config),
        range(config.part(RunOptions).num_agents),
        lambda k: {"peer-address": addresses[k], "peer-certs": str(certs[k])},
        together=True,
    )
    relay = strategy(**keys_beside(DIRECT | options))
    model = expected.assembly.task.model
    relay.start(nodes, ArrayRecord(model.named(model.initial)), config.part(RunOptions).num_rounds)
    return relay, expected, lines


def assert_equal_runs(relay, expected, lines):
    model = expected.assembly.task.model
    for index, agent in expected.host.agents.items():
        assert not torch.equal(agent["model"], model.initial)
        torch.testing.assert_close(model.flatten(tensors_of(relay.models[index])), agent["model"], rtol=0, atol=1e-4)
    for line, local_line in zip(relay.history.lines, lines, strict=True):
        for entry in ("round", "bytes", "gradients", "work", "sent", "missing", "absent"):
            assert line[entry] == local_line[entry]
        assert line["accuracy"] == pytest.approx(local_line["accuracy"], abs=1e-6)


PUSHING = {"algorithm": "sgp", "mixing": "push", "topology_degree": 2}


@pytest.mark.parametrize(
    "options",
    [
        PUSHING | {"topology": "random-out"},
        PUSHING | {"topology": "one-peer-exponential", "topology_every": 1},
        {"algorithm": "dpsgd", "topology": "random-matching", "topology_every": 2, "batches_per_round": 2},
        {"algorithm": "ross", "topology": "erdos-renyi", "topology_every": 1},
        {"algorithm": "ross", "compress": "model: bfloat16, momentum: choco(sign), gradient: topk(0.05)"},
        {"algorithm": "dpsgd", "topology": "erdos-renyi", "topology_every": 1, "compress": "choco(powersgd)"},
        {"algorithm": "pdsl", "dp_clip": 1.0, "dp_epsilon": 5.0},
    ],
    ids=[
        "directed",
        "directed, changing",
        "changing every other round",
        "ross, changing",
        "compressed",
        "compressed, changing",
        "private",
    ],
)
def test_directed_and_changing_graphs_compressed_messages_and_private_gradients_give_the_models_of_the_local_engine(
    options, certs
):
    assert_equal_runs(*play(PeerDirect, certs, **options))


def test_a_run_in_which_no_node_reaches_another_does_not_end_well(certs, monkeypatch):
    (closed,), usual = free_addresses(1), Segments._neighbors
    monkeypatch.setattr(
        Segments, "_neighbors", lambda *told: [(name, closed, agents) for name, _, agents in usual(*told)]
    )
    options = {"algorithm": "dpsgd", "num_rounds": 2, "phase_timeout": 0.3}
    with pytest.raises(ConfigError, match=r"no agent heard from a neighbour .* lost: unreachable \(\d+\): open"):
        play(PeerDirect, certs, **options)


def test_a_node_whose_process_is_another_in_every_segment_goes_on_from_its_state(certs, tmp_path):
    def forget(message, context, call_next):
        for setup in [setup for setup, held in HOSTS.held.items() if context.node_id in held.host.agents]:
            HOSTS.held.pop(setup, None)  # nodes forget in threads of their own
        return call_next(message, context)

    options = BASE | {"algorithm": "dmsgd", "attackers": 0}
    app = app_of(resolve({name.replace("_", "-"): value for name, value in options.items()}), [forget])
    for state_dir in ("", str(tmp_path)):
        assert_equal_runs(*play(PeerDirect, certs, app=app, **options, state_dir=state_dir, checkpoint_every=0))


def test_a_node_whose_process_dies_goes_on_in_the_round_that_it_had_saved(certs, tmp_path, monkeypatch):
    """Node 2 dies in the fifth round, and Flower says so; it is asked who it is, and told what it was told again.

    The others are in round 21 by then, and its neighbours go on once they hear from it there.
    """
    monkeypatch.setattr(questions, "LOOK_AGAIN", 0.1)
    begun, nodes, in_round_21 = [], {}, threading.Barrier(4)

    class Noting(handlers.Neighborhood):
        def __init__(self, host, neighbors, **settings):
            (self.agent,) = host.agents
            if self.agent in nodes:
                in_round_21.wait(30)
            nodes[self.agent] = self
            super().__init__(host, neighbors, **settings)

        def rounds(self, schedule, first, last):
            begun.append((self.agent, first))
            return super().rounds(schedule, first, last)

        def hears_node_2(self):
            standing = self.peer.progress.standings["n2"]
            return standing.state == "up" and standing.position >= 20

    monkeypatch.setattr(handlers, "Neighborhood", Noting)

    def mortal(context, module):
        index, paused = context.node_id, []

        def live(module, inputs):
            number, _ = nodes[index].host.ran[index]
            if index == 2 and number == 4 and begun.count((2, 5)) == 0:
                raise KilledError
            if index != 2 and number == 20 and not paused:
                paused.append(True)
                in_round_21.wait(30)
                if index != 0:
                    until(nodes[index].hears_node_2, "node 2 does not come back", 30)

        module.register_forward_pre_hook(live)
        return module

    options = BASE | {"algorithm": "dpsgd", "attackers": 0, "num_rounds": 60, "evaluate_every": 60}
    app = app_of(resolve({name.replace("_", "-"): value for name, value in options.items()}), module=mortal)
    settings = {"state_dir": str(tmp_path), "checkpoint_every": 1, "segment_rounds": 60}
    relay, _, lines = play(PeerDirect, certs, app=app, **options, **settings)
    assert sorted(begun[:4]) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert begun[4:] == [(2, 5)]
    assert relay.dropped["error"] == 1
    assert all(set(line["absent"]) <= {2} for line in relay.history.lines)
    for line in relay.history.lines[-3:]:
        assert (line["absent"], line["missing"]) == ([], [])
    assert relay.history.lines[-1]["loss"]["mean"] == pytest.approx(lines[-1]["loss"]["mean"], rel=0.2)


def test_a_node_that_stays_dead_is_not_waited_for_when_the_others_are_done(certs, caplog):
    """`start` would wait an hour for one that is late; of this one Flower says that it is dead."""

    def mortal(context, module):
        gradients = itertools.count(1)

        def die(module, inputs):
            if context.node_id == 2 and module.training and next(gradients) > 1:
                raise KilledError

        module.register_forward_pre_hook(die)
        return module

    options = BASE | {"algorithm": "dpsgd", "attackers": 0, "num_rounds": 4, "evaluate_every": 4}
    app = app_of(resolve({name.replace("_", "-"): value for name, value in options.items()}), module=mortal)
    relay, *_ = play(PeerDirect, certs, app=app, **options, segment_rounds=4)
    assert [line["absent"] for line in relay.history.lines] == [[2]] * 4
    warned = [record.getMessage() for record in caplog.records]
    assert [text for text in warned if "no report" in text] == ["\t├──> rounds 1–4: no report from 1 of 4 agents: [2]"]


AVERAGING = {"average_every": 2, "num_rounds": 4}
EDGES = {"ring": 8, "islands": 4, "directed-ring": 4}


MOMENTUM = {"topology": "ring", "algorithm": "dmsgd", "batches_per_round": 2}
ISLANDS = {"topology": "islands", "algorithm": "ross", "aggregator": "median", "byzantine": 0}
DIRECTED = {"topology": "directed-ring", "algorithm": "sgp", "mixing": "push"}


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (PeerRelay, ISLANDS),
        (PeerRelay, DIRECTED),
        (PeerDirect, MOMENTUM),
        (PeerDirect, DIRECTED),
        (PeerHybrid, MOMENTUM),
        (PeerHybrid, ISLANDS),
    ],
    ids=lambda value: value["topology"] if isinstance(value, dict) else value.__name__,
)
def test_rounds_that_average_over_all_agents_are_the_same_on_every_transport(strategy, options, certs):
    relay, expected, lines = play(strategy, certs, **AVERAGING, **options)
    assert_equal_runs(relay, expected, lines)
    assert [len(line["sent"]) for line in lines] == [EDGES[options["topology"]], 12] * 2


def test_on_islands_a_hybrid_run_tells_a_node_no_address_but_those_of_its_island(certs, monkeypatch):
    told = []

    class Noting(handlers.Neighborhood):
        def __init__(self, host, neighbors, **settings):
            told.append((*host.agents, *(agent for each in neighbors for agent in each.agents)))
            super().__init__(host, neighbors, **settings)

    monkeypatch.setattr(handlers, "Neighborhood", Noting)
    relay, *_ = play(PeerHybrid, certs, topology="islands", algorithm="dpsgd", **AVERAGING)
    assert sorted(set(told)) == [(0, 1), (1, 0), (2, 3), (3, 2)]
    assert [line["missing"] for line in relay.history.lines] == [[]] * 4


def test_how_slow_a_neighbour_may_be_is_a_key_of_the_run(certs, monkeypatch):
    slowest = set()

    class Noting(handlers.Neighborhood):
        def __init__(self, host, neighbors, **settings):
            super().__init__(host, neighbors, **settings)
            slowest.add(self.peer.progress._pace.slowest)

    monkeypatch.setattr(handlers, "Neighborhood", Noting)
    play(PeerDirect, certs, algorithm="dpsgd", num_rounds=1, slowest=5.0)
    assert slowest == {5.0}


def test_gossip_is_averaged_exactly_in_every_third_round():
    options = {"algorithm": "dpsgd", "average-every": 3, "num-rounds": 6, "num-agents": 6, "topology": "ring"}
    distances = []
    run = LocalRun(resolve(options | {"attackers": 0, "learning-rate": 0.0, "validation-size": 20}))
    for agent in run.host.agents.values():
        agent["model"] = agent["model"] + agent.index
    mean = torch.stack([agent["model"] for agent in run.host.agents.values()]).mean(0)
    for _ in run.rounds():
        models = torch.stack([agent["model"] for agent in run.host.agents.values()])
        distances.append(float((models - mean).norm()))
    assert [distance < 1e-4 for distance in distances] == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"average-every": 1}, "average-every = 1 leaves no round to the topology: use 2 or more"),
        ({"topology": "islands"}, "'islands' alone does not connect all agents: use average-every = 10, for one"),
        ({"topology": "random-matching"}, "'random-matching' alone does not connect all agents: use topology-every"),
        ({"algorithm": "d2", "mixing": "lazy-metropolis", "average-every": 5}, "d2 takes a graph that stays the same"),
        ({"algorithm": "cgsv-server", "topology": "star", "average-every": 5}, "cgsv-server takes a graph that stays"),
    ],
)
def test_what_cannot_be_averaged_is_told(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        assemble(resolve(options)).check()


def test_a_hybrid_without_rounds_of_averaging_is_refused():
    with pytest.raises(
        ConfigError, match="PeerHybrid relays the rounds of average-every, and average-every = 0 has none"
    ):
        PeerHybrid(num_agents=4)
