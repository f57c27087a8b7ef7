"""Stochastic gradient push on directed graphs."""

import numpy as np
import pytest
import torch
from quadratics import full_gradients, objective_of, run_round, stack, started

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.algorithms.local_dsgd import LocalDSGD
from ross_flwr.algorithms.sgp import SGP
from ross_flwr.config import ConfigError, resolve
from ross_flwr.graph import topology
from ross_flwr.runs.assemble import assemble

N = 8
DIRECTED = ["directed-ring", "directed-exponential", "random-out"]


def graph(name, mixing="push"):
    return topology.build(name, N, degree=2, mixing=mixing, seed=3)


@pytest.mark.parametrize("name", [*DIRECTED, "star", "random-regular"])
def test_five_rounds_are_the_listing_in_matrices(name):
    learning_rate = 0.05
    host, agents = started(graph(name), SGP(learning_rate=learning_rate))
    P, Z = torch.from_numpy(graph(name).mixing), stack(agents)
    X, w = Z.clone(), torch.ones(N, 1, dtype=torch.float64)
    for round in range(5):
        run_round(host, round)
        X, w = P @ (X - learning_rate * full_gradients(agents, Z)), P @ w
        Z = X / w
        assert torch.allclose(stack(agents), Z, rtol=0, atol=1e-5)
        assert torch.allclose(stack(agents, "push_weight"), w, rtol=0, atol=1e-6)


def test_push_weights_always_sum_to_the_number_of_agents_and_differ_where_rows_do_not_sum_to_one():
    host, agents = started(graph("random-out"), SGP())
    for round in range(30):
        run_round(host, round)
        assert float(stack(agents, "push_weight").sum()) == pytest.approx(N, abs=1e-4)
    assert float(stack(agents, "push_weight").std()) > 0.1


@pytest.mark.parametrize("name", DIRECTED)
def test_without_gradients_all_agree_on_the_mean_where_plain_gossip_does_not(name):
    host, agents = started(graph(name), SGP(learning_rate=0.0))
    mean = stack(agents).mean(0)
    plain = torch.from_numpy(np.linalg.matrix_power(graph(name).mixing, 400)) @ stack(agents)
    for round in range(400):
        run_round(host, round)
    assert torch.allclose(stack(agents), mean.expand(N, -1), rtol=0, atol=1e-4)
    balanced = np.allclose(graph(name).mixing.sum(axis=1), 1)
    assert torch.allclose(plain, mean.expand(N, -1), rtol=0, atol=1e-4) == balanced


def test_with_a_doubly_stochastic_matrix_it_is_dpsgd_that_steps_before_it_mixes():
    undirected = graph("random-regular", mixing="metropolis")
    push, agents = started(undirected, SGP(), batch_size=2)
    plain, others = started(undirected, LocalDSGD(local_steps=1), batch_size=2)
    for round in range(5):
        run_round(push, round)
        run_round(plain, round)
    assert torch.allclose(stack(agents), stack(others), rtol=0, atol=1e-5)
    assert torch.allclose(stack(agents, "push_weight"), torch.ones(N, 1, dtype=torch.float64))


def test_a_smaller_step_comes_nearer_to_the_optimum_though_the_graph_is_not_balanced():
    def error(learning_rate, rounds):
        host, agents = started(graph("random-out"), SGP(learning_rate=learning_rate))
        for round in range(rounds):
            run_round(host, round)
        optimum = torch.stack([objective_of(i).examples.double().mean(0) for i in range(N)]).mean(0)
        return float((stack(agents) - optimum).norm(dim=1).max())

    assert error(0.1, 300) > 0.5
    assert error(0.01, 1500) < 0.15


@pytest.mark.parametrize("name", DIRECTED)
def test_a_round_costs_what_the_docstring_says(name):
    host, agents = started(graph(name), SGP())
    for number in range(2):
        host.activate(0, number)
    size = agents[0]["model"].nbytes
    for report in host.end_round(evaluate=False):
        assert report.gradients == 1
        assert report.sent == {j: {"model": size, "push_weight": 4} for j in graph(name).receivers(report.agent)}


def test_a_lost_message_takes_weight_and_model_alike():
    host, agents = started(graph("directed-ring"), SGP(learning_rate=0.0))
    for agent in agents:
        agent["model"] = torch.full_like(agent["model"], 5.0)
    for round in range(3):
        host.activate(round, 0)
        del host.mailroom.waiting[4][3]
        host.activate(round, 1)
    assert torch.allclose(stack(agents), torch.full((N, 6), 5.0, dtype=torch.float64))
    assert float(stack(agents, "push_weight").sum()) < N - 0.5


def refusal(**options):
    with pytest.raises(ConfigError) as error:
        assemble(resolve({key.replace("_", "-"): value for key, value in options.items()})).check()
    return str(error.value)


def test_a_directed_graph_asks_for_push_and_push_for_a_method_that_can():
    said = refusal(algorithm="sgp", topology="directed-ring")
    assert "mixing = 'metropolis'" in said
    assert "use mixing = 'push'" in said
    said = refusal(algorithm="dpsgd", topology="random-out", mixing="push")
    assert "sum to 1" in said
    assert "use algorithm = 'sgp'" in said
    assemble(resolve({"algorithm": "dpsgd", "topology": "directed-ring", "mixing": "push"})).check()


@pytest.mark.parametrize("name", ["ross", "cga", "ngc", "cross-gradient", "cgsv"])
def test_cross_gradients_need_a_way_back(name):
    assert "undirected" in refusal(algorithm=name, topology="directed-exponential", mixing="push")


def test_sgp_refuses_a_matrix_that_loses_mass():
    with pytest.raises(ConfigError, match="columns sum to 1"):
        ALGORITHMS["sgp"]().check(np.array([[0.5, 0.5], [0.2, 0.8]]), 60)
