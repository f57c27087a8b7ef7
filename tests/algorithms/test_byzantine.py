"""Methods that screen their neighbours' models, each against its own rule written again in numpy."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratics import full_gradients, normal, objective_of, stack, team

from ross_flwr.algorithms.balance import BALANCE
from ross_flwr.algorithms.bridge import BRIDGE
from ross_flwr.algorithms.clipped_gossip import ClippedGossip
from ross_flwr.algorithms.flag import Flag
from ross_flwr.algorithms.ios import IOS
from ross_flwr.algorithms.monna import MoNNA
from ross_flwr.algorithms.pfedgame import PFedGame
from ross_flwr.algorithms.resilient_p2p import ResilientP2P
from ross_flwr.algorithms.ubar import UBAR
from ross_flwr.config import ConfigError, resolve
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology
from ross_flwr.learning.agent import Agent
from ross_flwr.runs.local import LocalRun

STILL = {"learning_rate": 0.0}
METHODS = {
    "ubar": UBAR,
    "clipped-gossip": ClippedGossip,
    "clipped-gossip fixed": partial(ClippedGossip, radius_rule="fixed"),
    "monna": MoNNA,
    "ios": IOS,
    "balance": BALANCE,
    "resilient-p2p": ResilientP2P,
    "flag": Flag,
    "pfedgame": PFedGame,
    **{f"bridge {rule}": partial(BRIDGE, screening=rule) for rule in ("trimmed-mean", "median", "krum", "bulyan")},
}
F_ZERO = {"byzantine": 0}
SIZE = 6


# The rules again, on numpy arrays: own [P], others [k, P], weights [k] of the others, loss a function, round of 60.


def np_trimmed_mean(own, others, f):
    if len(others) <= 2 * f:
        return own
    columns = [sorted(column)[f : len(others) - f] for column in others.T]
    return np.array([(sum(kept) + x) / (len(kept) + 1) for kept, x in zip(columns, own, strict=True)])


def np_krum_index(models, f):
    near = len(models) - max(0, min(f, (len(models) - 3) // 2)) - 2
    scores = []
    for i, a in enumerate(models):
        squares = sorted(((a - b) ** 2).sum() for j, b in enumerate(models) if j != i)
        scores.append(sum(squares[: max(0, near)]))
    return int(np.argmin(scores))


def np_krum(own, others, f):
    models = [own, *others]
    return models[np_krum_index(models, f)] if len(models) >= 2 * f + 3 else own


def np_bulyan(own, others, f):
    left, chosen = [own, *others], []
    if len(left) < 4 * f + 3:
        return own
    while len(left) > 2 * f:
        chosen += [left.pop(np_krum_index(left, f))]
    result = []
    for column in np.array(chosen).T:
        middle = np.median(column)
        near = sorted(column, key=lambda x: abs(x - middle))[: len(column) - 2 * f]
        result.append(np.mean(near))
    return np.array(result)


def np_bridge(rule):
    rules = {
        "trimmed-mean": np_trimmed_mean,
        "median": lambda own, others, f: np.median([own, *others], axis=0) if len(others) > 2 * f else own,
        "krum": np_krum,
        "bulyan": np_bulyan,
    }
    return lambda own, others, weights, loss, f: rules[rule](own, others, f)


def np_clipped(own, others, weights, loss, f, radius=None):
    pulls = others - own
    lengths = np.sqrt((pulls**2).sum(1))
    if radius is None:
        radius = sorted(lengths)[-1 - f] if len(lengths) > f else 0.0
    return own + sum(w * z * min(1.0, radius / max(n, 1e-30)) for w, z, n in zip(weights, pulls, lengths, strict=True))


def np_monna(own, others, weights, loss, f):
    lengths = ((others - own) ** 2).sum(1)
    near = np.argsort(lengths, kind="stable")[: max(0, len(others) - f)]
    return np.concatenate([own[None], others[near]]).mean(0)


def np_ios(own, others, weights, loss, f):
    left = list(range(len(others)))
    rest = 1 - sum(weights)

    def center():
        mass = rest + sum(weights[j] for j in left)
        return (rest * own + sum(weights[j] * others[j] for j in left)) / mass

    for _ in range(min(f, len(others))):
        middle = center()
        left.pop(int(np.argmax([((others[j] - middle) ** 2).sum() for j in left])))
    return center()


def np_balance(own, others, weights, loss, f):
    bound = 0.3 * math.exp(-17 / 60) * np.linalg.norm(own)
    near = [x for x in others if np.linalg.norm(x - own) <= bound]
    return 0.5 * own + 0.5 * np.mean(near, axis=0) if near else own


def np_resilient(own, others, weights, loss, f):
    models = [x for x in others if loss(x) <= loss(own)] + [own]
    inverse = np.array([1 / loss(x) for x in models])
    return (inverse[:, None] * np.array(models)).sum(0) / inverse.sum()


def np_flag(own, others, weights, loss, f):
    pulls = np.array([x - own for x in others if np.any(x != own)])
    if not len(pulls):
        return own
    lengths = np.linalg.norm(pulls, axis=1)
    g = (pulls / lengths[:, None]).T
    w, r = np.ones(len(pulls)), math.ceil((len(pulls) + 1) / 2)
    for _ in range(20):
        _, vectors = np.linalg.eigh((g * w) @ (g * w).T)
        projector = vectors[:, -r:] @ vectors[:, -r:].T
        w = (abs(1 - np.einsum("ij,ik,kj->j", g, projector, g)) + 1e-7) ** -0.25
    return own + np.median(lengths) * (projector @ g).sum(1) / (len(others) + 1)


def np_pfedgame(own, others, weights, loss, f):
    def value(x):
        return math.exp(-0.5 * (x**2).sum())

    z = own
    for x in sorted(others, key=value, reverse=True)[:2]:
        half = value((z + x) / 2)
        phi_own = max(0, 0.5 * (value(z) + half - value(x)))
        phi_peer = max(0, 0.5 * (value(x) + half - value(z)))
        z = (phi_own * z + phi_peer * x) / (phi_own + phi_peer)
    return z


def np_ubar(own, others, weights, loss, f):
    if not len(others):
        return own
    near = sorted(others, key=lambda x: ((x - own) ** 2).sum())[: max(1, int(0.4 * len(others)))]
    better = [x for x in near if loss(x) <= loss(own)] or [min(near, key=loss)]
    return 0.5 * own + 0.5 * np.mean(better, axis=0)


ORACLES = {
    "ubar": np_ubar,
    "clipped-gossip": np_clipped,
    "clipped-gossip fixed": partial(np_clipped, radius=1.0),
    "monna": np_monna,
    "ios": np_ios,
    "balance": np_balance,
    "resilient-p2p": np_resilient,
    "flag": np_flag,
    "pfedgame": np_pfedgame,
    **{f"bridge {rule}": np_bridge(rule) for rule in ("trimmed-mean", "median", "krum", "bulyan")},
}


def made(name, **options):
    """The method, without the options it does not have."""
    known = (
        {} if name in ("ubar", "balance", "resilient-p2p", "pfedgame") else {"byzantine": options.pop("byzantine", 1)}
    )
    options.pop("byzantine", None)
    return METHODS[name](**STILL | known | options)


def agent_with(num_neighbors, index=0):
    """Agent `index` among its neighbours, with weights that are all different."""
    shares = np.arange(2, num_neighbors + 3)
    return Agent(index, objective_of(3), dict(enumerate((shares / shares.sum()).tolist())), seed=0, batch_size=5)


def combined(algorithm, agent, own, others):
    """The model after `screen`, and a check that nobody's vector was changed."""
    agent["model"], agent.pass_number, agent.total_passes = own.clone(), 17, 60
    before = {j: vector.clone() for j, vector in others.items()}
    result = algorithm.combine(agent, own, others)
    assert torch.equal(own, agent["model"])
    assert all(torch.equal(others[j], before[j]) for j in others)
    return result


def drawn(seed, count, spread=1.0):
    """The own vector and those of neighbours 1, 2, …"""
    vectors = normal(seed, 1, SIZE) + spread * normal(seed + 1, count + 1, SIZE)
    return vectors[0], {j: vectors[j] for j in range(1, count + 1)}


@pytest.mark.parametrize("name", METHODS)
@given(
    count=st.integers(0, 9),
    byzantine=st.integers(0, 3),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.05, 0.2, 1.0]),
    absent=st.integers(0, 3),
    copies=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_a_rule_is_its_formula_whoever_is_missing_or_the_same(name, count, byzantine, seed, spread, absent, copies):
    agent = agent_with(count + absent)
    own, others = drawn(seed, count, spread)
    if (
        copies and "bulyan" not in name
    ):  # where which of two values as far from their median stays is for rounding to say
        pool = [own, *others.values()]
        others = {j: pool[j % 3].clone() for j in others}
    array = np.array([x.numpy() for x in others.values()], dtype=np.float64).reshape(-1, SIZE)
    examples = agent.objective.examples.double().numpy()

    def loss(x):
        return 0.5 * ((x - examples) ** 2).sum(1).mean()

    weights = [agent.mixing_row[j] for j in others]
    expected = ORACLES[name](own.double().numpy(), array, weights, loss, byzantine)
    result = combined(made(name, byzantine=byzantine), agent, own, others)
    np.testing.assert_allclose(result.numpy(), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("byzantine", [0, 1])
def test_identical_vectors_come_back(name, byzantine):
    own = normal(4, SIZE)
    result = combined(made(name, byzantine=byzantine), agent_with(7), own, {j: own.clone() for j in range(1, 8)})
    torch.testing.assert_close(result, own)


@pytest.mark.parametrize("name", METHODS)
def test_an_agent_that_hears_nobody_keeps_its_own_step(name):
    own = normal(4, SIZE)
    torch.testing.assert_close(combined(made(name), agent_with(7), own, {}), own)


FAR = 1e6


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("far", [FAR, 1e38])
def test_one_far_outlier_moves_no_method_farther_than_honest_neighbours_do(name, far):
    own, others = drawn(9, 7, 0.1)
    agent = agent_with(7)
    reach = max(float((x - own).norm()) for x in others.values())
    others[4] = torch.full((SIZE,), far)
    bound = 1.0 if name == "clipped-gossip fixed" else reach
    assert float((combined(made(name), agent, own, others) - own).norm()) <= bound
    assert float((agent.mix({0: own, **others}) - own).norm()) > far / 10


# Limits


def mixing(agent, own, others):
    return agent.mix({agent.index: own, **others})


def plain_mean(agent, own, others):
    return torch.stack([own, *others.values()]).mean(0)


def half_and_half(agent, own, others):
    return 0.25 * own + 0.75 * torch.stack(tuple(others.values())).mean(0)


def keep(agent, own, others):
    return own


@pytest.mark.parametrize(
    ("algorithm", "limit"),
    [
        (ClippedGossip(radius_rule="fixed", radius=1e30), mixing),
        (ClippedGossip(byzantine=0), mixing),
        (ClippedGossip(radius_rule="fixed", radius=0.0), keep),
        (MoNNA(byzantine=0), plain_mean),
        (IOS(byzantine=0), mixing),
        (BALANCE(similarity=1e30, own_weight=0.25), half_and_half),
        (BALANCE(similarity=0.0), keep),
        (UBAR(**STILL, own_weight=1.0), keep),
        (BRIDGE(**STILL, byzantine=0), plain_mean),
        (BRIDGE(**STILL, screening="bulyan", byzantine=0), plain_mean),
    ],
    ids=lambda part: getattr(part, "__name__", str(part)),
)
@pytest.mark.parametrize("absent", [0, 2])
def test_at_its_limit_a_method_is_a_simpler_one(algorithm, limit, absent):
    own, others = drawn(2, 5)
    agent = agent_with(5 + absent)
    torch.testing.assert_close(combined(algorithm, agent, own, others), limit(agent, own, others))


def test_told_who_lies_clipped_gossip_takes_the_radius_of_the_theory():
    own, others = drawn(2, 5)
    agent, algorithm = agent_with(6), ClippedGossip(radius_rule="oracle", byzantine=9)
    torch.testing.assert_close(combined(algorithm, agent, own, others), mixing(agent, own, others))  # nobody lies
    agent.attackers = frozenset({2, 5, 6, 77})  # 6 was not heard, 77 is no neighbour
    weights, squares = agent.mixing_row, {j: float((x - own).square().sum()) for j, x in others.items()}
    spread = sum(weights[j] * squares[j] for j in (1, 3, 4))
    radius = math.sqrt(spread / (weights[2] + weights[5]))
    fixed = ClippedGossip(radius_rule="fixed", radius=radius)
    result = combined(algorithm, agent, own, others)
    torch.testing.assert_close(result, combined(fixed, agent, own, others))
    assert not torch.allclose(result, mixing(agent, own, others))
    assert torch.equal(combined(algorithm, agent, own, {2: others[2]}), own)  # only a liar was heard


def test_the_experiment_tells_agents_who_attacks():
    run = LocalRun(resolve({"attackers": 3, "beside": ""}))
    assert {agent.attackers for agent in run.host.agents.values()} == {run.assembly.threats.attackers}
    assert len(run.assembly.threats.attackers) == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"own": 0.5, "peer": 0.5, "pair": 0.5}, 0.5),
        ({"own": 0.4, "peer": 0.6, "pair": 0.8}, 0.625),
        ({"own": 0.9, "peer": 0.1, "pair": 0.5}, 0.0),
        ({"own": 0.1, "peer": 0.9, "pair": 0.5}, 1.0),
        ({"own": 0.0, "peer": 0.0, "pair": 0.0}, 0.0),
    ],
)
def test_a_game_of_two_is_settled_by_accuracy_where_that_is_asked_for(values, expected):
    class Judge(Agent):
        def utility(self, vector, kind):
            assert kind == "accuracy"
            return values[{0.0: "own", 1.0: "peer"}.get(float(vector[0]), "pair")]

    agent = Judge(0, objective_of(3), {0: 0.5, 1: 0.5}, seed=0, batch_size=5)
    result = combined(PFedGame(utility="accuracy"), agent, torch.zeros(SIZE), {1: torch.ones(SIZE)})
    torch.testing.assert_close(result, torch.full((SIZE,), expected))


def test_monna_keeps_its_own_vector_even_among_a_crowd_elsewhere():
    own, others = drawn(2, 6)
    crowd = {j: normal(8, SIZE) + 50 for j in others}
    result = combined(MoNNA(byzantine=6), agent_with(6), own, crowd)
    torch.testing.assert_close(result, own)


def test_balance_gets_stricter_by_the_round_and_has_no_favourite_when_nobody_is_near():
    own, others = drawn(2, 4, 0.1)
    ratio = max(float((x - own).norm()) for x in others.values()) / float(own.norm())
    algorithm = BALANCE(similarity=1.5 * ratio)
    agent = agent_with(4)
    agent.total_passes = 20
    for round, accepts in [(0, True), (8, True), (9, False), (19, False)]:  # 1.5 exp(-t/20) falls below 1 at t = 8.1
        agent.pass_number = round
        far = {j: own + (x - own) * (ratio * own.norm() / (x - own).norm()) for j, x in others.items()}
        assert torch.equal(algorithm.combine(agent, own, far), own) is not accepts


@pytest.mark.parametrize("name", ["ubar", "resilient-p2p"])
def test_methods_that_judge_by_loss_can_judge_on_the_validation_set(name):
    class Liked(Agent):
        def utilities(self, models, kind):
            return [-float(model[0]) for model in models]

    own = torch.full((SIZE,), 0.2)
    others = {j: own + 0.01 * j for j in (1, 2)} | {3: own - 0.1}
    agent = Liked(0, objective_of(3), dict.fromkeys(range(4), 0.25), seed=0, batch_size=5)
    algorithm = made(name, loss_data="validation", **({"near_share": 1.0} if name == "ubar" else {}))
    weights = [0.5, 0.5] if name == "ubar" else [1 / 3, 2 / 3]  # losses 0.2 and 0.1
    expected = weights[0] * own + weights[1] * others[3]
    torch.testing.assert_close(combined(algorithm, agent, own, others), expected)


@pytest.mark.parametrize("name", ["ubar", "resilient-p2p"])
def test_a_model_without_a_loss_is_the_worst_and_a_lost_agent_follows_the_others(name):
    class Lost(Agent):
        def loss(self, vector, data="batch"):
            return math.inf if float(vector[0]) > 5 else 1.0

    agent = Lost(0, objective_of(3), dict.fromkeys(range(3), 1 / 3), seed=0, batch_size=5)
    options = {"near_share": 1.0, "own_weight": 0.0} if name == "ubar" else {}
    lost, sound = torch.full((SIZE,), 9.0), torch.ones(SIZE)
    for own in (lost, sound):
        result = combined(made(name, **options), agent, own, {1: lost.clone(), 2: sound.clone()})
        assert torch.equal(result, sound)
    everybody = combined(made(name, **options), agent, lost, {1: lost.clone(), 2: lost.clone()})
    assert torch.equal(everybody, lost)


def test_a_loss_of_nothing_gets_no_infinite_weight():
    class Perfect(Agent):
        def loss(self, vector, data="batch"):
            return float(vector[0])

    agent = Perfect(0, objective_of(3), dict.fromkeys(range(4), 0.25), seed=0, batch_size=5)
    others = {1: torch.full((SIZE,), -1e-9), 2: torch.ones(SIZE), 3: torch.zeros(SIZE)}
    result = combined(made("resilient-p2p"), agent, torch.full((SIZE,), 1e-9), others)
    torch.testing.assert_close(result, torch.zeros(SIZE), atol=1e-12, rtol=0)


def test_nan_is_told_as_an_infinite_loss():
    class Broken(type(objective_of(3))):
        def loss(self, vector, batch):
            return math.nan

        def utility(self, vector, kind):
            return math.nan

    agent = Agent(0, Broken(normal(0, 5, SIZE)), {0: 1.0}, seed=0, batch_size=5)
    assert agent.loss(torch.zeros(SIZE)) == agent.loss(torch.zeros(SIZE), "validation") == math.inf
    assert agent.counts["utilities"] == 2


# Whole rounds


def run_round(host, round):
    host.activate(round, 0)
    host.activate(round, 1)
    host.end_pass()


@pytest.mark.parametrize(
    ("algorithm", "step"),
    [
        (IOS(learning_rate=0.2, byzantine=0), lambda w, x, g, m: (w @ (x - 0.2 * g(x)), m)),
        (
            ClippedGossip(learning_rate=0.2, byzantine=0, momentum=0.5),
            lambda w, x, g, m: (w @ (x - 0.2 * (0.5 * m + g(x))), 0.5 * m + g(x)),
        ),
        (
            MoNNA(learning_rate=0.2, byzantine=0, momentum=0.75),
            lambda w, x, g, m: ((x - 0.05 * (3 * m + g(x))).mean(0).expand_as(x), 0.75 * m + 0.25 * g(x)),
        ),
        (BRIDGE(learning_rate=0.2, byzantine=0), lambda w, x, g, m: (x.mean(0) - 0.2 * g(x), m)),
        (
            BALANCE(learning_rate=0.2, similarity=1e9, own_weight=0.2),
            lambda w, x, g, m: ((x - 0.2 * g(x)).mean(0).expand_as(x), m),
        ),
        (UBAR(learning_rate=0.2, own_weight=1.0), lambda w, x, g, m: (x - 0.2 * g(x), m)),
    ],
    ids=lambda part: getattr(part, "__name__", str(part)),
)
def test_rounds_are_the_dense_equation_at_the_limit(algorithm, step):
    graph = topology.build("complete", 5)
    host = Host("run", algorithm, team(graph, algorithm))
    agents = list(host.agents.values())
    models, weights = stack(agents), torch.from_numpy(graph.mixing.copy())
    momentum = torch.zeros_like(models)
    for round in range(4):
        run_round(host, round)
        models, momentum = step(weights, models, lambda x: full_gradients(agents, x), momentum)
        torch.testing.assert_close(stack(agents), models, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_a_round_costs_one_model_a_neighbour_one_gradient_and_the_losses_it_is_said_to(name):
    graph = topology.build("random-regular", 9, degree=6)
    algorithm = made(name, learning_rate=0.1)
    host = Host("run", algorithm, team(graph, algorithm))
    losses = {"ubar": 1 + 2, "resilient-p2p": 1 + 6, "pfedgame": 6 + 4}.get(name, 0)
    for round in range(2):
        run_round(host, round)
        for report in host.end_round(evaluate=False):
            assert report.sent == {j: {"model": 4 * SIZE} for j in graph.neighbors(report.agent)}
            assert (report.gradients, report.utilities, report.missing) == (1, losses, [])


@pytest.mark.parametrize(
    ("name", "byzantine", "needed"),
    [
        ("clipped-gossip", 1, 2),
        ("clipped-gossip fixed", 9, 0),
        ("monna", 2, 4),
        ("ios", 2, 4),
        ("balance", 1, 0),
        ("ubar", 1, 0),
        ("resilient-p2p", 1, 0),
        ("pfedgame", 1, 0),
        ("flag", 2, 5),
        ("bridge trimmed-mean", 1, 3),
        ("bridge median", 1, 3),
        ("bridge krum", 1, 4),
        ("bridge bulyan", 1, 6),
    ],
)
def test_too_few_neighbours_are_told_before_the_run(name, byzantine, needed):
    algorithm = made(name, byzantine=byzantine)
    for degree in (2, 3, 4, 5, 6):
        graph = topology.build("random-regular", 12, degree=degree)
        if degree >= needed:
            algorithm.check(graph.mixing, 60)
        else:
            with pytest.raises(
                ConfigError, match=f"needs {needed} neighbours for every agent, and agent 0 has {degree}"
            ):
                algorithm.check(graph.mixing, 60)


def test_an_experiment_asks_the_method_whether_it_likes_the_graph():
    with pytest.raises(ConfigError, match="bridge with byzantine = 1 needs 6 neighbours"):
        LocalRun(resolve({"algorithm": "bridge", "screening": "bulyan"}))


def digits(name, rounds, **changes):
    algorithm, _, rule = name.partition(" ")
    key = {"bridge": "screening", "clipped-gossip": "radius-rule"}.get(algorithm)
    choice = {key: rule} if rule else {}
    graph = {"topology-degree": 6} if rule == "bulyan" else {}
    config = {"algorithm": algorithm, "beside": "", "num-rounds": rounds, "evaluate-every": rounds, **choice, **graph}
    run = LocalRun(resolve(config | changes))
    untrained = run.assembly.task.objective(0).test(run.assembly.task.model.initial)["loss"]
    for _ in run.rounds():
        pass
    return untrained, run.history.lines[-1]


@pytest.mark.parametrize("name", METHODS)
def test_without_attackers_digits_are_learned(name):
    untrained, line = digits(name, 20, attackers=0)
    assert line["loss"]["mean"] < 0.95 * untrained


@pytest.mark.parametrize("name", [*METHODS, "dpsgd"])
def test_two_of_ten_who_climb_the_loss_are_survived_but_not_by_plain_mixing(name):
    _, line = digits(name, 60, attackers=2, seed=1)
    assert (line["accuracy"]["mean"] > 0.3) is (name != "dpsgd")
