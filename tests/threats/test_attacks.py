"""Attacks against byzfl, their published formulas, and what they promise to do."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import byzfl
from quadratics import Quadratic, normal

from ross_flwr.config import ConfigError, resolve
from ross_flwr.learning.rules import NNM, PRE_AGGREGATIONS, RULES, Bounded, Bucketing
from ross_flwr.threats.attacks import (
    ALIE,
    ATTACKS,
    DMPA,
    IPM,
    ALIENetwork,
    ALIEOptimised,
    BitFlip,
    Dissensus,
    Duplicate,
    Equivocation,
    Gaussian,
    Infinite,
    IPMOptimised,
    Isolation,
    Mimic,
    NoiseRider,
    ShapleyAdaptive,
    SignFlip,
    SignFlipMean,
    Stale,
    Sybil,
    View,
    ZeroSum,
)
from ross_flwr.threats.attacks.informed import published_z
from ross_flwr.threats.options import AttackOptions

SHAPES = [(1, 4), (2, 7), (5, 3), (8, 40)]


def draw(m, size, seed=0):
    return normal(1000 * seed + m, m, size).double()


def defence_of(name, pre, f):
    cls = RULES[name]
    rule = cls(byzantine=f) if issubclass(cls, Bounded) else cls()
    around = PRE_AGGREGATIONS[pre]
    return {None: rule, Bucketing: Bucketing(rule=rule), NNM: NNM(rule=rule, byzantine=f)}[around]


def view(vectors, *, rule="mean", pre="none", liars=2, seed=0, weights=None, liar_weight=None, **settings):
    """What an attacker sees of a victim with 9 neighbours: the rows, the victim's first, and liars."""
    m = len(vectors)
    share = 1 / (m + liars)
    row = dict(enumerate([share] * m if weights is None else weights))
    row |= dict.fromkeys(range(100, 100 + liars), share if liar_weight is None else liar_weight / liars)
    row |= dict.fromkeys(range(200, 210 - len(row)), 0.0)
    known = {
        "own": normal(7, vectors.shape[1]).double(),
        "known": dict(enumerate(vectors)),
        "receiver": 0,
        "row": row,
        "attackers": range(100, 105),
        "num_agents": 25,
        "position": 0,
        "pass_number": 0,
        "seed": 0,
        "name": "model",
        "draws": lambda purpose: np.random.default_rng(seed),
        "notes": {},
        "model": torch.zeros(vectors.shape[1]).double(),
        "objective": Bowl(vectors.new_ones(vectors.shape[1])),
        "rule": defence_of(rule, pre, liars),
        "learning_rate": 0.1,
    }
    return View(**(known | settings))


def lie(attack, vectors, **settings):
    return attack.lie(view(vectors, **settings))


class Bowl(Quadratic):
    """Its validation loss is ½ ‖x − target‖²."""

    def __init__(self, target, utility=None):
        super().__init__(target[None], target)
        if utility:
            self.utility = lambda vector, kind, batch: utility(vector)


def close(ours, theirs):
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-5)


ORACLES = {
    "sign-flip-mean": (SignFlipMean(), lambda: byzfl().SignFlipping()),
    "ipm": (IPM(3.0), lambda: byzfl().InnerProductManipulation(tau=3.0)),
    "alie": (ALIE(1.5), lambda: byzfl().ALittleIsEnough(tau=1.5)),
    "alie-network": (ALIENetwork(1.5), lambda: byzfl().ALittleIsEnough(tau=-1.5)),
    "duplicate": (Duplicate(), lambda: byzfl().Mimic(epsilon=0)),
    "infinite": (Infinite(), lambda: byzfl().Inf()),
}


@pytest.mark.parametrize("name", ORACLES)
def test_an_attack_gives_what_byzfl_gives(name):
    attack, theirs = ORACLES[name]
    for shape in SHAPES[1:]:
        vectors = draw(*shape)
        close(lie(attack, vectors), theirs()(vectors.numpy()))


def test_gaussian_draws_what_byzfl_draws():
    vectors = draw(5, 30)
    np.random.seed(3)
    expected = byzfl().Gaussian(mu=0.0, sigma=2.5)(vectors.numpy())
    close(lie(Gaussian(2.5), vectors, draws=lambda purpose: np.random.RandomState(3)), expected)


@pytest.mark.parametrize(
    ("attack", "theirs"), [(IPMOptimised(), "InnerProductManipulation"), (ALIEOptimised(), "ALittleIsEnough")]
)
@pytest.mark.parametrize(
    ("rule", "pre"), [("trimmed-mean", "none"), ("median", "none"), ("trimmed-mean", "nnm"), ("mean", "none")]
)
def test_an_optimised_attack_searches_as_byzfl_does(attack, theirs, rule, pre):
    for seed in range(3):
        vectors = draw(8, 20, seed)
        rules = {"trimmed-mean": lambda: byzfl().TrMean(2), "median": byzfl().Median, "mean": byzfl().Average}
        before = [byzfl().NNM(2)] if pre == "nnm" else []
        reference = getattr(byzfl(), f"Optimal_{theirs}")(rules[rule](), before, 2)
        close(lie(attack, vectors, rule=rule, pre=pre), reference(vectors.numpy()))


def test_a_little_is_enough_takes_the_published_z():
    vectors = draw(6, 8)
    mean, deviation = vectors.mean(0), vectors.std(0)
    # 9 neighbours, 2 lie: s = 5 - 2, z = Φ⁻¹(6/9). 25 agents, 5 lie: s = 13 - 5, z = Φ⁻¹(12/20).
    close(lie(ALIE(), vectors), (mean + 0.430727 * deviation).numpy())
    close(lie(ALIENetwork(), vectors), (mean - 0.253347 * deviation).numpy())


@given(neighbors=st.integers(1, 200), liars=st.integers(1, 200))
def test_z_is_finite_and_not_negative_however_many_lie(neighbors, liars):
    assert 0 <= published_z(neighbors, (neighbors + 1) // 2 - liars) < 3


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_returns_a_vector_of_its_own_and_changes_none(name):
    for shape in SHAPES:
        vectors, own = draw(*shape), draw(1, shape[1], seed=5)[0]
        before = vectors.clone(), own.clone()
        told = lie(ATTACKS[name](), vectors, own=own)
        assert (told.shape, told.dtype) == (own.shape, own.dtype)
        assert bool(told.isfinite().all()) is (name != "infinite")
        assert torch.equal(vectors, before[0])
        assert torch.equal(own, before[1])


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.blind])
def test_a_blind_attack_needs_nobody_elses_vectors(name):
    own = normal(1, 6).double()
    assert torch.equal(lie(ATTACKS[name](), torch.empty(0, 6), own=own), lie(ATTACKS[name](), draw(4, 6), own=own))


def test_flips_point_the_other_way():
    vectors, own = draw(4, 6), normal(3, 6).double()
    close(lie(SignFlip(), vectors, own=own), (-3 * own).numpy())
    close(lie(SignFlip(0.5), vectors, own=own), (-0.5 * own).numpy())
    close(lie(BitFlip(), vectors, own=own), (-own).numpy())
    close(lie(IPM(), vectors), (-0.1 * vectors.mean(0)).numpy())


def test_sums_are_as_published():
    vectors = draw(5, 6)  # row 0 is the victim
    others = vectors[1:].sum(0)
    close(others + 2 * lie(ZeroSum(), vectors), np.zeros(6))
    close(others + 2 * lie(Isolation(), vectors), (4 * vectors[0]).numpy())
    weights, lies = [0.3, 0.1, 0.2, 0.1, 0.1], 0.2
    mixed = torch.tensor(weights).double() @ vectors
    told = lie(Dissensus(), vectors, weights=weights, liar_weight=lies)
    close(mixed + lies * told, vectors[0].numpy())
    closer = lie(Dissensus(0.5), vectors, weights=weights, liar_weight=lies)
    close(mixed + lies * closer, ((vectors[0] + mixed + lies * vectors[0]) / 2).numpy())


def test_mimic_finds_the_direction_of_most_variance_and_copies_the_extreme():
    notes, generator = {}, np.random.default_rng(0)
    spread = torch.tensor([0.1, 0.1, 3.0, 0.1]).double()
    for t in range(40):
        vectors = draw(6, 4, seed=t) * spread
        told = lie(Mimic(30), vectors, notes=notes, draws=lambda purpose: generator)
        expected = vectors[0] if t < 30 else vectors[vectors[:, 2].abs().argmax()]
        assert torch.equal(told, expected)
    assert float(notes["direction"][2].abs()) > 0.98


def test_mimic_follows_its_listing():
    notes, z, mu = {}, None, 0
    for t in range(4):
        x = draw(5, 6, seed=t).numpy()
        lie(Mimic(), torch.from_numpy(x), notes=notes, seed=9)
        z = np.random.default_rng(9).standard_normal(6) if z is None else z
        z = z / np.linalg.norm(z)
        mu = (t * mu + x.mean(0)) / (t + 1)
        total = sum((k - mu) * ((k - mu) @ z) for k in x)
        z = (t + 1) / (t + 2) * z + total / np.linalg.norm(total) / (t + 2)
    close(notes["direction"], z / np.linalg.norm(z))
    close(notes["mean"], mu)


@pytest.mark.parametrize(("k", "sent"), [(0, [2, 2, 2, 2, 2]), (1, [2, 2, 3, 5, 6]), (3, [2, 2, 2, 3, 3])])
def test_a_stale_vector_is_as_old_as_asked_for_or_as_old_as_there_is(k, sent):
    notes = {}
    for number, expected in zip([2, 3, 5, 6, 7], sent, strict=True):
        own = torch.full((3,), float(number))
        assert lie(Stale(k), draw(2, 3), own=own, pass_number=number, notes=notes).tolist() == [expected] * 3
    assert len(notes) <= k + 1


def test_noise_is_as_long_as_what_the_honest_send():
    vectors = draw(5, 400)
    first, second = (lie(NoiseRider(), vectors, seed=seed) for seed in (0, 1))
    assert float(first.norm()) == pytest.approx(float(vectors.norm(dim=1).mean()))
    assert abs(float(first @ second)) < 0.3 * float(first @ first)


def test_sybils_send_nearly_the_same_whoever_they_are():
    owns = normal(1, 50).double(), normal(2, 50).double()
    owns = [own / own.norm() for own in owns]
    first, second = (lie(Sybil(), draw(3, 50), own=own, seed=seed) for seed, own in enumerate(owns))
    assert 0 < float((first - second).norm()) < 0.01 * float(first.norm())
    assert float((owns[0] - owns[1]).norm()) > 1


def test_equivocation_tells_every_second_neighbour_the_opposite():
    own = normal(1, 50).double()
    lies = [lie(Equivocation(), draw(3, 50), own=own, position=k) - own for k in range(3)]
    assert torch.equal(lies[0], lies[2])
    close(lies[0], -lies[1].numpy())
    assert float(lies[0].norm()) == pytest.approx(float(own.norm()))


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[-1]])
def test_dmpa_follows_its_reconstruction(shape):
    own, vectors = normal(3, shape[1]).double(), draw(*shape)
    a = np.vstack([own.numpy(), vectors.numpy()])
    values, eigenvectors = np.linalg.eigh(np.corrcoef(a))
    theta = np.arccos(np.clip(values[-1] / len(a), -1, 1))
    d = a.T @ eigenvectors[:, -1]
    d /= np.linalg.norm(d)
    close(lie(DMPA(), vectors, own=own), (a - (1 + np.sin(theta)) * np.outer(a @ d, d)).mean(0))


def test_the_adaptive_attack_helps_the_victim_and_pulls_it_away_all_the_same():
    target = torch.zeros(30).double()
    target[:3] = 1  # descent leads along the first three coordinates; the rest is where harm hides
    others = -target.expand(4, -1) * 0.1

    def worth(told):
        return -0.5 * float((-0.1 * told - target).square().sum())

    told = lie(ShapleyAdaptive(), others, objective=Bowl(target, lambda x: worth(-10 * x)))
    assert worth(told) > worth(torch.zeros(30))
    assert float(told[3:].norm()) > float(told[:3].norm()) / sqrt(30)
    assert float(told[:3].min()) < 0


def test_the_adaptive_attack_tells_the_truth_where_no_lie_pays_and_where_it_has_heard_no_model():
    own = normal(3, 6).double()
    assert torch.equal(lie(ShapleyAdaptive(), draw(3, 6), own=own, objective=Bowl(own, lambda x: 0.0)), own)
    assert torch.equal(lie(ShapleyAdaptive(), draw(3, 6), own=own, model=None), own)


@pytest.mark.parametrize(
    ("options", "attack"),
    [
        ({"attack": "ipm"}, IPM(0.1)),
        ({"attack": "ipm", "attack-strength": 3}, IPM(3.0)),
        ({"attack": "mimic", "attack-strength": 10}, Mimic(10)),
        ({"attack": "zero"}, ATTACKS["zero"]()),
        ({"attack": "none"}, None),
    ],
)
def test_an_attack_takes_its_number_from_the_configuration(options, attack):
    assert resolve(options).part(AttackOptions).chosen() == attack


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attack": "sign-flop"}, "did you mean 'sign-flip'"),
        ({"attack": "sign-flip", "attack-strength": -1}, "attack-strength = -1.0 .* a number of at least 0"),
        ({"attack": "mimic", "attack-strength": 2.5}, "attack-strength = 2.5 .* a whole number of at least 1"),
        ({"attack": "zero", "attack-strength": 2}, "attack-strength = 2 .* 'zero' takes no number, so use 0"),
    ],
)
def test_a_number_that_an_attack_does_not_take_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        resolve(options).part(AttackOptions).chosen()
