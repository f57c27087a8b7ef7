"""D-PSGD against its own equation, computed densely: X ← W X − η G(X)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratics import full_gradients, stack, team

from ross_flwr.algorithms.dpsgd import DPSGD
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology

GRAPHS = ["ring", "complete", "star", "random-regular", "erdos-renyi"]


def started(name, num_agents, learning_rate, *, alike=False, mixing="metropolis", seed=0):
    graph = topology.build(name, num_agents, degree=2, seed=seed, mixing=mixing)
    algorithm = DPSGD(learning_rate=learning_rate)
    return graph, Host("run", algorithm, team(graph, algorithm, alike=alike))


def run_round(host, round):
    host.activate(round, 0)
    host.activate(round, 1)
    host.end_pass()


@given(
    name=st.sampled_from(GRAPHS),
    num_agents=st.integers(3, 8),
    rate=st.floats(0, 0.9),
    mixing=st.sampled_from(sorted(topology.MIXING_RULES.keys() - {"push"})),  # D-PSGD refuses rows without sum 1
    seed=st.integers(0, 50),
)
@settings(max_examples=30)
def test_rounds_are_the_dense_equation(name, num_agents, rate, mixing, seed):
    graph, host = started(name, num_agents, rate, mixing=mixing, seed=seed)
    agents = list(host.agents.values())
    models, weights = stack(agents), torch.from_numpy(graph.mixing.copy())
    for round in range(3):
        run_round(host, round)
        models = weights @ models - rate * full_gradients(agents, models)
        torch.testing.assert_close(stack(agents), models, atol=1e-5, rtol=1e-5)


def test_on_a_complete_graph_from_equal_models_it_is_centralized_sgd():
    _, host = started("complete", 6, 0.3, alike=True)
    agents = list(host.agents.values())
    mean = stack(agents)[0]
    for round in range(10):
        run_round(host, round)
        mean = mean - 0.3 * full_gradients(agents, mean.expand(6, -1)).mean(0)
        torch.testing.assert_close(stack(agents).mean(0), mean, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", GRAPHS)
def test_an_agent_sends_its_model_once_to_each_neighbour_and_computes_one_gradient(name):
    graph, host = started(name, 8, 0.1)
    for round in range(2):
        run_round(host, round)
        for report in host.end_round(evaluate=False):
            assert report.sent == {j: {"model": 4 * 6} for j in graph.neighbors(report.agent)}
            assert (report.gradients, report.utilities, report.missing) == (1, 0, [])
