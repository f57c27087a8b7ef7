"""Aggregation rules against byzfl and Flower, their limits, and their place in agents and runs."""

import doctest
from itertools import product

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles import byzfl
from quadratics import Quadratic, normal

from ross_flwr.config import ConfigError, resolve
from ross_flwr.graph import topology
from ross_flwr.learning import rules
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.rules import AGGREGATORS, PRE_AGGREGATIONS, Aggregation, feasible
from ross_flwr.runs.assemble import assemble
from ross_flwr.runs.local import LocalRun

ROBUST = sorted(AGGREGATORS.keys() - {"mean"})
COUNTS = [(3, 1), (4, 1), (5, 0), (5, 1), (5, 2), (8, 3), (11, 4), (20, 3), (100, 1)]


def draw(m, size=7, seed=0):
    return normal(1000 * seed + m, m, size).double()


def apply(name, vectors, *, pre="none", own=0, f=1, radius=1.0, seed=0, weights=None):
    weights = torch.full((len(vectors),), 1 / len(vectors)).double() if weights is None else weights
    aggregation = Aggregation(name, pre, f, radius)
    return aggregation(vectors, own=vectors[own], weights=weights, generator=np.random.default_rng(seed))


def close(ours, theirs):
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-5)


ORACLES = {
    "mean": lambda f: byzfl().Average(),
    "median": lambda f: byzfl().Median(),
    "trimmed-mean": lambda f: byzfl().TrMean(f),
    "meamed": lambda f: byzfl().Meamed(f),
    "geometric-median": lambda f: byzfl().GeometricMedian(nu=1e-9, T=2000),
    "mda": lambda f: byzfl().MDA(f),
}


def stacks(m, seed):
    """Vectors at random, with some twice, with outliers, and in one dimension."""
    vectors = draw(m, 7, seed)
    twice = vectors.clone()
    twice[m // 2] = twice[0]
    apart = vectors.clone()
    apart[m // 3] *= 1e4
    return [vectors, twice, apart]


@pytest.mark.parametrize(("m", "f"), COUNTS)
@pytest.mark.parametrize("name", ORACLES)
def test_a_rule_gives_what_byzfl_gives(name, m, f):
    for vectors in stacks(m, seed=f):
        close(apply(name, vectors, f=f), ORACLES[name](f)(vectors.numpy()))


@given(seed=st.integers(0, 10**6), m=st.integers(3, 12), size=st.integers(1, 9), data=st.data())
def test_rules_of_coordinates_and_diameters_give_what_byzfl_gives(seed, m, size, data):
    f = data.draw(st.integers(0, (m - 1) // 2))
    vectors = draw(m, size, seed)
    for name in ("median", "trimmed-mean", "meamed", "mda"):
        close(apply(name, vectors, f=f), ORACLES[name](f)(vectors.numpy()))


@pytest.mark.parametrize("radius", [0.1, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("m", [3, 10, 100])
def test_centered_clipping_gives_what_byzfl_gives_around_the_own_vector(m, radius):
    for vectors in stacks(m, seed=1):
        clipping = byzfl().CenteredClipping(L=1, tau=radius)
        clipping.m = vectors[1].numpy()
        with np.errstate(divide="ignore"):
            close(apply("centered-clipping", vectors, own=1, radius=radius), clipping(vectors.numpy()))


@pytest.mark.parametrize(("m", "f"), COUNTS)
@pytest.mark.parametrize("size", [2, 7, 120])
def test_the_covariance_filter_follows_its_listing(m, f, size):
    # byzfl is no oracle here: it divides by the largest τ of all, those of weight 0 included, and so hardly ends; and
    # its single power iteration from a random start finds neither the direction nor the variance.
    x = draw(m, size).numpy()
    x[0] *= 5
    c, best, smallest = np.ones(m), x.mean(0), np.inf
    while c.sum() > m - 2 * f:
        mu = np.average(x, axis=0, weights=c)
        values, vectors = np.linalg.eigh(np.cov(x.T, aweights=c, ddof=0))
        if values[-1] < smallest:
            smallest, best = values[-1], mu
        tau = ((x - mu) @ vectors[:, -1]) ** 2
        c = c * (1 - tau / tau[c > 0].max()).clip(0)
    close(apply("caf", torch.from_numpy(x), f=f), best)


@pytest.mark.parametrize(("m", "size"), [(2, 7), (3, 7), (5, 7), (8, 2), (8, 300), (20, 40)])
def test_the_flag_aggregate_follows_its_listing(m, size):
    # Along the r directions of most variance of the weighted unit differences, found in all `size` coordinates.
    x, own = draw(m, size).numpy(), m // 2
    x[0] *= 100
    pulls = np.delete(x, own, axis=0) - x[own]
    lengths = np.linalg.norm(pulls, axis=1)
    g, w = (pulls / lengths[:, None]).T, np.ones(m - 1)
    for _ in range(20):
        _, vectors = np.linalg.eigh((g * w) @ (g * w).T)
        y = vectors[:, -min(size, (m + 1) // 2) :]
        w = (np.abs(1 - ((y.T @ g) ** 2).sum(0)) + 1e-7) ** -0.25
    close(apply("flag", torch.from_numpy(x), own=own), x[own] + np.median(lengths) * (y @ y.T @ g).sum(1) / m)


@pytest.mark.parametrize("distance", [0.1, 1e3, 1e30])
def test_one_vector_moves_the_flag_aggregate_by_its_share_of_the_median_length_at_most(distance):
    own, common, odd = torch.zeros(7), torch.eye(7)[0], torch.eye(7)[6]
    others = [common + 0.05 * direction for direction in torch.eye(7)[1:5]]
    moved = apply("flag", torch.stack([own, *others, distance * odd]))
    length = float(others[0].norm())
    assert float(moved[6]) <= length / 6 * 1.001
    torch.testing.assert_close(moved[0], torch.tensor(4 / 6), rtol=0.01, atol=0)


def record(vector):
    return RecordDict({"arrays": ArrayRecord({"x": Array(vector.numpy())})})


@pytest.mark.parametrize(("m", "f"), [(m, f) for m, f in COUNTS if m >= 2 * f + 3])
@pytest.mark.parametrize(("name", "best"), [("krum", lambda m, f: 1), ("multi-krum", lambda m, f: m - f)])
def test_krum_is_the_papers_as_flower_has_it(name, best, m, f):
    for seed, vectors in product(range(5), stacks(m, seed=f)):
        moved = vectors + draw(1, 7, seed)
        chosen = select_multikrum([record(v) for v in moved], f, best(m, f))
        theirs = np.mean([each["arrays"]["x"].numpy() for each in chosen], axis=0)
        close(apply(name, moved, f=f), theirs)


@pytest.mark.parametrize(("m", "f"), COUNTS)
def test_nearest_neighbour_mixing_gives_what_byzfl_gives(m, f):
    for vectors in stacks(m, seed=f):
        mixed, _ = PRE_AGGREGATIONS["nnm"](vectors, weights=torch.ones(m).double() / m, f=f)
        close(mixed, byzfl().NNM(f)(vectors.numpy()))


@pytest.mark.parametrize("m", [1, 2, 5, 8])
def test_bucketing_gives_what_byzfl_gives_for_the_same_draw(m, monkeypatch):
    vectors, weights = draw(m), torch.arange(1, m + 1).double()
    ours, kept = PRE_AGGREGATIONS["bucketing"](vectors, weights=weights, generator=np.random.default_rng(4))
    rules, order = byzfl(), np.random.default_rng(4).permutation(m)
    monkeypatch.setattr(np.random, "permutation", lambda rows: rows[order])
    close(ours, rules.Bucketing(2)(vectors.numpy()))
    assert len(kept) == len(ours) == (m + 1) // 2
    assert kept.sum() == weights.sum()


@given(seed=st.integers(0, 999), m=st.integers(1, 9), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_no_point_is_nearer_to_all_than_the_geometric_median(seed, m, scale):
    vectors = draw(m, 4, seed) * scale
    middle = apply("geometric-median", vectors)
    total = (vectors - middle).norm(dim=1).sum()
    for other in [*vectors, *(middle + 0.01 * scale * draw(8, 4, seed + 1))]:
        assert total <= (vectors - other).norm(dim=1).sum() * (1 + 1e-12)


@given(m=st.integers(1, 130), size=st.integers(1, 5), seed=st.integers(0, 99))
def test_the_sorting_network_sorts(m, size, seed):
    vectors = normal(seed, m, size).round(decimals=1)
    assert torch.equal(torch.stack(rules._ordered(vectors)), vectors.sort(dim=0).values)


# Limits


@pytest.mark.parametrize("name", ["trimmed-mean", "meamed", "multi-krum", "mda", "caf"])
@pytest.mark.parametrize("m", [3, 4, 9])
def test_who_expects_no_liar_averages(name, m):
    torch.testing.assert_close(apply(name, draw(m), f=0), draw(m).mean(0))


def test_a_trimmed_mean_of_one_value_is_the_median():
    assert torch.equal(apply("trimmed-mean", draw(7), f=3), apply("median", draw(7)))


def test_a_clipping_radius_without_end_mixes_and_none_keeps_the_own_vector():
    vectors, weights = draw(4), torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    mixed = apply("mean", vectors, weights=weights)
    torch.testing.assert_close(mixed, weights @ vectors)
    torch.testing.assert_close(apply("centered-clipping", vectors, radius=1e9, weights=weights), mixed)
    assert torch.equal(apply("centered-clipping", vectors, own=2, radius=0.0, weights=weights), vectors[2])


CASES = list(product(AGGREGATORS, PRE_AGGREGATIONS))


@pytest.mark.parametrize(("name", "pre"), CASES)
@pytest.mark.parametrize("m", range(1, 8))
def test_agreement_is_kept(name, pre, m):
    for f in range(4):  # too many for some: then as many as there can be
        for same in (normal(3, 6), torch.zeros(6), normal(3, 6) * 1e20):
            torch.testing.assert_close(apply(name, same.repeat(m, 1), pre=pre, f=f), same)


@pytest.mark.parametrize(("name", "pre"), CASES)
@pytest.mark.parametrize("m", [1, 2, 5, 8])
def test_a_rule_returns_a_new_vector_changes_none_and_repeats_bit_for_bit(name, pre, m):
    vectors = draw(m).float()
    before = vectors.clone()
    first = apply(name, vectors, pre=pre)
    again = apply(name, vectors, pre=pre)
    assert first.dtype == torch.float32
    assert first.shape == (7,)
    assert torch.equal(first, again)
    first.add_(1)
    assert torch.equal(vectors, before)
    assert first.untyped_storage().nbytes() == 7 * 4


@pytest.mark.parametrize("size", [7, rules.BLOCK + 5])
@pytest.mark.parametrize("distance", [1e2, 1e6, 1e37])
@pytest.mark.parametrize("name", ROBUST)
def test_a_far_outlier_moves_the_mean_and_no_robust_rule(name, distance, size):
    honest = torch.full((size,), 5.0) + 0.1 * normal(0, 6, size) / size**0.5
    liar = torch.full((1, size), distance)
    vectors = torch.cat([honest[:3], liar, honest[3:]])
    assert (apply("mean", vectors) - honest.mean(0)).norm() > 10
    for pre in PRE_AGGREGATIONS:
        if not feasible(name, len(vectors), 1, pre):
            moved = (apply(name, vectors, pre=pre, radius=0.5) - honest.mean(0)).norm()
            assert moved < 0.5, pre


@pytest.mark.parametrize("name", ROBUST)
def test_models_close_to_each_other_and_far_from_zero_are_told_apart(name):
    # What the usual matrix formula for distances cannot do in single precision.
    base = 100 * normal(1, 1000)
    vectors = base + 1e-3 * normal(2, 30, 1000)
    vectors[7] += 1e-2 * normal(3, 1000)
    exact = apply(name, vectors.double(), radius=0.03)
    apart = (vectors.double() - base.double()).norm(dim=1)[:7].mean()
    assert (apply(name, vectors, radius=0.03).double() - exact).norm() < 0.05 * apart


@given(seed=st.integers(0, 99), name=st.sampled_from(sorted(AGGREGATORS)), pre=st.sampled_from(["none", "nnm"]))
def test_a_rule_moves_with_its_vectors(seed, name, pre):
    # nnm makes equal vectors, the median of six lies half way between two: which is nearer is then a matter of rounding
    assume((name, pre) != ("meamed", "nnm"))
    vectors, shift = draw(6, 5, seed), draw(1, 5, seed + 1)
    moved = apply(name, 2 * vectors + shift, pre=pre, radius=2.0)
    torch.testing.assert_close(moved, 2 * apply(name, vectors, pre=pre, radius=1.0) + shift[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["krum", "multi-krum"])
def test_two_vectors_tell_krum_nothing_and_the_agent_keeps_its_own(name):
    vectors = draw(2)
    assert torch.equal(apply(name, vectors, own=1), vectors[1])


def test_two_values_have_their_middle_as_median():
    vectors = torch.tensor([[0.0, 4.0], [2.0, 0.0]])
    for name in ("median", "geometric-median"):
        torch.testing.assert_close(apply(name, vectors), torch.tensor([1.0, 2.0]))


# Feasible


@pytest.mark.parametrize(
    ("name", "pre", "f", "least"),
    [
        ("mean", "none", 9, 1),
        ("median", "none", 9, 1),
        ("geometric-median", "bucketing", 9, 1),
        ("centered-clipping", "none", 9, 1),
        ("trimmed-mean", "none", 2, 5),
        ("meamed", "none", 2, 5),
        ("mda", "none", 2, 5),
        ("caf", "none", 2, 5),
        ("krum", "none", 1, 5),
        ("multi-krum", "none", 2, 7),
        ("median", "nnm", 2, 5),
        ("krum", "nnm", 1, 5),
        ("trimmed-mean", "bucketing", 1, 5),
        ("krum", "bucketing", 1, 9),
    ],
)
def test_how_many_vectors_a_rule_needs(name, pre, f, least):
    assert not feasible(name, least, f, pre)
    assert not feasible(name, least + 7, f, pre)
    if least > 1:
        assert "needs at least 2f + " in feasible(name, least - 1, f, pre)


def test_minimum_diameter_averaging_looks_at_a_bounded_number_of_subsets():
    assert feasible("mda", 26, 5) == ""
    assert feasible("mda", 50, 10) == "mda would look at 10272278170 subsets of 50 vectors, more than 100000"


CONFIG = {"algorithm": "dpsgd", "beside": "", "num-agents": 8, "topology": "ring", "attackers": 1, "num-rounds": 3}


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"aggregator": "krum"}, ["byzantine = 1", "agent 0", "2 neighbours", "2f + 3 = 5", "byzantine = 0 at most"]),
        ({"aggregator": "trimmed-mean", "byzantine": 2}, ["byzantine = 2", "2f + 1 = 5", "byzantine = 1 at most"]),
        ({"aggregator": "krum", "topology": "star"}, ["agent 1,", "1 neighbours", "another aggregator or topology"]),
        ({"aggregator": "caf", "pre-aggregation": "bucketing"}, ["has 2 after bucketing"]),
        ({"aggregator": "trimed-mean"}, ["trimed-mean", "did you mean 'trimmed-mean'?"]),
        ({"pre-aggregation": "nmn"}, ["nmn", "did you mean 'nnm'?"]),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence_before_it_starts(keys, parts):
    with pytest.raises(ConfigError) as caught:
        LocalRun(resolve({**CONFIG, **keys}))
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize("method", ["d2", "dsgt", "net-fleet"])
@pytest.mark.parametrize("keys", [{"aggregator": "median"}, {"pre-aggregation": "bucketing"}])
def test_a_method_that_rests_on_a_sum_over_all_agents_takes_no_rule_but_the_mean(method, keys):
    plain = {**CONFIG, "algorithm": method, "mixing": "lazy-metropolis"}
    LocalRun(resolve(plain))
    with pytest.raises(ConfigError, match=rf"would break Σ_i .*algorithm = '{method}' rests: use aggregator = 'mean'"):
        LocalRun(resolve({**plain, **keys}))


# The hook


def agent_of(row, own, aggregation=None):
    return Agent(own, Quadratic(normal(0, 2, 4)), row, seed=0, batch_size=1, aggregation=aggregation)


@pytest.mark.parametrize(("name", "pre"), CASES)
def test_mixing_applies_the_rule_to_the_neighbourhood_in_the_order_of_its_indices(name, pre):
    row, vectors = {9: 0.1, 2: 0.2, 4: 0.3, 7: 0.15, 5: 0.25}, {j: normal(j, 4) for j in (2, 4, 5, 7, 9)}
    agent = agent_of(row, 5, Aggregation(name, pre, byzantine=1, clip_radius=0.7))
    for lost in (None, 7):
        heard = {j: vectors[j] for j in (9, 5, 2, 7, 4) if j != lost}
        weights = torch.tensor([row[j] + (row[7] if (j, lost) == (5, 7) else 0) for j in sorted(heard)]).double()
        expected = Aggregation(name, pre, 1, 0.7)(
            torch.stack([heard[j] for j in sorted(heard)]),
            own=vectors[5],
            weights=weights,
            generator=agent.stream("aggregation"),
        )
        torch.testing.assert_close(agent.mix(heard), expected)
    assert torch.equal(agent.mix({5: vectors[5]}), vectors[5])


@pytest.mark.parametrize(("name", "pre"), CASES)
def test_an_agent_that_diverged_stays_so_and_stops_nobody(name, pre):
    vectors = torch.cat([draw(4), torch.full((1, 7), float("nan")).double()])
    assert not apply(name, vectors, pre=pre, own=4).isfinite().any()


def test_averaging_by_name_is_averaging_with_the_mixing_row():
    graph = topology.build("ring", 6)
    vectors = {j: normal(j, 4) for j in range(6)}
    for i in range(6):
        heard = {j: vectors[j] for j in graph.mixing_row(i)}
        plain, named = agent_of(graph.mixing_row(i), i), agent_of(graph.mixing_row(i), i, Aggregation("mean"))
        torch.testing.assert_close(plain.mix(heard), named.mix(heard))


def test_without_a_rule_agents_mix_as_ever():
    assert assemble(resolve(CONFIG)).aggregation is None
    assert all(agent.aggregation is None for agent in assemble(resolve(CONFIG)).agents())
    assert assemble(resolve({**CONFIG, "pre-aggregation": "nnm"})).aggregation == Aggregation("mean", "nnm", 1, 1.0)


@pytest.mark.parametrize("method", ["dpsgd", "ross"])
@pytest.mark.parametrize(("name", "pre"), [("median", "none"), ("centered-clipping", "nnm"), ("krum", "bucketing")])
def test_a_rule_runs_under_any_method_that_mixes_and_repeats(method, name, pre):
    keys = {"algorithm": method, "aggregator": name, "pre-aggregation": pre, "byzantine": 1, "topology": "complete"}
    if pre == "bucketing":
        keys["num-agents"] = 9
    runs = [LocalRun(resolve({**CONFIG, **keys, "num-rounds": 2})) for _ in range(2)]
    lines = [list(run.rounds()) for run in runs]
    assert all(line["accuracy"]["mean"] > 0 for line in lines[0])
    for i, agent in runs[0].host.agents.items():
        assert torch.equal(agent["model"], runs[1].host.agents[i]["model"])
        assert agent["model"].isfinite().all()


def test_the_median_saves_dpsgd_from_the_attack_that_ruins_it():
    keys = {**CONFIG, "num-agents": 10, "attackers": 2, "topology": "complete", "num-rounds": 30, "partition": "iid"}
    accuracy = {}
    for name in ("mean", "median"):
        *_, last = LocalRun(resolve({**keys, "aggregator": name, "evaluate-every": 30})).rounds()
        accuracy[name] = last["accuracy"]["mean"]
    assert accuracy["median"] > 0.8
    assert accuracy["mean"] < accuracy["median"] - 0.2


def test_the_examples_in_the_docstrings_are_true():
    result = doctest.testmod(rules)
    assert result.attempted >= 4
    assert not result.failed
