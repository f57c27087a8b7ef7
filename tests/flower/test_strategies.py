"""What the strategies take, and what their start promises."""

import networkx as nx
import pytest
from nodes import Nodes

from ross_flwr import Algorithm, PeerDirect, PeerHybrid, PeerRelay, peer_app, step
from ross_flwr.algorithms import ALGORITHMS, register
from ross_flwr.algorithms.dpsgd import DPSGD
from ross_flwr.config import ConfigError
from ross_flwr.flower.hosting import HOSTS
from ross_flwr.flower.records import record_of
from ross_flwr.learning.rules import BALANCE, NNM, UBAR
from ross_flwr.runs.options import RunOptions

SMALL = {"num_agents": 4, "topology": "ring", "validation_size": 20, "test_size": 50, "hidden": 8}


def start(strategy, num_rounds, **arguments):
    model = strategy.assembly.task.model
    nodes = Nodes(peer_app(), (10, 11))
    return strategy.start(nodes, record_of(model.named(model.initial)), num_rounds, **arguments)


def test_the_rounds_of_start_are_what_the_nodes_are_told():
    relay = PeerRelay(algorithm="dpsgd", num_rounds=50, evaluate_every=10, **SMALL)
    start(relay, 2)
    hosted, *_ = reversed(HOSTS.held.values())
    assert {agent.total_passes for agent in hosted.host.agents.values()} == {2}
    assert hosted.config.part(RunOptions).num_rounds == 2
    assert [bool(line["accuracy"]) for line in relay.history.lines] == [False, True]


def test_a_run_ends_early_with_its_models_when_it_should_stop():
    asked = []

    def should_stop(number, result):
        asked.append((number, len(result.evaluate_metrics_clientapp)))
        return number == 2

    relay = PeerRelay(algorithm="dpsgd", **SMALL)
    result = start(relay, 5, should_stop=should_stop)
    assert asked == [(1, 1), (2, 2)]
    assert len(relay.history.lines) == 2
    assert sorted(relay.models) == [0, 1, 2, 3]
    assert list(result.train_metrics_clientapp) == [1, 2]


def test_an_algorithm_object_is_its_name_and_options_on_the_nodes():
    start(PeerRelay(algorithm=DPSGD(learning_rate=0.0625), **SMALL), 1)
    hosted, *_ = reversed(HOSTS.held.values())
    assert type(hosted.host.algorithm) is DPSGD
    assert hosted.host.algorithm.learning_rate == 0.0625
    start(PeerRelay(algorithm=DPSGD(rule=NNM(rule=BALANCE(similarity=0.75), byzantine=0)), **SMALL), 1)
    hosted, *_ = reversed(HOSTS.held.values())
    assert {agent.rule for agent in hosted.host.agents.values()} == {NNM(rule=BALANCE(similarity=0.75), byzantine=0)}
    assert (
        PeerRelay(algorithm=ALGORITHMS["ubar"](rule=UBAR(near_share=0.5)), **SMALL).config.values["near-share"] == 0.5
    )
    with pytest.raises(ConfigError, match="ubar mixes by UBAR: use dpsgd"):
        PeerRelay(algorithm=ALGORITHMS["ubar"](rule=BALANCE()), **SMALL)
    with pytest.raises(ConfigError, match="learning-rate is an option of the algorithm object: give it there alone"):
        PeerRelay(algorithm=DPSGD(), learning_rate=0.1)


def test_a_networkx_graph_is_the_topology_and_nodes_need_not_know_it():
    graph = nx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])
    options = {name: value for name, value in SMALL.items() if name not in ("num_agents", "topology")}
    relay = PeerRelay(algorithm="dpsgd", topology=graph, average_every=3, **options)
    start(relay, 3)
    edges = {f"{i}>{j}" for edge in graph.edges for i, j in (edge, edge[::-1])}
    assert [set(line["sent"]) == edges for line in relay.history.lines] == [True, True, False]
    assert [line["missing"] for line in relay.history.lines] == [[], [], []]
    assert len(relay.history.lines[2]["sent"]) == 12


@pytest.mark.parametrize(
    ("graph", "options", "sentence"),
    [
        (nx.path_graph(4), {"num_agents": 5}, "num-agents = 5 and a graph of 4 agents: leave one out"),
        (nx.Graph([(1, 2)]), {}, "expected the agents 0 to 1"),
        (nx.Graph([(0, 1), (2, 3)]), {}, "the graph does not connect all agents"),
        (nx.DiGraph([(0, 1), (1, 0)]), {}, "takes an undirected graph, and this one is directed: use mixing='push'"),
        (nx.path_graph(4), {"topology_every": 2}, "topology-every = 2 changes nothing"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(graph, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        PeerRelay(algorithm="dpsgd", topology=graph, **options)


def test_arguments_of_fedavg_are_refused_in_words_of_its_users():
    with pytest.raises(ConfigError, match="fraction_evaluate is an argument of FedAvg: leave it out"):
        PeerRelay(fraction_evaluate=0.5)
    with pytest.raises(ConfigError, match="did you mean num-nodes"):
        PeerRelay(min_available_nodes=2)


@pytest.mark.parametrize(
    ("strategy", "options", "sentence"),
    [
        (PeerRelay, {"algorithm": "fedavg"}, "algorithm = 'fedavg' is not known: it needs a server, .*'dpsgd'"),
        (PeerRelay, {"topology": "rign"}, "topology = 'rign' is not known: .*; did you mean 'ring'"),
        (PeerDirect, {"aggregator": "medain"}, "did you mean 'median'"),
        (PeerRelay, {"topology": "ring", "topology_every": 2}, "topology-every = 2 changes nothing"),
        (PeerRelay, {"attack": "sign", "attackers": 1}, "attack = 'sign' is not known"),
        (PeerHybrid, {}, "average-every = 0 has none: use average_every=10"),
        (PeerRelay, {"algorithm": DPSGD}, "algorithm is the class DPSGD: give its name"),
        (PeerRelay, {"topology": 3}, "topology is an int: give its name"),
        (PeerRelay, {"log": ["mlflow"], "results": "out"}, "log is a list: give names in one text"),
    ],
)
def test_what_no_number_of_nodes_makes_possible_is_refused_before_they_are_counted(strategy, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        strategy(**options)


def test_an_algorithm_that_is_not_registered_here_is_refused():
    class Mine(DPSGD):
        pass

    with pytest.raises(ConfigError, match=r"Mine is not registered: decorate it with @register\(name\)"):
        PeerRelay(algorithm=Mine())


def test_an_algorithm_that_the_nodes_do_not_know_is_told_before_the_first_round(monkeypatch):
    @register("known-here-only")
    class Here(Algorithm):
        @step()
        def rest(self, agent, inbox):
            return None

    relay = PeerRelay(algorithm=Here(), **SMALL)
    elsewhere = {name: cls for name, cls in ALGORITHMS.items() if cls is not Here}
    monkeypatch.setattr("ross_flwr.flower.hosting.ALGORITHMS", elsewhere)
    with pytest.raises(ConfigError, match="'known-here-only' is not known on the nodes: import the module"):
        start(relay, 1)


@pytest.mark.parametrize("strategy", [PeerRelay, PeerDirect, PeerHybrid])
def test_nobody_attacks_unless_it_is_said_and_no_other_transport_is_taken(strategy):
    made = strategy(average_every=5, **SMALL)
    assert not made.assembly.threats.attackers
    other = "relay" if strategy is PeerDirect else "direct"
    with pytest.raises(ConfigError, match=f"transport = '{other}' is another strategy: use PeerRelay for relay"):
        strategy(transport=other)


def test_a_model_at_the_server_app_in_every_round_takes_a_relay():
    with pytest.raises(ConfigError, match="evaluate_fn needs models at the ServerApp in every round: use PeerRelay"):
        start(PeerDirect(**SMALL), 1, evaluate_fn=lambda number, arrays: None)
