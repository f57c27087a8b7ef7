"""ROSS with our screen and local steps, recomputed densely and by brute force."""

from itertools import permutations

import pytest
import torch
from quadratics import Quadratic, Table, full_gradients, normal, objective_of, run_round, stack, started
from torch import nn

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import resolve
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.runs.local import LocalRun


def ross(**options):
    """The method without screen and local steps, with weights from the positive Shapley values, or as told."""
    given = {name.replace("_", "-"): value for name, value in options.items()}
    return resolve({"screen": 0.0, "weighting": "relu", "local-steps": 1, **given}).part(ALGORITHMS["ross-plus"])


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def classes_of(agent, count=16):
    generator = torch.Generator().manual_seed(agent)
    return Table(torch.randn(count, 6, generator=generator) + agent, torch.randint(3, (count,), generator=generator))


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
    union = Table(torch.cat([each.inputs for each in rows]), torch.cat([each.targets for each in rows]))
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


@pytest.mark.parametrize(("mixed", "vectors"), [(True, 4), (False, 3)])
@pytest.mark.parametrize("name", COSTS)
def test_a_round_costs_so_many_vectors_gradients_and_utilities(name, mixed, vectors):
    graph, utilities = COSTS[name]
    host, _ = started(graph, ross(mix_momentum=mixed))
    for round in range(3):
        for report in run_round(host, round):
            degree = graph.graph.degree[report.agent]
            assert report.utilities == utilities
            assert report.gradients == 1 + degree
            assert set(report.sent) == set(graph.neighbors(report.agent))
            assert sum(sum(kinds.values()) for kinds in report.sent.values()) == vectors * degree * 6 * 4  # 4 k P b


def shapley_by_brute_force(players, value):
    """φ of each player, by the mean over all orders of what it adds to those before it."""
    phi = dict.fromkeys(players, 0.0)
    orders = list(permutations(players))
    for order in orders:
        for count, player in enumerate(order):
            phi[player] += (value(order[: count + 1]) - value(order[:count])) / len(orders)
    return phi


@pytest.mark.parametrize("probe", ["sgd", "momentum"])
@pytest.mark.parametrize("coalition", ["sum", "mean"])
@pytest.mark.parametrize("name", ["ring", "complete"])
def test_weights_are_the_positive_part_of_the_shapley_values(name, coalition, probe):
    graph, rate = topology.build(name, 5), 0.4
    host, agents = started(graph, ross(learning_rate=rate, momentum=0.5, coalition=coalition, probe=probe))
    dropped = 0
    for round in range(2):
        models, momenta = stack(agents), stack(agents, "momentum")
        for report in run_round(host, round):
            i = report.agent
            players = [*graph.neighbors(i), i]
            gradients = {j: models[i] - agents[j].objective.examples.double().mean(0) for j in players}

            def value(members, i=i, gradients=gradients, models=models, momenta=momenta):
                step = sum(gradients[j] for j in members) / (
                    len(gradients) if coalition == "sum" else len(members) or 1
                )
                ahead = 0.5 * momenta[i] if probe == "momentum" else 0.0
                return -0.5 * float((models[i] - rate * (step + ahead)).square().sum())

            phi = shapley_by_brute_force(players, value)
            total = sum(max(each, 0.0) for each in phi.values())
            expected = {j: max(each, 0.0) / total for j, each in phi.items()} if total else {i: 1.0}
            assert report.weights == pytest.approx(expected, abs=1e-4)
            dropped += sum(each < 0 for each in phi.values())
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
        row = {j: weight for j, weight in enumerate(expected[report.agent].tolist()) if weight}
        assert {j: weight for j, weight in report.weights.items() if weight} == pytest.approx(row)


@pytest.mark.parametrize("weighting", ["relu", "minmax", "softmax", "uniform"])
def test_weights_over_the_closed_neighbourhood_are_recorded(weighting):
    graph = topology.build("ring", 5)
    host, _ = started(graph, ross(weighting=weighting))
    for report in run_round(host, 0):
        assert set(report.weights) == {report.agent, *graph.neighbors(report.agent)}
        assert min(report.weights.values()) >= 0
        assert sum(report.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize("weighting", ["softmax", "uniform"])
def test_an_agent_that_hears_nobody_follows_its_own_gradient(weighting):
    graph = topology.build("ring", 5)
    host, agents = started(graph, ross(weighting=weighting, momentum=0.0, learning_rate=0.3), members=[2])
    models = stack(agents)
    expected = models - 0.3 * full_gradients(agents, models)
    (report,) = run_round(host, 0)
    torch.testing.assert_close(stack(agents), expected, atol=1e-6, rtol=1e-6)
    assert report.missing == [1, 3]
    assert report.weights == {2: pytest.approx(1.0)}


class Far(Quadratic):
    """Where all models are about as far from the target, local steps may go on."""

    def __init__(self, index):
        super().__init__(objective_of(index).examples, torch.full((6,), 100.0))


def test_local_steps_follow_the_own_data_corrected_by_what_the_neighbours_said():
    graph, K = topology.build("ring", 5), 3
    options = {"weighting": "uniform", "momentum": 0.5, "learning_rate": 0.3, "local_steps": K}
    host, agents = started(graph, ross(**options), objective=Far, batch_size=1)
    weights = torch.from_numpy(graph.mixing.copy())
    uniform = (weights > 0).double() / 3
    models, momenta = stack(agents), torch.zeros(5, 6).double()
    for round in range(3):
        asked = [len(agent.objective.batches) for agent in agents]
        reports = run_round(host, round)
        centres = torch.stack(  # [K, N, P]: the one example in each mini-batch of the round
            [
                torch.stack([agent.objective.examples[agent.objective.batches[k + s]].double()[0] for s in range(K)])
                for agent, k in zip(agents, asked, strict=True)
            ],
            dim=1,
        )
        momenta = 0.5 * momenta + models - uniform @ centres[0]
        ahead = models - 0.3 * momenta
        for s in range(1, K):
            ahead = ahead - 0.3 * (momenta + (ahead - centres[s]) - (models - centres[0]))
        models, momenta = weights @ ahead, weights @ momenta
        torch.testing.assert_close(stack(agents), models, atol=1e-4, rtol=1e-4)
        assert [report.gradients for report in reports] == [3 + K - 1] * 5
        assert [report.utilities for report in reports] == [8 + K] * 5
    drawn = torch.tensor(agents[0].objective.batches[: 3 * K]).flatten().tolist()
    assert sorted(drawn[:5]) == list(range(5)), "a mini-batch each"


def test_local_steps_end_before_the_loss_on_q_grows_too_much():
    def movement(excess, **keys):
        """Go straight away from the target, at 1; the first step ends at excess² times the loss there."""
        agent = Agent(0, Quadratic(torch.zeros(1, 6)), {0: 1.0}, seed=0, batch_size=1)
        agent["model"] = torch.ones(6)
        momentum = torch.full((6,), -(excess - 1) / 0.1)
        method = ross(**{"local_steps": 4, "learning_rate": 0.1, "local_slack": 0.5, **keys})
        model = method.proposal(agent, momentum, {0: 1.0}, {0: torch.ones(6)})
        return float(model[0]) - 1

    assert movement(1.1) == pytest.approx(0.1 + 0.09, abs=1e-6)  # 1.19² < 1.5; one more would make 1.27² of it
    assert movement(1.1, local_slack=0.0) == pytest.approx(0.1, abs=1e-6)
    assert movement(1.3) == pytest.approx(0.3, abs=1e-6), "the first step is not asked"
    assert movement(2.5, local_slack=20.0) == pytest.approx(1.5 + 1.35, abs=1e-5)  # 3.85² < 21; then 5.07²


def test_who_does_not_trust_its_own_gradient_takes_one_step():
    graph = topology.build("complete", 4)
    poisoned = Quadratic(torch.full((5, 6), 200.0))  # the others' class gradient points to their target, at 0
    host, _ = started(
        graph,
        ross(weighting="softmax", screen=0.5),
        objective=lambda i: poisoned if i == 0 else Quadratic(normal(i, 5, 6)),
    )
    first = run_round(host, 0)[0]
    assert first.weights.get(0, 0.0) == 0.0
    assert first.gradients == 5


POISONED = {
    "algorithm": "ross-plus",
    "num-agents": 6,
    "topology-degree": 3,
    "partition": "iid",
    "validation-size": 50,
    "hidden": 16,
    "num-rounds": 12,
    "attackers": 1,
    "attack-target": "gradients",
    "weighting": "relu",
    "screen": 0.0,
}


@pytest.mark.parametrize("name", ["ring", "random-regular"])
def test_a_poisoned_neighbour_gets_no_weight(name):
    run = LocalRun(resolve(POISONED | {"topology": name}))
    (attacker,) = run.assembly.threats.attackers
    victims = run.assembly.topology.neighbors(attacker)
    for line in run.rounds():
        for victim in victims:
            assert line["weights"].get(str(victim), {}).get(str(attacker), 0.0) == 0.0
    own = [line["weights"].get(str(i), {}).get(str(i), 0.0) for line in run.history.lines for i in victims]
    assert sum(own) / len(own) > 0.1
    assert run.summary()["accuracy"]["min"] > 0.5


SKEWED = {
    "algorithm": "ross-plus",
    "attack-target": "gradients",
    "partition-alpha": 0.1,
    "num-rounds": 20,
    "topology": "ring",
    "weighting": "uniform",
}


@pytest.mark.parametrize(("local_steps", "honest"), [(1, 0.9), (5, 0.8)])
def test_the_screen_leaves_out_poisoned_gradients_and_keeps_those_of_skewed_data(local_steps, honest):
    """Models that fit sooner leave more of an honest gradient to noise."""
    run = LocalRun(resolve(SKEWED | {"attackers": 3, "local-steps": local_steps}))
    attackers, graph = run.assembly.threats.attackers, run.assembly.topology
    kept = {True: 0, False: 0}
    pairs = {True: 0, False: 0}
    for line in run.rounds():
        for i in set(range(10)) - attackers:
            for j in (i, *graph.neighbors(i)):
                pairs[j in attackers] += 1
                kept[j in attackers] += line["weights"].get(str(i), {}).get(str(j), 0.0) > 0
    assert kept[True] / pairs[True] < 0.2
    assert kept[False] / pairs[False] > honest


@pytest.mark.parametrize("attackers", [0, 3])
def test_the_defaults_are_near_the_uniform_mean_in_a_clean_run_and_far_above_it_in_a_poisoned_one(attackers):
    def accuracy(**keys):
        run = LocalRun(resolve(SKEWED | {"num-rounds": 40, "attackers": attackers, "weighting": "softmax", **keys}))
        for _ in run.rounds():
            pass
        return run.summary()["accuracy"]["mean"]

    default, uniform = accuracy(), accuracy(algorithm="cross-gradient")
    assert default > (uniform - 0.01 if attackers == 0 else uniform + 0.5)
