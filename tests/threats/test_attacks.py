"""Attacks against byzfl, their published formulas, and what they promise to do."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import byzfl
from quadratics import normal

from ross_flwr.learning.rules import Aggregation
from ross_flwr.threats.attacks import ATTACKS, BLIND, published_z

SHAPES = [(1, 4), (2, 7), (5, 3), (8, 40)]


def draw(m, size, seed=0):
    return normal(1000 * seed + m, m, size).double()


def attack(name, vectors, *, seed=0, shared=0, rule="mean", pre="none", notes=None, **settings):
    """Call an attack on a neighbourhood of which the first row is the victim, and 2 of 9 others lie."""
    f = settings.get("liars", 2)
    shares = torch.full((len(vectors) + f,), 1 / (len(vectors) + f)).double()

    def defence(lie):
        stack = torch.cat([vectors, lie.expand(f, -1)])
        generator = np.random.default_rng(0)
        return Aggregation(rule, pre, f)(stack, own=vectors[0], weights=shares, generator=generator)

    known = {
        "own": normal(7, vectors.shape[1]).double(),
        "victim": vectors[:1].sum(0),
        "weights": shares[: len(vectors)],
        "liar_weight": float(shares[len(vectors) :].sum()),
        "liars": f,
        "neighbors": 9,
        "num_attackers": 5,
        "num_agents": 25,
        "generator": np.random.default_rng(seed),
        "common": np.random.default_rng(1000 + shared),
        "position": 0,
        "notes": {} if notes is None else notes,
        "round": 0,
        "defence": defence,
        "model": torch.zeros(vectors.shape[1]).double(),
        "learning_rate": 0.1,
        "utility": lambda x: -0.5 * float((x - 1).square().sum()),
        "gradient": lambda x: x - 1,
    }
    return ATTACKS[name](vectors, **(known | settings))


def close(ours, theirs):
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-5)


ORACLES = {
    "sign-flip-mean": ({}, lambda: byzfl().SignFlipping()),
    "ipm": ({"strength": 3.0}, lambda: byzfl().InnerProductManipulation(tau=3.0)),
    "alie": ({"strength": 1.5}, lambda: byzfl().ALittleIsEnough(tau=1.5)),
    "alie-network": ({"strength": 1.5}, lambda: byzfl().ALittleIsEnough(tau=-1.5)),
    "duplicate": ({}, lambda: byzfl().Mimic(epsilon=0)),
    "infinite": ({}, lambda: byzfl().Inf()),
}


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("name", ORACLES)
def test_an_attack_gives_what_byzfl_gives(name, shape):
    settings, theirs = ORACLES[name]
    vectors = draw(*shape)
    close(attack(name, vectors, **settings), theirs()(vectors.numpy()))


def test_gaussian_draws_what_byzfl_draws():
    vectors = draw(5, 30)
    np.random.seed(3)
    expected = byzfl().Gaussian(mu=0.0, sigma=2.5)(vectors.numpy())
    close(attack("gaussian", vectors, strength=2.5, generator=np.random.RandomState(3)), expected)


@pytest.mark.parametrize(
    ("name", "theirs"), [("ipm-optimised", "InnerProductManipulation"), ("alie-optimised", "ALittleIsEnough")]
)
@pytest.mark.parametrize(
    ("rule", "pre"), [("trimmed-mean", "none"), ("median", "none"), ("trimmed-mean", "nnm"), ("mean", "none")]
)
@pytest.mark.parametrize("seed", range(3))
def test_an_optimised_attack_searches_as_byzfl_does(name, theirs, rule, pre, seed):
    f, vectors = 2, draw(8, 20, seed)
    rules = {"trimmed-mean": lambda: byzfl().TrMean(f), "median": byzfl().Median, "mean": byzfl().Average}
    before = [byzfl().NNM(f)] if pre == "nnm" else []
    reference = getattr(byzfl(), f"Optimal_{theirs}")(rules[rule](), before, f)
    close(attack(name, vectors, rule=rule, pre=pre, liars=f), reference(vectors.numpy()))


def test_a_little_is_enough_takes_the_published_z():
    vectors = draw(6, 8)
    mean, deviation = vectors.mean(0), vectors.std(0)
    # 9 neighbours, 2 lie: s = 5 - 2, z = Φ⁻¹(6/9). 25 agents, 5 lie: s = 13 - 5, z = Φ⁻¹(12/20).
    close(attack("alie", vectors), (mean + 0.430727 * deviation).numpy())
    close(attack("alie-network", vectors), (mean - 0.253347 * deviation).numpy())


@given(neighbors=st.integers(1, 200), liars=st.integers(1, 200))
def test_z_is_finite_and_not_negative_however_many_lie(neighbors, liars):
    assert 0 <= published_z(neighbors, (neighbors + 1) // 2 - liars) < 3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_returns_a_vector_of_its_own_and_changes_none(name, shape):
    vectors, own = draw(*shape), draw(1, shape[1], seed=5)[0]
    before = vectors.clone(), own.clone()
    lie = attack(name, vectors, own=own)
    assert (lie.shape, lie.dtype) == (own.shape, own.dtype)
    assert bool(lie.isfinite().all()) is (name != "infinite")
    assert torch.equal(vectors, before[0])
    assert torch.equal(own, before[1])


@pytest.mark.parametrize("name", sorted(BLIND))
def test_a_blind_attack_needs_nobody_elses_vectors(name):
    nobody = torch.empty(0, 6).double()
    lie = attack(name, nobody, own=normal(1, 6).double(), victim=None, weights=None)
    assert torch.equal(lie, attack(name, draw(4, 6), own=normal(1, 6).double()))


def test_flips_point_the_other_way():
    vectors, own = draw(4, 6), normal(3, 6).double()
    close(attack("sign-flip", vectors, own=own), (-3 * own).numpy())
    close(attack("sign-flip", vectors, own=own, strength=0.5), (-0.5 * own).numpy())
    close(attack("bit-flip", vectors, own=own), (-own).numpy())
    close(attack("ipm", vectors), (-0.1 * vectors.mean(0)).numpy())


def test_sums_are_as_published():
    vectors = draw(5, 6)  # row 0 is the victim
    others = vectors[1:].sum(0)
    close(others + 2 * attack("zero-sum", vectors), np.zeros(6))
    close(others + 2 * attack("isolation", vectors), (4 * vectors[0]).numpy())
    weights, lies = torch.tensor([0.3, 0.1, 0.2, 0.1, 0.1]).double(), 0.2
    lie = attack("dissensus", vectors, weights=weights, liar_weight=lies)
    close(weights @ vectors + lies * lie, vectors[0].numpy())
    closer = attack("dissensus", vectors, weights=weights, liar_weight=lies, strength=0.5)
    close(weights @ vectors + lies * closer, ((vectors[0] + weights @ vectors + lies * vectors[0]) / 2).numpy())


def test_mimic_finds_the_direction_of_most_variance_and_copies_the_extreme():
    notes, generator = {}, np.random.default_rng(0)
    spread = torch.tensor([0.1, 0.1, 3.0, 0.1]).double()
    for t in range(40):
        vectors = draw(6, 4, seed=t) * spread
        lie = attack("mimic", vectors, notes=notes, strength=30.0, generator=generator)
        expected = vectors[0] if t < 30 else vectors[vectors[:, 2].abs().argmax()]
        assert torch.equal(lie, expected)
    assert float(notes["direction"][2].abs()) > 0.98


def test_mimic_follows_its_listing():
    notes, z, mu = {}, None, 0
    for t in range(4):
        x = draw(5, 6, seed=t).numpy()
        attack("mimic", torch.from_numpy(x), notes=notes, generator=np.random.default_rng(9))
        z = np.random.default_rng(9).standard_normal(6) if z is None else z
        z = z / np.linalg.norm(z)
        mu = (t * mu + x.mean(0)) / (t + 1)
        total = sum((k - mu) * ((k - mu) @ z) for k in x)
        z = (t + 1) / (t + 2) * z + total / np.linalg.norm(total) / (t + 2)
    close(notes["direction"], z / np.linalg.norm(z))
    close(notes["mean"], mu)


@pytest.mark.parametrize(("k", "sent"), [(0.0, [2, 2, 2, 2, 2]), (1.0, [2, 2, 3, 5, 6]), (3.0, [2, 2, 2, 3, 3])])
def test_a_stale_vector_is_as_old_as_asked_for_or_as_old_as_there_is(k, sent):
    notes = {}
    for round, expected in zip([2, 3, 5, 6, 7], sent, strict=True):
        own = torch.full((3,), float(round))
        assert attack("stale", draw(2, 3), own=own, round=round, notes=notes, strength=k).tolist() == [expected] * 3
    assert len(notes) <= k + 1


def test_noise_is_as_long_as_what_the_honest_send():
    vectors = draw(5, 400)
    first, second = (attack("noise-rider", vectors, seed=seed) for seed in (0, 1))
    assert float(first.norm()) == pytest.approx(float(vectors.norm(dim=1).mean()))
    assert abs(float(first @ second)) < 0.3 * float(first @ first)


def test_sybils_send_nearly_the_same_whoever_they_are():
    owns = normal(1, 50).double(), normal(2, 50).double()
    owns = [own / own.norm() for own in owns]
    first, second = (attack("sybil", draw(3, 50), own=own, seed=seed) for seed, own in enumerate(owns))
    assert 0 < float((first - second).norm()) < 0.01 * float(first.norm())
    assert float((owns[0] - owns[1]).norm()) > 1


def test_equivocation_tells_every_second_neighbour_the_opposite():
    own = normal(1, 50).double()
    lies = [attack("equivocation", draw(3, 50), own=own, position=k) - own for k in range(3)]
    assert torch.equal(lies[0], lies[2])
    close(lies[0], -lies[1].numpy())
    assert float(lies[0].norm()) == pytest.approx(float(own.norm()))


@pytest.mark.parametrize("shape", SHAPES)
def test_dmpa_follows_its_reconstruction(shape):
    own, vectors = normal(3, shape[1]).double(), draw(*shape)
    a = np.vstack([own.numpy(), vectors.numpy()])
    values, eigenvectors = np.linalg.eigh(np.corrcoef(a))
    theta = np.arccos(np.clip(values[-1] / len(a), -1, 1))
    d = a.T @ eigenvectors[:, -1]
    d /= np.linalg.norm(d)
    close(attack("dmpa", vectors, own=own), (a - (1 + np.sin(theta)) * np.outer(a @ d, d)).mean(0))


def worth_of(lie, target):
    return -0.5 * float((-0.1 * lie - target).square().sum())


def test_the_adaptive_attack_helps_the_victim_and_pulls_it_away_all_the_same():
    target = torch.zeros(30).double()
    target[:3] = 1  # descent leads along the first three coordinates; the rest is where harm hides
    others = -target.expand(4, -1) * 0.1
    lie = attack("shapley-adaptive", others, utility=lambda x: worth_of(-10 * x, target), gradient=lambda x: x - target)
    assert worth_of(lie, target) > worth_of(torch.zeros(30), target)
    assert float(lie[3:].norm()) > float(lie[:3].norm()) / sqrt(30)
    assert float(lie[:3].min()) < 0


def test_the_adaptive_attack_tells_the_truth_where_no_lie_pays():
    own = normal(3, 6).double()
    lie = attack("shapley-adaptive", draw(3, 6), own=own, utility=lambda x: 0.0)
    assert torch.equal(lie, own)
