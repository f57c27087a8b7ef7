"""Bristle: its weights by class, against the listing; who is looked at; what travels and what stays."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quadratics import normal, objective_of, run_round, started

from ross_flwr.algorithms.bristle import Bristle
from ross_flwr.config import ConfigError, resolve
from ross_flwr.graph import topology
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.examples import Batch
from ross_flwr.runs.local import LocalRun

CLASSES, INPUTS = 4, 3
LAYER = CLASSES * (INPUTS + 1)


class Scored:
    """An objective that is asked for F1 scores alone: a table, looked up by a model's first number."""

    num_examples = 1
    output_layer = slice(1, 1 + LAYER)

    def __init__(self, table):
        self.table = table

    validation = Batch(torch.zeros(1), torch.zeros(1))

    def outputs(self, vector, batch):
        return torch.tensor(self.table[int(vector[1])])


@pytest.fixture(autouse=True, scope="module")
def outputs_are_scores():
    """An objective here gives scores as its outputs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ross_flwr.algorithms.bristle.f1_scores", lambda outputs, targets: outputs)
        yield


def judge(table, num_neighbors):
    agent = Agent(0, Scored(table), dict.fromkeys(range(num_neighbors + 1), 1 / (num_neighbors + 1)), 0, 1)
    agent["model"] = normal(0, LAYER + 2)
    return agent


def layer_of(agent):
    """Agent's output layer, which is known by its first number."""
    layer = normal(agent, LAYER)
    layer[0] = agent
    return layer


def listing(own, others, table):
    """The rule in scalars, class by class."""

    def trust(score):
        return max(0.0, 10 / (1 + math.exp(-score / 100)) - 4)

    layers = {j: np.concatenate([x[: CLASSES * INPUTS].reshape(CLASSES, INPUTS), x[CLASSES * INPUTS :, None]], 1)
              for j, x in {0: own, **others}.items()}  # fmt: skip
    sums, totals = layers[0].copy(), np.ones(CLASSES)
    for j in others:
        known = [c for c in range(CLASSES) if table[j][c] > 2 / (CLASSES + 1)]
        if not known:
            continue
        scores = {}
        for c in known:
            d = 10 * abs(table[0][c] - table[j][c])
            scores[c] = d ** (3 + table[0][c]) if table[j][c] > table[0][c] else -(d ** (4 + table[0][c]))
        best = [table[j][c] for c in known]
        certainty = max(0.0, np.mean(best) - np.std(best))
        for c in range(CLASSES):
            weight = 0.0
            if c in known:
                weight = certainty * trust(max(-100, scores[c]))
            elif math.isnan(table[j][c]):
                weight = certainty * trust(sum(scores.values()))
            sums[c] += weight * layers[j][c]
            totals[c] += weight
    mixed = sums / totals[:, None]
    return np.concatenate([mixed[:, :INPUTS].ravel(), mixed[:, INPUTS]])


@given(
    scores=st.lists(st.lists(st.floats(0, 1), min_size=CLASSES, max_size=CLASSES), min_size=1, max_size=6),
    foreign=st.sets(st.integers(0, CLASSES - 1)),
)
def test_layers_are_mixed_by_what_each_is_worth_in_each_class(scores, foreign):
    table = [[math.nan if c in foreign else round(score, 3) for c, score in enumerate(row)] for row in scores]
    others = {j: layer_of(j) for j in range(1, len(table))}
    own = layer_of(0)
    result = Bristle().combine(judge(table, len(others)), own, others)
    expected = listing(own.double().numpy(), {j: x.double().numpy() for j, x in others.items()}, table)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-4, rtol=1e-4)


def test_who_always_answers_one_class_gets_no_weight_and_a_master_of_another_gets_most_there():
    always = [2 / (CLASSES + 1), 0.0, 0.0, 0.0]
    table = [[0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.9, 0.0], always]
    others = {1: layer_of(1), 2: torch.full((LAYER,), 1e30).index_fill(0, torch.tensor([0]), 2.0)}
    own = layer_of(0)
    result = Bristle().combine(judge(table, 2), own, others)
    rows = result[: CLASSES * INPUTS].view(CLASSES, INPUTS)
    torch.testing.assert_close(rows[[0, 1, 3]], own[: CLASSES * INPUTS].view(CLASSES, INPUTS)[[0, 1, 3]])
    part = (rows[2] - own.view(-1)[6:9]) / (others[1][6:9] - own[6:9])
    assert (part > 0.5).all()


def test_of_many_neighbours_some_are_looked_at_mostly_near_ones():
    agent = judge([], 30)
    own, others = torch.zeros(LAYER), {j: torch.full((LAYER,), float(j)) for j in range(1, 31)}
    counts = np.zeros(3)
    for agent.pass_number in range(50):
        chosen = Bristle().chosen(agent, own, others)
        assert len(set(chosen)) == len(chosen)
        counts += [sum(low < j <= low + 10 for j in chosen) for low in (0, 10, 20)]
    assert (counts / 50).tolist() == [4, 5, 2]
    few = {j: others[j] for j in range(1, 11)}
    assert Bristle().chosen(agent, own, few) == list(few)


def test_only_the_output_layer_travels_and_changes():
    graph = topology.build("random-regular", 8, degree=4)
    algorithm = Bristle(learning_rate=0.1)
    host, agents = started(graph, algorithm)
    before = [agent["model"] for agent in agents]
    for report in run_round(host, 0):
        assert report.sent == {j: {"model": 4 * 4} for j in graph.neighbors(report.agent)}
        assert (report.gradients, report.utilities, report.missing) == (1, 1 + 4, [])
    for agent, model in zip(agents, before, strict=True):
        assert torch.equal(agent["model"][:-4], model[:-4])
        assert not torch.equal(agent["model"][-4:], model[-4:])


def test_alone_and_among_useless_neighbours_an_agent_learns_by_itself():
    own = layer_of(0)
    nothing = [0.0] * CLASSES
    assert torch.equal(Bristle().combine(judge([nothing], 0), own, {}), own)
    others = {1: layer_of(1), 2: layer_of(2)}
    assert torch.equal(Bristle().combine(judge([[0.5] * CLASSES, nothing, nothing], 2), own, others), own)


def test_models_whose_output_layer_is_unknown_are_refused_before_the_run():
    agent = Agent(0, objective_of(0), {0: 1.0}, 0, 1)
    Bristle().start(agent)
    run = LocalRun(resolve({"algorithm": "dpsgd"}))
    model = run.assembly.task.model
    assert model.output_layer == slice(model.size - 65 * 10, model.size)
    model.parameters = model.parameters[:-1]
    with pytest.raises(ConfigError, match=r"shapes \[\(64,\), \(10, 64\)\]: expected those of an output layer"):
        Bristle().start(run.host.agents[0])
