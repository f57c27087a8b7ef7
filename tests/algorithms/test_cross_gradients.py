"""The family of cross-gradients: CGA, the uniform mean, NGC and CGSV against their equations and other solvers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratics import Quadratic, full_gradients, objective_of, run_round, stack, started
from torch import nn

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.algorithms.cga import multipliers
from ross_flwr.config import resolve
from ross_flwr.graph import topology
from ross_flwr.learning import objective as objectives
from ross_flwr.learning.flat import FlatModel
from ross_flwr.runs.local import LocalRun


def method(name, **options):
    return resolve({key.replace("_", "-"): value for key, value in options.items()}).part(ALGORITHMS[name])


def centres(agents):
    """Row j is c_j, the mean of agent j's examples: G[i, j] = x_i − c_j."""
    return stack([{"model": agent.objective.examples.mean(0)} for agent in agents])


# CGA's quadratic program


@st.composite
def programs(draw):
    """Rows a, r_1 … r_t of several lengths, some of them dependent, equal, opposed or zero; and a margin."""
    t, size = draw(st.integers(0, 12)), draw(st.integers(1, 20))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = random.normal(size=(1 + t, size)) + draw(st.sampled_from([0.0, 1.0, 10.0])) * random.normal(size=size)
    rows *= 10.0 ** random.uniform(-draw(st.sampled_from([0, 3])), 0, size=(1 + t, 1))
    for j in range(1, 1 + t):
        match draw(st.sampled_from(["free"] * 6 + ["zero", "opposed", "equal"])):
            case "zero":
                rows[j] = 0
            case "opposed":
                rows[j] = -2 * rows[0]
            case "equal":
                rows[j] = rows[j - 1]
    return rows, draw(st.sampled_from([0.0, 0.5, 1.5]))


@given(program=programs())
@settings(max_examples=200)
def test_cga_fulfils_the_kkt_conditions(program):
    rows, margin = program
    factors = multipliers(rows @ rows.T, margin)
    direction, lengths = factors @ rows, np.linalg.norm(rows[1:], axis=1)
    assert factors[0] == 1
    assert (factors[1:] >= margin).all()
    slopes = rows[1:] @ direction / (np.where(lengths, lengths, 1) * (np.linalg.norm(rows, axis=1) @ factors))
    assert slopes.min(initial=0) >= -1e-9  # no neighbour's gradient is opposed ...
    assert np.abs(slopes[factors[1:] > margin]).max(initial=0) <= 1e-9  # ... and only who would be counts for more


@given(program=programs())
@settings(max_examples=100)
def test_cga_finds_what_nonnegative_least_squares_finds(program):
    nnls = pytest.importorskip("scipy.optimize").nnls
    rows, margin = program
    if len(rows) > 1:
        start = rows[0] + margin * rows[1:].sum(0)
        u, _ = nnls(rows[1:].T, -start)
        expected = start + u @ rows[1:]
        scale = max(1.0, np.abs(start).max())
        np.testing.assert_allclose(multipliers(rows @ rows.T, margin) @ rows, expected, atol=1e-6 * scale)


@pytest.mark.parametrize("seed", range(5))
def test_cga_has_the_multipliers_of_a_bounded_quasi_newton_method(seed):
    minimize = pytest.importorskip("scipy.optimize").minimize
    rows = np.random.default_rng(seed).normal(size=(6, 30))
    rows[1:] *= 0.3
    rows[1:3] -= 0.4 * rows[0]
    gram = rows @ rows.T
    found = minimize(
        lambda v: 0.5 * v @ gram[1:, 1:] @ v + gram[0, 1:] @ v,
        np.ones(5),
        jac=lambda v: gram[1:, 1:] @ v + gram[0, 1:],
        bounds=[(0.5, None)] * 5,
        method="L-BFGS-B",
        options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 1000},
    )
    assert (found.x > 0.6).any()  # the margin alone is not the answer
    np.testing.assert_allclose(multipliers(gram, 0.5)[1:], found.x, atol=1e-6)


def test_a_gradient_that_is_no_number_leaves_cga_at_its_margin():
    assert multipliers(np.full((3, 3), np.nan), 0.5).tolist() == [1.0, 0.5, 0.5]


FACTORS = ([1.0, -1e-44], [1e-44], [-1e-45, 1e-44, 1.0], [1e-20, -1e-38, 1.0], [0.0, 1.0], [1.0, -1e-36, -1e-40])
"""Of the gradients that agents compute; many are below what float32 holds in full precision."""


@pytest.mark.parametrize("name", ["cga", "cross-gradient", "ngc", "cgsv", "fltrust", "ross"])
def test_gradients_too_small_for_full_precision_leave_models_finite(name):
    class Scaled(Quadratic):
        factor = 1.0

        def gradient(self, vector, batch, *, training=True):
            return self.factor * super().gradient(vector, batch)

    for factors in FACTORS:

        def scaled(agent, factors=factors):
            objective = Scaled(objective_of(agent).examples)
            objective.factor = factors[agent % len(factors)]
            return objective

        host, agents = started(topology.build("complete", 4), method(name), objective=scaled)
        for number in range(3):
            run_round(host, number)
        assert stack(agents).isfinite().all()


@given(
    st.lists(st.sampled_from([-320, -308, -200, -160, -45, -38, -20, 0, 37, 150]), min_size=2, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_cga_makes_no_direction_longer_than_its_margin_does_whatever_the_lengths_of_the_rows(exponents, seed):
    rows = np.random.default_rng(seed).normal(size=(len(exponents), 3)) * 10.0 ** np.array(exponents, float)[:, None]
    factors = multipliers(rows @ rows.T, 0.5)
    assert np.isfinite(factors).all()
    at_margin = np.array([1.0] + [0.5] * (len(rows) - 1)) @ rows
    assert np.linalg.norm(factors @ rows) <= np.linalg.norm(at_margin) * (1 + 1e-6) + 1e-150


def test_rounds_of_cga_are_the_dense_equation():
    graph, rate, alpha, gamma = topology.build("random-regular", 6, degree=3), 0.2, 0.5, 0.7
    algorithm = method("cga", learning_rate=rate, momentum=alpha, averaging_rate=gamma)
    host, agents = started(graph, algorithm)
    mixing, own = torch.from_numpy(graph.mixing.copy()), centres(agents)
    models, momenta = stack(agents), torch.zeros(6, 6).double()
    above = 0
    for round in range(4):
        run_round(host, round)
        directions = torch.zeros_like(models)
        for i in range(6):
            order = [i, *graph.neighbors(i)]
            rows = mixing[i, order, None] * (models[i] - own[order])
            for part in [slice(0, 2), slice(2, 6)]:
                factors = multipliers((rows[:, part] @ rows[:, part].T).numpy(), 0.5)
                above += (factors[1:] > 0.5).sum()
                directions[i, part] = torch.from_numpy(factors) @ rows[:, part]
        momenta = alpha * momenta + directions
        models = models + gamma * (mixing @ models - models) - rate * (directions + alpha * momenta)
        torch.testing.assert_close(stack(agents), models, atol=1e-5, rtol=1e-5)
    assert above


def test_cga_with_neighbours_that_agree_follows_the_margin_of_their_mixing_weights():
    graph = topology.build("ring", 5)
    host, agents = started(graph, method("cga"), objective=lambda i: objective_of(0), alike=True)
    before = stack(agents)
    for report in run_round(host, 0):
        left, right = graph.neighbors(report.agent)
        assert report.weights == pytest.approx({report.agent: 1 / 3, left: 1 / 6, right: 1 / 6})
    expected = before - 0.1 * 1.9 * 2 / 3 * full_gradients(agents, before)
    torch.testing.assert_close(stack(agents), expected, atol=1e-5, rtol=1e-5)


def test_the_tensors_of_a_model_make_up_its_vector():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
    flat = FlatModel(module)
    assert flat.sizes == [12, 4, 4, 4, 8, 4, 4]
    assert sum(flat.sizes) == flat.size
    nothing = type("Nothing", (), {"__len__": lambda self: 0, "batch": lambda self, indices: None})()
    assert objectives.ModuleObjective(flat, nothing, nothing, nothing).sizes == flat.sizes


# The uniform mean, NGC


CENTRALIZED = {
    "cross-gradient": {},
    "ngc": {"cluster": "data"},
    "cgsv": None,  # the control: weighs unevenly
}


@pytest.mark.parametrize("name", CENTRALIZED)
def test_on_a_complete_graph_without_momentum_uniform_means_are_centralized_sgd_on_the_union_batch(name):
    graph = topology.build("complete", 6)
    algorithm = method(name, momentum=0.0, learning_rate=0.3, **(CENTRALIZED[name] or {}))
    host, agents = started(graph, algorithm, alike=True)
    union = torch.cat([agent.objective.examples for agent in agents]).double()
    model = stack(agents)[0]
    for round in range(10):
        run_round(host, round)
        model = model - 0.3 * (model - union.mean(0))
    close = torch.allclose(stack(agents), model.expand(6, -1), atol=1e-6, rtol=1e-6)
    assert close is (CENTRALIZED[name] is not None)


@given(
    name=st.sampled_from(["ring", "complete", "star", "random-regular"]),
    num_agents=st.integers(3, 7),
    cluster=st.sampled_from(["data", "model"]),
    rate=st.floats(0, 0.5),
    alpha=st.floats(0, 0.9),
    gamma=st.floats(0, 1),
)
@settings(max_examples=30)
def test_rounds_of_ngc_are_the_dense_equation(name, num_agents, cluster, rate, alpha, gamma):
    graph = topology.build(name, num_agents, degree=2)
    algorithm = method("ngc", cluster=cluster, learning_rate=rate, momentum=alpha, averaging_rate=gamma)
    host, agents = started(graph, algorithm)
    mixing, own = torch.from_numpy(graph.mixing.copy()), centres(agents)
    hears = torch.eye(num_agents).double()
    for i, j in graph.graph.edges:
        hears[i, j] = hears[j, i] = 1
    uniform = hears / hears.sum(1, keepdim=True)
    models, momenta = stack(agents), torch.zeros(num_agents, 6).double()
    for round in range(3):
        run_round(host, round)
        directions = models - uniform @ own if cluster == "data" else uniform @ models - own
        momenta = alpha * momenta + directions
        models = models + gamma * (mixing @ models - models) - rate * (directions + alpha * momenta)
        torch.testing.assert_close(stack(agents), models, atol=1e-5, rtol=1e-5)


# CGSV's weights


class Turned:
    """An objective that returns `scale` times the gradients of another."""

    def __init__(self, objective, scale):
        self.objective, self.scale = objective, scale

    def __getattr__(self, name):
        return getattr(self.objective, name)

    def gradient(self, vector, batch, **_):
        return self.scale * self.objective.gradient(vector, batch)


def test_equal_gradients_get_equal_reputations_whatever_their_length():
    graph = topology.build("star", 5)
    host, agents = started(graph, method("cgsv"), objective=lambda i: Turned(objective_of(0), 1.0 + i), alike=True)
    for round in range(5):
        for report in run_round(host, round):
            assert report.weights == pytest.approx({j: 1 / len(report.weights) for j in report.weights}, rel=1e-3)
    assert agents[0]["reputation"].tolist() == pytest.approx([0.2] * 5, rel=1e-3)


@pytest.mark.parametrize("since", [0, 20])
def test_an_opposite_gradient_falls_to_the_floor_and_stays_there(since):
    graph = topology.build("complete", 5)
    turned = Turned(objective_of(0), 1.0 if since else -1.0)
    host, _ = started(graph, method("cgsv"), objective=lambda i: turned if i == 2 else objective_of(0), alike=True)
    for round in range(60):
        if round == since:
            turned.scale = -1.0
        for report in run_round(host, round):
            assert sum(report.weights.values()) == pytest.approx(1)
            if not since or round >= 55:
                floor = report.weights[2]
                assert 0 < floor < 6e-3  # in the first round the floor is a part of small reputations
                assert report.weights[0] == pytest.approx((1 - floor) / 4, rel=1e-3)


def test_rounds_of_cgsv_are_the_dense_equation():
    graph, rate, alpha = topology.build("random-regular", 6, degree=3), 0.2, 0.5
    host, agents = started(graph, method("cgsv", learning_rate=rate, momentum=alpha))
    mixing, own = torch.from_numpy(graph.mixing.copy()), centres(agents)
    models, momenta = stack(agents), torch.zeros(6, 6).double()
    reputation = torch.zeros(6, 6).double()
    for round in range(4):
        run_round(host, round)
        directions = torch.zeros_like(models)
        for i in range(6):
            closed = sorted([i, *graph.neighbors(i)])
            gradients = models[i] - own[closed]
            units = gradients / gradients.norm(dim=1, keepdim=True)
            before = reputation[i, closed] if round else torch.ones(len(closed)).double()
            agreement = torch.cosine_similarity(units, before @ units, dim=1)
            now = (0.95 * reputation[i, closed] + 0.05 * agreement).clamp(min=1e-3)
            reputation[i, closed] = now / now.sum()
            directions[i] = reputation[i, closed] @ gradients
        momenta = alpha * momenta + directions
        models, momenta = mixing @ (models - rate * momenta), mixing @ momenta
        torch.testing.assert_close(stack(agents), models, atol=1e-4, rtol=1e-4)


def test_a_neighbour_that_is_missing_keeps_its_reputation():
    graph = topology.build("ring", 5)
    host, (agent,) = started(graph, method("cgsv"), members=[2])
    run_round(host, 0)
    assert agent["reputation"].tolist() == [0.0, 1.0, 0.0]  # of 1, 2, 3
    agent["reputation"] = torch.tensor([0.25, 0.5, 0.25])
    (report,) = run_round(host, 1)
    assert report.weights == {2: 1.0}
    assert agent["reputation"][0] == agent["reputation"][2] > 0.24


def test_rounds_of_fltrust_are_the_dense_equation():
    """The example of all Q_i is the mean of the agents' data, so the trusted gradient is x_i less that."""
    graph, rate, alpha = topology.build("random-regular", 6, degree=3), 0.2, 0.5
    host, agents = started(graph, method("fltrust", learning_rate=rate, momentum=alpha))
    mixing, own = torch.from_numpy(graph.mixing.copy()), centres(agents)
    for agent in agents:
        agent.objective.target = own.mean(0).float()
    models, momenta, refused = stack(agents), torch.zeros(6, 6).double(), 0
    for round in range(4):
        reports = run_round(host, round)
        directions = torch.zeros_like(models)
        for i in range(6):
            closed = sorted([i, *graph.neighbors(i)])
            gradients, trusted = models[i] - own[closed], models[i] - own.mean(0)
            trust = torch.cosine_similarity(gradients, trusted, dim=1).clamp(min=0)
            refused += int((trust == 0).sum())
            factors = trust / trust.sum() * trusted.norm() / gradients.norm(dim=1)
            directions[i] = factors @ gradients
            kept = {j: pytest.approx(float(f), rel=1e-4) for j, f in zip(closed, factors, strict=True) if f}
            assert reports[i].weights == kept
        momenta = alpha * momenta + directions
        models, momenta = mixing @ (models - rate * momenta), mixing @ momenta
        torch.testing.assert_close(stack(agents), models, atol=1e-4, rtol=1e-4)
    assert refused


def test_fltrust_skips_a_step_that_nobody_agrees_to():
    graph = topology.build("ring", 5)
    host, agents = started(graph, method("fltrust"))
    for agent in agents:
        agent.objective.examples = torch.ones_like(agent.objective.examples)
        agent.objective.target = 2 * agent["model"] - 1  # the trusted gradient is 1 − x_i, and all others are x_i − 1
    before = stack(agents)
    run_round(host, 0)
    torch.testing.assert_close(stack(agents), torch.from_numpy(graph.mixing.copy()) @ before)  # it mixes all the same


# What they have in common


COSTS = {
    "cross-gradient": ("cross-gradient", {}, {"model": 2, "gradient": 1, "momentum": 1}),
    "cross-gradient, own momentum": ("cross-gradient", {"mix_momentum": False}, {"model": 2, "gradient": 1}),
    "fltrust": ("fltrust", {}, {"model": 2, "gradient": 1, "momentum": 1}),
    "cgsv": ("cgsv", {}, {"model": 2, "gradient": 1, "momentum": 1}),
    "cga": ("cga", {}, {"model": 1, "gradient": 1}),
    "ngc, a = 1": ("ngc", {"cluster": "data"}, {"model": 1, "gradient": 1}),
    "ngc, a = 0": ("ngc", {"cluster": "model"}, {"model": 1}),
}


@pytest.mark.parametrize(("name", "degree"), [("ring", 2), ("random-regular", 4)])
@pytest.mark.parametrize("case", COSTS)
def test_a_round_costs_so_many_vectors_and_gradients(case, name, degree):
    method_name, options, vectors = COSTS[case]
    graph = topology.build(name, 8, degree=degree)
    host, _ = started(graph, method(method_name, **options))
    for round in range(2):
        for report in run_round(host, round):
            expected = {kind: 4 * 6 * times for kind, times in vectors.items()}
            assert report.sent == dict.fromkeys(graph.neighbors(report.agent), expected)
            assert report.gradients == 1 + degree + (case == "fltrust")  # and that of Q_i
            assert (report.utilities, report.missing) == (0, [])


ALONE = {"cga": ("cga", {})}
ALONE |= {case: ("ngc", {"cluster": case}) for case in ("data", "model")}
ALONE |= {case: (case, {}) for case in ("cross-gradient", "cgsv")}


@pytest.mark.parametrize("case", ALONE)
def test_an_agent_that_hears_nobody_follows_its_own_gradient(case):
    graph = topology.build("ring", 5)
    name, options = ALONE[case]
    host, agents = started(graph, method(name, momentum=0.0, learning_rate=0.3, **options), members=[2])
    before = stack(agents)
    (report,) = run_round(host, 0)
    expected = before - 0.3 * full_gradients(agents, before)
    torch.testing.assert_close(stack(agents), expected, atol=1e-6, rtol=1e-6)
    assert report.missing == [1, 3]
    assert report.weights == {2: pytest.approx(1.0)}


DIGITS = {"num-agents": 6, "topology": "ring", "hidden": 16, "attackers": 0, "validation-size": 30, "momentum": 0.5}
LEARNERS = {"cross-gradient": {}, "cgsv": {}, "cga": {}, "ngc": {}}
LEARNERS["ngc of models"] = {"cluster": "model"}


@pytest.mark.parametrize("case", LEARNERS)
def test_the_digits_are_learned(case):
    run = LocalRun(resolve(DIGITS | {"algorithm": case.split()[0], "num-rounds": 15} | LEARNERS[case]))
    before = [agent.objective.test(agent["model"])["loss"] for agent in run.host.agents.values()]
    lines = list(run.rounds())
    after = [agent.objective.test(agent["model"])["loss"] for agent in run.host.agents.values()]
    assert len(lines) == 15
    assert sum(after) < 0.8 * sum(before)


@pytest.mark.parametrize(("name", "survives"), [("cross-gradient", False), ("ross-plus", True)])
def test_poisoned_cross_gradients_destroy_the_uniform_mean_and_not_ross_plus(name, survives):
    keys = {"algorithm": name, "num-rounds": 40, "evaluate-every": 40, "attackers": 3, "attack-target": "gradients"}
    run = LocalRun(resolve(keys))
    list(run.rounds())
    accuracy = run.summary()["accuracy"]["mean"]
    assert accuracy > 0.9 if survives else accuracy < 0.7
