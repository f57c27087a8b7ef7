"""CGSV's rewards: what an agent is sent is what its updates were worth."""

import math

import pytest
import torch
from quadratics import Quadratic, normal, objective_of, run_round, stack, started

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.algorithms.reputation import largest
from ross_flwr.config import ConfigError, resolve
from ross_flwr.graph import topology
from ross_flwr.runs.local import LocalRun

METHODS = {"cgsv-reward": "ring", "cgsv-server": "star"}


def method(name, **options):
    return resolve({key.replace("_", "-"): value for key, value in options.items()}).part(ALGORITHMS[name])


def trained(models, agents, rate, steps):
    """K full gradient steps on quadratics, in closed form: x − c shrinks by 1 − η each."""
    centres = torch.stack([agent.objective.examples.double().mean(0) for agent in agents])
    return centres + (1 - rate) ** steps * (models - centres)


def judged(vectors, known):
    """Return Σ r d before, and r after, for updates in rows."""
    units = vectors / vectors.norm(dim=1, keepdim=True)
    weights = known if known.any() else torch.ones_like(known)
    common = weights / weights.sum() @ units
    now = (0.95 * known + 0.05 * torch.cosine_similarity(units, common, dim=1)).clamp(min=1e-3)
    return common, now / now.sum()


def shares(reputation, altruism, size):
    earned = torch.tanh(altruism * reputation)
    return [math.floor(size * share + 1e-9) for share in (earned / earned.max()).tolist()]


def test_the_largest_components_are_kept_where_they_are():
    vector = torch.tensor([0.1, -3.0, 2.0, 0.0, -0.5])
    assert largest(vector, 2).tolist() == [0.0, -3.0, 2.0, 0.0, 0.0]
    assert torch.equal(largest(vector, 5), vector)
    assert not largest(vector, 0).any()


@pytest.mark.parametrize("altruism", [1.0, 2.0, 1e6])
def test_rounds_of_the_server_are_the_papers_equations(altruism):
    size, options = 40, {"learning_rate": 0.1, "local_steps": 3, "altruism": altruism}
    graph = topology.build("star", 6)
    host, agents = started(
        graph, method("cgsv-server", **options), objective=lambda i: objective_of(i, size), alike=True
    )
    models, known, withheld = stack(agents), torch.zeros(5).double(), 0
    for round in range(4):
        reports = run_round(host, round)
        updates = (trained(models, agents, 0.1, 3) - models)[1:]
        common, known = judged(updates, known)
        rewards = torch.stack([largest(0.5 * common, q) for q in shares(known, altruism, size)])
        models = torch.cat([models[:1] + 0.5 * common, models[1:] + rewards])
        withheld += int((rewards == 0).sum())
        torch.testing.assert_close(stack(agents), models, rtol=0, atol=1e-5)
        assert reports[0].weights == pytest.approx(dict(enumerate(known.tolist(), start=1)), abs=1e-6)
        assert [report.gradients for report in reports] == [0, 3, 3, 3, 3, 3]
        assert all(report.missing == [] for report in reports)
        assert reports[0].sent == {j: {"reward": 4 * size} for j in range(1, 6)}
        assert all(reports[j].sent == {0: {"update": 4 * size}} for j in range(1, 6))
    assert (withheld == 0) == (altruism == 1e6)


@pytest.mark.parametrize("altruism", [1.0, 1e6])
def test_rounds_of_neighbourhoods_are_their_equations(altruism):
    size, options = 40, {"learning_rate": 0.1, "local_steps": 3, "altruism": altruism}
    graph = topology.build("random-regular", 6, degree=3)
    host, agents = started(graph, method("cgsv-reward", **options), objective=lambda i: objective_of(i, size))
    mixing, models = torch.from_numpy(graph.mixing.copy()), stack(agents)
    known = [torch.zeros(4).double() for _ in agents]
    for round in range(3):
        for report in run_round(host, round):
            sent = {"model": 4 * size, "reward": 4 * size}
            assert report.sent == dict.fromkeys(graph.neighbors(report.agent), sent)
        halfway = trained(models, agents, 0.1, 3)
        after = halfway.clone()
        targets = torch.zeros_like(models)
        for i in range(6):
            closed = sorted([i, *graph.neighbors(i)])
            common, known[i] = judged(halfway[closed] - models[i], known[i])
            targets[i] = models[i] + 0.5 * common
            for j, q in zip(closed, shares(known[i], altruism, size), strict=True):
                after[j] += mixing[j, i] * largest(targets[i] - halfway[j], size if i == j else q)
        models = after
        torch.testing.assert_close(stack(agents), models, rtol=0, atol=1e-4)
        if altruism == 1e6:
            torch.testing.assert_close(models, mixing @ targets)


@pytest.mark.parametrize("name", METHODS)
def test_equal_updates_get_everything(name):
    size = 10_000
    same = Quadratic(normal(1, 5, size))
    host, agents = started(topology.build(METHODS[name], 8), method(name), objective=lambda i: same, alike=True)
    for round in range(3):
        for report in run_round(host, round):
            assert report.weights == pytest.approx(dict.fromkeys(report.weights, 1 / max(1, len(report.weights))))
        assert agents[0]["model"].ne(0).all()
        assert stack(agents).std(0).max() < 1e-5


def test_a_freerider_earns_less_than_those_who_train():
    """Its updates are noise."""

    class Noise(Quadratic):
        def gradient(self, vector, batch, **_):
            return normal(int(vector.abs().sum() * 1e4), len(vector))

    def objective(i):
        examples = normal(5, 5, 100) + 0.3 * normal(10 + i, 5, 100)
        return Noise(examples) if i == 3 else Quadratic(examples)

    host, agents = started(topology.build("star", 6), method("cgsv-server"), objective=objective, alike=True)
    for round in range(20):
        before = stack(agents)
        reports = run_round(host, round)
    reputations = reports[0].weights
    received = (stack(agents) != before).sum(1)
    assert reputations[3] == min(reputations.values()) < 0.1 * reputations[1]
    assert received[3] == received[1:].min() < 0.1 * received[1:].max()


@pytest.mark.parametrize("graph", ["ring", "complete", "path"])
def test_the_server_wants_a_star(graph):
    with pytest.raises(ConfigError, match=r"takes a star with agent 0 in its middle, .* use topology = 'star'"):
        method("cgsv-server").check(topology.build(graph, 5).mixing, 60)


def test_a_client_that_is_missing_keeps_its_reputation_and_its_model():
    graph = topology.build("star", 4)
    host, (server, *_) = started(graph, method("cgsv-server"), members=[0, 1, 2])
    server["reputation"] = torch.tensor([0.0, 0.25, 0.25, 0.5])
    report, *_ = run_round(host, 0)
    assert report.missing == [3]
    assert set(report.weights) == {1, 2}
    assert server["reputation"][3] > 0.45


def test_a_server_that_hears_nobody_keeps_its_model():
    host, (server,) = started(topology.build("star", 4), method("cgsv-server"), members=[0])
    before = server["model"].clone()
    run_round(host, 0)
    assert torch.equal(server["model"], before)


@pytest.mark.parametrize("name", METHODS)
def test_an_agent_that_diverges_harms_its_own_reputation_and_no_other_agent(name):
    class Diverged(Quadratic):
        def gradient(self, vector, batch, **_):
            return torch.full_like(vector, math.nan)

    host, agents = started(
        topology.build(METHODS[name], 5),
        method(name),
        objective=lambda i: Diverged(normal(i, 5, 6)) if i == 2 else objective_of(i),
    )
    for round in range(3):
        reports = run_round(host, round)
    for i in (0, 1, 3, 4):
        assert agents[i]["model"].isfinite().all()
        assert all(map(math.isfinite, reports[i].weights.values()))
    assert host.dropped["not-finite"] > 0


@pytest.mark.parametrize("name", METHODS)
def test_the_digits_are_learned(name):
    options = {"algorithm": name, "topology": METHODS[name], "num-rounds": 30, "evaluate-every": 30, "attackers": 0}
    run = LocalRun(resolve(options | {"num-agents": 6}))
    (*_, line) = run.rounds()
    assert line["accuracy"]["min"] > 0.7
