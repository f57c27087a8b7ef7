"""The paper's ROSS, recomputed by brute force, and its limits."""

from itertools import permutations
from math import exp

import numpy as np
import pytest
import torch
from quadratics import Quadratic, full_gradients, normal, run_round, stack, started
from torch import nn

from ross_flwr.algorithms.cross_gradient import CrossGradient
from ross_flwr.algorithms.ross import ROSS
from ross_flwr.graph import topology
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective

RATE = 0.2


def by_brute_force(agent, gradients):
    """Relu weights of the Shapley values of a step along the mean of a coalition, over all orders of the players."""
    phi = dict.fromkeys(gradients, 0.0)

    def worth(players):
        step = torch.stack([gradients[j] for j in players]).mean(0) if players else torch.zeros(6)
        return agent.objective.utility(agent["model"] - RATE * step, "loss", agent.validation)

    orders = list(permutations(gradients))
    for order in orders:
        for position, player in enumerate(order):
            phi[player] += (worth(order[: position + 1]) - worth(order[:position])) / len(orders)
    positive = {j: max(value, 0.0) for j, value in phi.items()}
    return {j: value / sum(positive.values()) for j, value in positive.items()}


def test_a_pass_is_the_papers_listing():
    graph = topology.build("ring", 5)
    host, agents = started(graph, ROSS(learning_rate=RATE, momentum=0.5))
    mixing, momentum = torch.from_numpy(graph.mixing.copy()), torch.zeros(5, 6, dtype=torch.float64)
    for number in range(3):
        weights = []
        for agent in agents:
            heard = sorted((agent.index, *agent.neighbors))
            gradients = {j: agent["model"] - agents[j].objective.examples.mean(0) for j in heard}
            weights.append(by_brute_force(agent, gradients))
            step = sum(weight * gradients[j].double() for j, weight in weights[-1].items())
            momentum[agent.index] = 0.5 * momentum[agent.index] + step
        models = mixing @ (stack(agents) - RATE * momentum)
        momentum = mixing @ momentum
        reports = run_round(host, number)
        torch.testing.assert_close(stack(agents), models, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(stack(agents, "momentum"), momentum, atol=1e-5, rtol=1e-5)
        for report in reports:
            assert report.weights == pytest.approx(weights[report.agent], abs=1e-5)
            assert (report.gradients, report.utilities) == (3, 8)
            assert report.sent == {
                j: {"model": 48, "gradient": 24, "momentum": 24} for j in agents[report.agent].neighbors
            }


def test_without_game_it_is_the_uniform_mean_of_cross_gradients():
    graph = topology.build("random-regular", 6, degree=3)
    one, mine = started(graph, ROSS(weighting="uniform", learning_rate=RATE))
    other, theirs = started(graph, CrossGradient(learning_rate=RATE))
    for number in range(3):
        run_round(one, number), run_round(other, number)
        torch.testing.assert_close(stack(mine), stack(theirs))


def test_on_a_complete_graph_with_uniform_weights_and_no_momentum_it_is_centralized_sgd():
    graph = topology.build("complete", 5)
    host, agents = started(graph, ROSS(weighting="uniform", momentum=0.0, learning_rate=RATE), alike=True)
    model = stack(agents)[0]
    for number in range(3):
        model = model - RATE * full_gradients(agents, model.expand(5, 6)).mean(0)
        run_round(host, number)
        torch.testing.assert_close(stack(agents), model.expand(5, 6), atol=1e-5, rtol=1e-5)


class Harmed(Quadratic):
    """Every step makes a model worse, so nobody contributes."""

    def utility(self, vector, kind, batch):
        return -float((vector - self.start).norm())


@pytest.mark.parametrize("fallback", ["self", "uniform", "skip"])
def test_when_nobody_contributes_the_fallback_decides(fallback):
    graph = topology.build("complete", 3)
    host, agents = started(
        graph, ROSS(fallback=fallback, learning_rate=RATE), objective=lambda i: Harmed(normal(i, 5, 6))
    )
    for agent in agents:
        agent.objective.start = agent["model"]
    expected = {"self": [{i: 1.0} for i in range(3)], "uniform": [dict.fromkeys(range(3), 1 / 3)] * 3, "skip": [{}] * 3}
    assert [report.weights for report in run_round(host, 0)] == expected[fallback]


def test_an_equal_accuracy_is_decided_by_the_loss_and_another_is_not():
    inputs, targets = torch.eye(4), torch.tensor([0, 1, 2, 3])

    class Rows:
        def __len__(self):
            return 4

        def batch(self, indices):
            return Batch(inputs[indices], targets[indices])

    objective = ModuleObjective(FlatModel(nn.Linear(4, 4, bias=False)), Rows(), Rows(), Rows())
    sure, unsure = (torch.eye(4).flatten() * scale for scale in (10.0, 1.0))
    three_right = torch.eye(4).mul(100.0)
    three_right[3] = torch.tensor([0.0, 0.0, 0.0, -1.0])
    worth = [
        objective.utility(vector, "accuracy-then-loss", objective.validation)
        for vector in (sure, unsure, three_right.flatten())
    ]
    losses = [-objective.utility(vector, "loss", objective.validation) for vector in (sure, unsure)]
    np.testing.assert_allclose(worth[:2], [1 + exp(-loss) / 4 for loss in losses], rtol=1e-6)
    assert worth[0] > worth[1] > 1 >= worth[2]
