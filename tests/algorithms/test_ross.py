"""ROSS: cross-gradients, the game over them, momentum and mixing, recomputed densely and by brute force."""

from itertools import permutations

import pytest
import torch
from quadratics import Quadratic, full_gradients, normal, objective_of, stack, team
from torch import nn

from ross_flwr import topology
from ross_flwr.algorithms import create
from ross_flwr.config import resolve
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import Batch, ModuleObjective
from ross_flwr.run import LocalRun
from ross_flwr.transport.host import Host


def ross(**options):
    return create("ross", resolve({name.replace("_", "-"): value for name, value in options.items()}).options)


def started(graph, algorithm, **settings):
    agents = team(graph, algorithm, **settings)
    return Host("run", algorithm, agents), agents


def run_round(host, round):
    for number in range(len(host.algorithm.steps)):
        host.activate(round, number)
    host.end_pass()
    return host.end_round(evaluate=False)


class Rows:
    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.targets)

    def batch(self, indices):
        return Batch(self.inputs[indices], self.targets[indices])


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def classes_of(agent, count=16):
    generator = torch.Generator().manual_seed(agent)
    return Rows(torch.randn(count, 6, generator=generator) + agent, torch.randint(3, (count,), generator=generator))


def gradient_of(module, rows):
    loss = nn.functional.cross_entropy(module(rows.inputs), rows.targets)
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(module.parameters()))])


def test_uniform_weights_without_momentum_on_a_complete_graph_are_centralized_sgd_on_the_union_batch():
    graph = topology.build("complete", 4)
    algorithm = ross(weighting="uniform", momentum=0.0, learning_rate=0.2)
    flat, rows, agents = FlatModel(perceptron()), [classes_of(i) for i in range(4)], []
    for i in range(4):
        agent = Agent(i, ModuleObjective(flat, rows[i], rows[i], rows[i]), graph.mixing_row(i), 0, batch_size=16)
        agent["model"] = flat.initial.clone()
        algorithm.start(agent)
        agents.append(agent)
    host = Host("run", algorithm, agents)
    union = Rows(torch.cat([each.inputs for each in rows]), torch.cat([each.targets for each in rows]))
    central = perceptron()
    for round in range(10):
        run_round(host, round)
        step = 0.2 * gradient_of(central, union)
        with torch.no_grad():
            vector = nn.utils.parameters_to_vector(central.parameters()) - step
            nn.utils.vector_to_parameters(vector, central.parameters())
        for agent in agents:
            torch.testing.assert_close(agent["model"], vector, atol=1e-6, rtol=0)
    assert (vector - flat.initial).abs().max() > 0.1


def test_a_cross_gradient_is_the_gradient_of_the_senders_loss_at_the_receivers_model():
    graph = topology.build("ring", 5)
    algorithm = ross()
    rows = [classes_of(i) for i in range(5)]
    hosts = []
    for i in range(5):
        flat = FlatModel(perceptron())
        agent = Agent(i, ModuleObjective(flat, rows[i], rows[i], rows[i]), graph.mixing_row(i), 0, batch_size=16)
        agent["model"] = flat.initial + normal(i, flat.size)
        algorithm.start(agent)
        hosts.append(Host("run", algorithm, [agent]))
    models = [host.agents[i]["model"].clone() for i, host in enumerate(hosts)]
    shared = [envelope for host in hosts for envelope in host.activate(0, 0)]
    answers = [
        envelope
        for i, host in enumerate(hosts)
        for envelope in host.activate(0, 1, [each for each in shared if each.destination == i])
    ]
    assert {(each.source, each.destination) for each in answers} == set(graph.graph.to_directed().edges)
    for answer in answers:
        module = perceptron()
        nn.utils.vector_to_parameters(models[answer.destination], module.parameters())
        expected = gradient_of(module, rows[answer.source])
        torch.testing.assert_close(answer.tensors["gradient"], expected, atol=1e-6, rtol=1e-5)


COSTS = {
    "ring": (topology.build("ring", 7), 8),
    "4-regular": (topology.build("random-regular", 8, degree=4), 32),
    "complete of 3": (topology.build("complete", 3), 8),
}


@pytest.mark.parametrize("name", COSTS)
def test_a_round_costs_what_the_paper_says(name):
    graph, utilities = COSTS[name]
    host, _ = started(graph, ross())
    for round in range(3):
        for report in run_round(host, round):
            degree = graph.graph.degree[report.agent]
            assert report.utilities == utilities
            assert report.gradients == 1 + degree
            assert set(report.sent) == set(graph.neighbors(report.agent))
            assert sum(sum(kinds.values()) for kinds in report.sent.values()) == 4 * degree * 6 * 4  # 4 k P b


def shapley_by_brute_force(model, gradients, rate, utility):
    """φ of each gradient, by the mean over all orders of what each adds to those before it."""
    players = list(gradients)
    phi = dict.fromkeys(players, 0.0)
    orders = list(permutations(players))
    for order in orders:
        before = utility(model)
        for count in range(1, len(order) + 1):
            mean = sum(gradients[j] for j in order[:count]) / count
            value = utility(model - rate * mean)
            phi[order[count - 1]] += (value - before) / len(orders)
            before = value
    return phi


@pytest.mark.parametrize("name", ["ring", "complete"])
def test_weights_are_the_positive_part_of_the_shapley_values(name):
    graph, rate = topology.build(name, 5), 0.4
    host, agents = started(graph, ross(weighting="relu", learning_rate=rate, momentum=0.0))
    models = stack(agents)
    dropped = 0
    for report in run_round(host, 0):
        i = report.agent
        members = [i, *graph.neighbors(i)]
        means = {j: agents[j].objective.examples.double().mean(0) for j in members}
        phi = shapley_by_brute_force(
            models[i], {j: models[i] - means[j] for j in members}, rate, lambda x: -0.5 * float(x.square().sum())
        )
        total = sum(max(value, 0.0) for value in phi.values())
        expected = {j: max(value, 0.0) / total for j, value in phi.items()}
        assert report.weights == pytest.approx(expected, abs=1e-4)
        dropped += sum(value < 0 for value in phi.values())
    assert dropped > 0


@pytest.mark.parametrize("mixed", [True, False])
def test_momentum_is_mixed_along_with_the_model_or_stays_with_its_agent(mixed):
    graph = topology.build("ring", 5)
    host, agents = started(graph, ross(weighting="uniform", momentum=0.5, learning_rate=0.3, mix_momentum=mixed))
    weights = torch.from_numpy(graph.mixing.copy())
    uniform = (weights > 0).double() / 3
    models, momenta = stack(agents), torch.zeros(5, 6).double()
    means = models - full_gradients(agents, models)
    for round in range(4):
        run_round(host, round)
        directions = models - uniform @ means  # uniform mean of G[i, j] = x_i − mean_j over the neighbourhood
        momenta = 0.5 * momenta + directions
        models = weights @ (models - 0.3 * momenta)
        momenta = weights @ momenta if mixed else momenta
        torch.testing.assert_close(stack(agents), models, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(stack(agents, "momentum"), momenta, atol=1e-5, rtol=1e-5)


class Indifferent(Quadratic):
    """Every model is worth the same, so no contribution is positive."""

    def utility(self, vector, kind):
        return 1.0


FALLBACKS = {"self": lambda graph: torch.eye(5), "uniform": lambda graph: (graph > 0) / 3, "skip": torch.zeros_like}


@pytest.mark.parametrize("fallback", FALLBACKS)
def test_the_fallback_decides_when_no_contribution_is_positive(fallback):
    graph = topology.build("ring", 5)
    host, agents = started(
        graph,
        ross(fallback=fallback, momentum=0.0, learning_rate=0.3),
        objective=lambda i: Indifferent(objective_of(i).examples),
    )
    weights = torch.from_numpy(graph.mixing.copy())
    expected = FALLBACKS[fallback](weights).double()
    models = stack(agents)
    means = models - full_gradients(agents, models)
    directions = expected.sum(1, keepdim=True) * models - expected @ means
    reports = run_round(host, 0)
    torch.testing.assert_close(stack(agents), weights @ (models - 0.3 * directions), atol=1e-5, rtol=1e-5)
    for report in reports:
        row = {j: float(expected[report.agent, j]) for j in [report.agent, *graph.neighbors(report.agent)]}
        assert report.weights == pytest.approx(row)


@pytest.mark.parametrize("weighting", ["relu", "minmax", "softmax", "uniform"])
def test_weights_over_the_closed_neighbourhood_are_recorded(weighting):
    graph = topology.build("ring", 5)
    host, _ = started(graph, ross(weighting=weighting))
    for report in run_round(host, 0):
        assert set(report.weights) == {report.agent, *graph.neighbors(report.agent)}
        assert min(report.weights.values()) >= 0
        assert sum(report.weights.values()) == pytest.approx(1)


POISONED = {
    "algorithm": "ross",
    "num-agents": 6,
    "topology-degree": 3,
    "partition": "iid",
    "validation-size": 50,
    "hidden": 16,
    "num-rounds": 12,
    "attackers": 1,
    "attack-scale": -3.0,
    "weighting": "relu",
}


@pytest.mark.parametrize("name", ["ring", "random-regular"])
def test_a_poisoned_neighbour_gets_no_weight(name):
    run = LocalRun(resolve(POISONED | {"topology": name}))
    (attacker,) = run.experiment.attackers
    victims = run.experiment.topology.neighbors(attacker)
    for line in run.rounds():
        for victim in victims:
            assert line["weights"][str(victim)][str(attacker)] == 0.0
    honest = [line["weights"][str(i)][str(i)] for line in run.history.lines for i in victims]
    assert sum(honest) / len(honest) > 0.1
    assert run.summary()["accuracy"]["min"] > 0.5
