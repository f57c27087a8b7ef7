"""ROSS with a screen, local steps on Q_i and a guard, recomputed densely and by brute force."""

from itertools import permutations

import pytest
import torch
from quadratics import Quadratic, full_gradients, normal, run_round, stack, started
from torch import nn, optim

from ross_flwr.algorithms.ross_plus import ROSSPlus
from ross_flwr.config import resolve
from ross_flwr.graph import topology
from ross_flwr.learning.rules import Mean
from ross_flwr.runs.local import LocalRun

RATE = 0.1
ALL = {"learning_rate": RATE, "gradients_from": -1}


def cross_gradients(agents, models):
    """G[i, j] = x_i − mean_j, shape [N, N, P]."""
    means = models - full_gradients(agents, models)
    return models[:, None] - means[None]


@pytest.mark.parametrize(
    ("mixed", "optimizer", "make"), [(True, "sgd", optim.SGD), (False, "sgd", optim.SGD), (False, "adam", optim.Adam)]
)
def test_the_neighbours_say_where_to_go_and_q_says_how_that_changes_on_the_way(mixed, optimizer, make):
    """Without screen and guard. Q_i is the origin: its gradient at z is z. PyTorch's optimizer takes the steps."""
    graph, steps = topology.build("ring", 5), 3
    shape = {"momentum": 0.5, "mix_momentum": mixed, "local_steps": steps, "optimizer": optimizer}
    host, agents = started(graph, ROSSPlus(**ALL, **shape, screen=0.0, guard=False))
    ahead = nn.Parameter(torch.zeros(5, 6).double())
    walk = make([ahead], lr=RATE)
    weights = torch.from_numpy(graph.mixing.copy())
    heard = (weights > 0).double()
    models, momenta = stack(agents), torch.zeros(5, 6).double()
    for number in range(3):
        run_round(host, number)
        directions = (models + torch.einsum("ij,ijp->ip", heard, cross_gradients(agents, models))) / 4
        momenta = 0.5 * momenta + directions
        ahead.data = models.clone()
        for _ in range(steps):
            ahead.grad = momenta + ahead.data - models
            walk.step()
        models, momenta = weights @ ahead.data, weights @ momenta if mixed else momenta
        torch.testing.assert_close(stack(agents), models, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(stack(agents, "momentum"), momenta, atol=1e-5, rtol=1e-5)


def pulled(own, others, shares, reach):
    """Return own + Σ_j c_j clip(x_j − own, reach)."""
    moves = others - own
    return own + (shares * (reach / moves.norm(dim=1)).clamp(max=1)) @ moves


def test_the_guard_weighs_models_and_momenta_by_the_losses_on_q_and_bounds_how_far_they_pull():
    graph = topology.build("complete", 4)
    shared = {"momentum": 0.5, "learning_rate": RATE, "screen": 0.0}
    (one, plain), (other, guarded) = (started(graph, ROSSPlus(**shared, guard=guard)) for guard in (False, True))
    assert plain[0].rule == Mean()
    for number in range(3):
        one.activate(0, number), other.activate(0, number)
    heard, before = [dict(other.mailroom.waiting[i]) for i in range(4)], stack(guarded)
    other.activate(0, 3)
    for i, agent in enumerate(guarded):
        models = torch.stack([heard[i][j]["model"] for j in range(4)]).double()
        momenta = torch.stack([heard[i][j]["momentum"] for j in range(4)]).double()
        losses = 0.5 * models.square().sum(1)
        limit = max(losses[i], 0.75 * 0.5 * before[i].double().square().sum())
        heeded = (losses < limit) | (torch.arange(4) == i)
        shares = torch.softmax(torch.where(heeded, -losses / losses[i], -torch.inf), 0)
        model = pulled(models[i], models, shares, 2 * (models[i] - before[i]).norm())
        shares *= (10 * (models[i] - before[i]).norm() / (models - models[i]).norm(dim=1)).clamp(max=1)
        momentum = pulled(momenta[i], momenta, shares, 2 * momenta[i].norm())
        torch.testing.assert_close(agent["model"].double(), model, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(agent["momentum"].double(), momentum, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("weighting", "game"), [("uniform", 0), ("relu", 8)])
def test_a_round_costs_so_many_vectors_gradients_and_utilities(weighting, game):
    graph = topology.build("ring", 7)
    for mixed, vectors in ((True, 4), (False, 3)):
        host, _ = started(graph, ROSSPlus(**ALL, weighting=weighting, mix_momentum=mixed, local_steps=4, screen=0.0))
        for report in run_round(host, 0):
            assert report.gradients == 3 + 1 + 3  # its own and two neighbours', Q_i's by class, three more steps
            assert report.utilities == game + 3 + 1  # the guard's, once of the first model
            assert sum(sum(kinds.values()) for kinds in report.sent.values()) == vectors * 2 * 6 * 4


@pytest.mark.parametrize(("drawn", "asked"), [(-1, 4), (0, 0), (1, 1), (3, 3), (9, 4)])
def test_an_agent_asks_this_many_neighbours_for_gradients_and_in_time_all(drawn, asked):
    graph = topology.build("complete", 5)
    host, _ = started(graph, ROSSPlus(gradients_from=drawn, local_steps=1, screen=0.0))
    answered = set()
    for number in range(30):
        reports = run_round(host, number)
        for report in reports:
            others = report.weights.keys() - {report.agent}
            assert len(others) == asked, "who is asked answers, nobody else"
            answered |= {(report.agent, j) for j in others}
            assert report.missing == []
        assert sum(report.gradients for report in reports) == 5 * (1 + asked + 1)
        kinds = [kinds for report in reports for kinds in report.sent.values()]
        assert sum(each.get("gradient", 0) for each in kinds) == 5 * asked * 6 * 4
        assert sum(each["model"] for each in kinds) == 5 * (asked + 4) * 6 * 4
    assert len(answered) == (20 if asked else 0)


def shapley_by_brute_force(players, value):
    """φ of each player, by the mean over all orders of what it adds to those before it."""
    phi = dict.fromkeys(players, 0.0)
    orders = list(permutations(players))
    for order in orders:
        for count, player in enumerate(order):
            phi[player] += (value(order[: count + 1]) - value(order[:count])) / len(orders)
    return phi


def test_the_game_gives_its_share_to_the_positive_part_of_the_shapley_values_and_the_rest_to_q():
    graph, rate = topology.build("ring", 5), 0.4
    method = ROSSPlus(gradients_from=-1, weighting="relu", learning_rate=rate, screen=0.0, local_steps=1)
    host, agents = started(graph, method)
    dropped = 0
    for number in range(2):
        models = stack(agents)
        gradients = cross_gradients(agents, models)
        for report in run_round(host, number):
            i = report.agent

            def value(members, i=i, gradients=gradients, models=models):
                step = sum(gradients[i, j] for j in members) / (len(members) or 1)
                return -0.5 * float((models[i] - rate * step).square().sum())

            phi = shapley_by_brute_force([*graph.neighbors(i), i], value)
            total = sum(max(each, 0.0) for each in phi.values())
            expected = {j: 0.75 * each / total for j, each in phi.items() if each > 0}
            assert report.weights == pytest.approx(expected, abs=1e-4)
            dropped += len(phi) - len(expected)
    assert dropped > 0


class Indifferent(Quadratic):
    """Every model is worth the same, so no contribution is positive."""

    def utility(self, vector, kind, batch):
        return -1.0


def test_where_nobody_helps_the_agent_follows_q_alone():
    graph = topology.build("ring", 5)
    method = ROSSPlus(**ALL, weighting="relu", momentum=0.0, local_steps=1, guard=False)
    host, agents = started(graph, method, objective=lambda i: Indifferent(normal(i, 5, 6)))
    models = stack(agents)
    assert [report.weights for report in run_round(host, 0)] == [{}] * 5
    mixed = torch.from_numpy(graph.mixing.copy()) @ models
    torch.testing.assert_close(stack(agents), (1 - RATE) * mixed, atol=1e-5, rtol=1e-5)


def test_an_agent_that_hears_nobody_follows_its_own_gradient_and_that_of_q():
    host, agents = started(topology.build("ring", 5), ROSSPlus(learning_rate=RATE, local_steps=1), members=[2])
    models = stack(agents)
    expected = models - RATE * (full_gradients(agents, models) + models) / 2
    (report,) = run_round(host, 0)
    torch.testing.assert_close(stack(agents), expected, atol=1e-6, rtol=1e-6)
    assert (report.missing, report.weights) == ([1, 3], {2: 0.5})


SKEWED = {"algorithm": "ross-plus", "partition-alpha": 0.1, "topology": "ring", "num-rounds": 20}


def test_the_screen_leaves_out_poisoned_gradients_and_keeps_those_of_skewed_data():
    run = LocalRun(resolve(SKEWED | {"gradients-from": -1, "attackers": 3}))
    attackers = run.assembly.threats.attackers
    kept, pairs = {True: 0, False: 0}, {True: 0, False: 0}
    for line in run.rounds():
        for i in run.history.honest:
            for j in run.assembly.topology.neighbors(i):
                pairs[j in attackers] += 1
                kept[j in attackers] += str(j) in line["weights"][str(i)]
    assert kept[True] / pairs[True] < 0.2
    assert kept[False] / pairs[False] > 0.8


def test_attackers_that_do_not_defend_themselves_do_little_harm():
    def accuracy(**keys):
        run = LocalRun(resolve(SKEWED | {"num-rounds": 40, "evaluate-every": 40, **keys}))
        (*_, last) = run.rounds()
        return last["accuracy"]["mean"]

    clean, poisoned = accuracy(), accuracy(attackers=3)
    assert clean > 0.93
    assert poisoned > 0.88
    assert accuracy(attackers=3, guard=False) < poisoned - 0.2
