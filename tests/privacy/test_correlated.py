"""Noise that agents draw together: its covariance, and what it hides from whom."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ross_flwr.config import resolve
from ross_flwr.graph.mixing import MIXING_RULES
from ross_flwr.learning.requests import Gradient
from ross_flwr.privacy.correlated import RIDGE, joint, leaks, pairwise, sources, surviving
from ross_flwr.runs.assemble import assemble

SMALL = {"num-agents": 6, "num-rounds": 3, "topology": "ring", "attackers": 0, "hidden": 32, "dp-noise": 3.0}
KINDS = {"decor": ("pairwise", pairwise), "corn-dsgd": ("joint", joint)}


def test_on_a_ring_of_ten_the_known_optimum_survives():
    mixing = MIXING_RULES["metropolis"](nx.cycle_graph(10))
    assert surviving(mixing, np.eye(10)) == pytest.approx(10 / 3)
    assert surviving(mixing, joint(mixing)) == pytest.approx(2.327, abs=5e-4)
    values, vectors = np.linalg.eigh(mixing)
    shape = (vectors / np.abs(values)) @ vectors.T  # for equal agents it is |W|⁻¹, at the scale that the bound allows
    np.testing.assert_allclose(joint(mixing), shape * leaks(shape)[0], atol=3e-3)


@st.composite
def graphs(draw):
    size, seed = draw(st.integers(1, 14)), draw(st.integers(0, 999))
    tree = nx.random_labeled_tree(size, seed=seed)
    return nx.compose(tree, nx.erdos_renyi_graph(size, draw(st.sampled_from([0.0, 0.3, 0.7])), seed=seed))


@given(graph=graphs(), mix=st.sampled_from(["metropolis", "uniform", "lazy-metropolis"]))
@settings(max_examples=40, deadline=None)
def test_the_covariance_fulfils_the_kkt_conditions_and_never_lets_more_survive_than_decor(graph, mix):
    mixing = MIXING_RULES[mix](graph)
    best, other = joint(mixing), pairwise(mixing)
    cost = mixing.T @ mixing + RIDGE * np.eye(len(mixing))
    precision = np.linalg.inv(best)
    np.testing.assert_allclose(leaks(best), 1, atol=1e-8)  # feasible, and every bound is tight
    multipliers = np.linalg.solve(precision**2, cost.diagonal())  # M = Σ⁻¹ Λ Σ⁻¹ on the diagonal …
    assert multipliers.min() > 0
    np.testing.assert_allclose((precision * multipliers) @ precision, cost, atol=1e-7)  # … and everywhere
    assert leaks(other).max() == pytest.approx(1)
    assert np.trace(cost @ best) <= np.trace(cost @ other) * (1 + 1e-9)
    assert np.trace(cost @ other) <= np.trace(cost) * (1 + 1e-9)
    assert surviving(mixing, best) <= surviving(mixing, other) + 1e-3


@given(graph=graphs(), lost=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_noise_of_ones_own_in_place_of_what_a_pair_shares_hides_no_less(graph, lost):
    covariance = pairwise(MIXING_RULES["metropolis"](graph))
    apart = covariance.copy()
    for i, j in graph.edges:
        if lost.random() < 0.5:
            apart[i, j] = apart[j, i] = 0.0
    assert (leaks(apart) <= leaks(covariance) + 1e-9).all()
    together = joint(MIXING_RULES["metropolis"](graph))
    some = [i for i in graph if lost.random() < 0.5] or [0]  # those who have the seed of all already
    assert (leaks(together[np.ix_(some, some)]) <= 1 + 1e-7).all()
    assert (1 / together.diagonal() <= 1 + 1e-7).all()


@pytest.mark.parametrize("method", KINDS)
def test_what_agents_add_has_the_covariance_and_is_never_added_twice(method):
    parts = assemble(resolve(SMALL | {"algorithm": method}))
    kind, covariance_of = KINDS[method]
    covariance = covariance_of(parts.topology.mixing)
    agents = parts.agents()
    for agent in agents:
        agent.gradient_chain[0].begin(agent)

    def released(number):
        noise = []
        for agent in agents:
            request = Gradient(agent.objective, agent["model"], agent.batches.take(number), agent.stream, number)
            noise.append(agent.gradient_chain[0](torch.zeros_like(agent["model"]), agent, request))
        return torch.stack(noise).numpy() / (3.0 * 2 / agents[0].batches.size)

    first, second = released(0), released(1)
    spread = 6 * covariance.max() / first.shape[1] ** 0.5
    for noise in (first, second):
        np.testing.assert_allclose(noise @ noise.T / noise.shape[1], covariance, atol=spread)
    assert np.abs(first @ second.T).max() / first.shape[1] < spread
    assert (released(0) == first).all()  # it follows from the seed
    assert [sources(kind, parts.topology.mixing, i)[1] for i in range(6)] == pytest.approx(leaks(covariance).tolist())
