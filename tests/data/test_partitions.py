"""Partitions deal every example once, and class-balanced draws are balanced."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ross_flwr.config import ConfigError
from ross_flwr.data import PARTITIONS, class_balanced, draw_classes, load, partition, top_up

SEEDS = st.integers(0, 2**32)
AGENTS = st.sampled_from([2, 10, 100])
LABELS = st.builds(
    lambda seed, count, classes: torch.from_numpy(np.random.default_rng(seed).integers(0, classes, count)),
    SEEDS,
    st.integers(1000, 3000),
    st.integers(2, 12),
)


NEEDS_NOTHING = ["iid", "dirichlet", "pow"]
"""Partitions of all the data that need no optional package."""


def deal(name, labels, num_agents, *, alpha=1.0, classes_per_agent=2, minimum=0, seed=0, **settings):
    return partition(
        name,
        labels,
        num_agents,
        alpha=alpha,
        classes_per_agent=classes_per_agent,
        minimum=minimum,
        seed=seed,
        **settings,
    )


def label_entropy(labels, parts):
    """Mean over agents, weighted by their examples, of the entropy of their labels, in nats."""
    counts = torch.stack([labels[part].bincount(minlength=10) for part in parts]).double()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    entropies = -torch.special.xlogy(shares, shares).sum(1)
    return ((entropies * counts.sum(1)).sum() / counts.sum()).item()


@pytest.mark.parametrize("name", NEEDS_NOTHING)
@given(labels=LABELS, num_agents=AGENTS, seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_every_example_is_held_by_exactly_one_agent(name, labels, num_agents, seed):
    parts = deal(name, labels, num_agents, seed=seed)
    assert len(parts) == num_agents
    assert all(part.dtype == torch.int64 and part.ndim == 1 for part in parts)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(labels)))


@pytest.mark.parametrize("name", NEEDS_NOTHING)
@given(labels=LABELS, num_agents=AGENTS, seed=SEEDS)
@settings(deadline=None, max_examples=15)
def test_a_seed_deals_one_partition_and_another_seed_another(name, labels, num_agents, seed):
    first, again, other = (deal(name, labels, num_agents, seed=each) for each in (seed, seed, seed + 1))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


@pytest.mark.parametrize("num_agents", [2, 10, 100])
@given(seed=SEEDS)
@settings(deadline=None, max_examples=15)
def test_a_smaller_alpha_leaves_agents_less_mixed_labels(num_agents, seed):
    labels = torch.arange(10).repeat(300)
    entropy = [
        label_entropy(labels, deal("dirichlet", labels, num_agents, alpha=alpha, seed=seed))
        for alpha in (0.05, 5.0, 1000.0)
    ]
    assert entropy[0] < entropy[1] < entropy[2]


@given(num_agents=st.sampled_from([2, 10, 20]), minimum=st.integers(1, 20), alpha=st.floats(0.3, 100), seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_every_agent_gets_its_minimum(num_agents, minimum, alpha, seed):
    labels = load("digits").train.labels
    for name in ("iid", "dirichlet"):
        parts = deal(name, labels, num_agents, alpha=alpha, minimum=minimum, seed=seed)
        assert min(map(len, parts)) >= minimum


@given(labels=LABELS, num_agents=AGENTS, seed=SEEDS)
@settings(deadline=None, max_examples=15)
def test_iid_parts_differ_by_at_most_one_example(labels, num_agents, seed):
    sizes = [len(part) for part in deal("iid", labels, num_agents, seed=seed)]
    assert max(sizes) - min(sizes) <= 1


TEN = torch.arange(10).repeat(1200)[torch.from_numpy(np.random.default_rng(0).permutation(12_000))]
"""Labels of ten classes with 1,200 examples each."""


def counts_of(parts, labels=TEN):
    """Examples by agent and class."""
    return torch.stack([labels[part].bincount(minlength=10) for part in parts])


IMPOSSIBLE = {
    ("exponential", 10): "ExponentialPartitioner",
    ("exponential", 100): "ExponentialPartitioner",
    ("square", 100): "SquarePartitioner",
    ("distribution", 2): "num-agents = 2 is not a multiple of the 10 classes",
}


@pytest.mark.parametrize("num_agents", [2, 10, 100])
@pytest.mark.parametrize("name", [name for name in PARTITIONS if name not in NEEDS_NOTHING])
def test_a_partition_deals_what_it_promises(name, num_agents):
    pytest.importorskip("flwr_datasets", reason="needs the extra 'data'")
    owners = torch.arange(len(TEN)) % 120

    def again(seed):
        return deal(name, TEN, num_agents, seed=seed, imbalance=50.0, owners=owners)

    if words := IMPOSSIBLE.get((name, num_agents)):
        with pytest.raises(ConfigError, match=words):
            again(0)
        return
    parts = again(0)
    counts = counts_of(parts)
    held, sizes = torch.cat(parts), counts.sum(1)
    assert len(parts) == num_agents
    assert all(torch.equal(part, part.sort().values) for part in parts)
    if num_agents < 100:  # for whom it takes seconds
        assert all(map(torch.equal, parts, again(0)))
        assert name == "all" or not all(map(torch.equal, parts, again(1)))
    if name not in ("all", "cla"):
        assert len(held.unique()) == len(held)
    known = (counts > 0).sum(1)
    match name:
        case "shards":
            assert sizes.unique().tolist() == [12_000 // num_agents]
            assert known.max() <= (7 if num_agents == 2 else 2)
        case "pathological":
            assert known.unique().tolist() == [2]
            assert len(held) == (len(TEN) if num_agents >= 10 else sum(1200 for column in counts.T if column.sum()))
        case "linear" | "square" | "exponential":
            units = {"linear": lambda i: i, "square": lambda i: i**2, "exponential": np.exp}[name](
                np.arange(1.0, num_agents + 1)
            )
            assert np.abs(sizes.numpy() - 12_000 * units / units.sum()).max() <= num_agents
            assert len(held) == len(TEN)
        case "inner-dirichlet":
            assert sizes.unique().tolist() == [12_000 // num_agents]
            assert label_entropy(TEN, parts) < label_entropy(TEN, deal("iid", TEN, num_agents))
        case "flower-dirichlet":
            assert len(held) == len(TEN)
            assert label_entropy(TEN, parts) < label_entropy(TEN, deal("iid", TEN, num_agents))
        case "distribution":
            assert len(held) == len(TEN)
            assert known.max() == 2
        case "natural-id":
            assert all(len(owners[part].unique()) == 1 for part in parts)
            assert sizes.unique().tolist() == [100]
        case "cla":
            assert known.tolist() == np.linspace(1, 10, num_agents).astype(int).tolist()
            assert sizes.unique().tolist() == [12_000 // num_agents]
        case "long-tailed" | "long-tailed-rotated":
            for i, row in enumerate(counts.numpy()):
                profile = np.roll(row, -(i % 10)) if "rotated" in name else row
                exact = profile[0] * 50.0 ** (-np.arange(10) / 9)
                assert np.abs(profile - exact).max() <= 1
            assert counts[:, 0].max() >= 12  # a tail, not a handful
        case "all":
            assert all(torch.equal(part, torch.arange(12_000)) for part in parts)


def test_our_iid_is_flowers():
    partitioners = pytest.importorskip("flwr_datasets.partitioner", reason="needs the extra 'data'")
    from datasets import Dataset

    partitioner = partitioners.IidPartitioner(num_partitions=7)
    partitioner.dataset = Dataset.from_dict({"index": np.random.default_rng([3, 1]).permutation(len(TEN))})
    theirs = [torch.tensor(sorted(partitioner.load_partition(i)["index"])) for i in range(7)]
    assert all(map(torch.equal, deal("iid", TEN, 7, seed=3), theirs))


def test_without_the_extra_what_needs_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", None)
    with pytest.raises(ConfigError, match=r'flwr_datasets.* is not installed: pip install .*"flwr-datasets>='):
        deal("pathological", TEN, 10)
    assert len(deal("dirichlet", TEN, 10)) == 10


@pytest.mark.parametrize("name", ["iid", "pow", "cla", "dirichlet"])
def test_as_many_examples_are_dealt_as_asked_for(name):
    parts = deal(name, TEN, 10, examples_per_agent=600)
    assert sum(map(len, parts)) == 6000
    if name in ("iid", "cla"):
        assert {len(part) for part in parts} == {600}


def test_sizes_under_pow_are_those_of_cgsv():
    stats = pytest.importorskip("scipy.stats", reason="needs the extra 'data'")
    points = np.linspace(stats.powerlaw.ppf(0.01, 1.6591), stats.powerlaw.ppf(0.99, 1.6591), 10)
    sizes = [len(part) for part in deal("pow", TEN, 10, examples_per_agent=600)]
    assert np.abs(np.array(sizes) - 6000 * points / points.sum()).max() <= 1


@given(sizes=st.lists(st.integers(0, 50), min_size=2, max_size=12), minimum=st.integers(0, 20), seed=SEEDS)
def test_a_top_up_moves_examples_and_loses_none(sizes, minimum, seed):
    assume(sum(sizes) >= minimum * len(sizes))
    parts = list(torch.arange(sum(sizes)).split(sizes))
    filled, added = top_up(parts, minimum, seed)
    assert torch.equal(torch.cat(filled).sort().values, torch.arange(sum(sizes)))
    assert min(map(len, filled)) >= minimum
    assert {i for i, size in enumerate(sizes) if size < minimum} <= set(added)
    assert all(torch.equal(part, again) for part, again in zip(filled, top_up(parts, minimum, seed)[0], strict=True))
    for i in set(range(len(sizes))) - set(added):
        assert set(filled[i].tolist()) <= set(parts[i].tolist())


def test_a_top_up_that_nobody_can_pay_for_is_refused():
    with pytest.raises(ConfigError, match="batch-size = 3 is too large: 5 examples are dealt"):
        top_up([torch.arange(5), torch.arange(0)], 3, 0)


@given(weights=st.lists(st.integers(0, 9), min_size=10, max_size=10), count=st.integers(1, 3000), seed=SEEDS)
def test_a_draw_by_class_has_the_mix_asked_for(weights, count, seed):
    assume(any(weights))
    shares = np.array(weights)
    drawn = draw_classes(TEN.numpy(), shares, count, np.random.default_rng(seed))
    counts = np.bincount(TEN.numpy()[drawn], minlength=10)
    assert counts.sum() == count
    assert np.abs(counts - shares / shares.sum() * count).max() < 1
    if counts.max() <= 1200:
        assert len(set(drawn)) == count


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("dirichlett", {}, ["partition = 'dirichlett'", "did you mean 'dirichlet'"]),
        ("iid", {"num_agents": 0}, ["num-agents = 0"]),
        ("iid", {"minimum": 6}, ["num-agents = 10", "batch-size = 6", "60", "50"]),
        ("dirichlet", {"alpha": 0.0}, ["partition-alpha = 0.0"]),
        ("dirichlet", {"alpha": -1.0}, ["partition-alpha = -1.0"]),
        ("dirichlet", {"alpha": float("nan")}, ["partition-alpha = nan"]),
        ("dirichlet", {"alpha": float("inf")}, ["partition-alpha = inf"]),
        (
            "dirichlet",
            {"alpha": 1e-3, "minimum": 5, "labels": torch.zeros(50).long()},
            ["partition-alpha = 0.001"],
        ),
        ("iid", {"examples_per_agent": 6}, ["num-agents = 10", "examples-per-agent = 6", "60", "50"]),
        ("pow", {"minimum": 3}, ["'pow'", "batch-size = 3", "an agent", "too-few = 'top-up'"]),
    ],
)
def test_what_cannot_be_dealt_is_refused_by_the_name_of_its_key(name, changes, words):
    arguments = {"num_agents": 10, "labels": torch.arange(10).repeat(5)} | changes
    with pytest.raises(ConfigError) as refusal:
        deal(name, **arguments)
    assert all(word in str(refusal.value) for word in words)


def test_every_partition_is_described_in_one_line():
    assert all(deals.__doc__ and "\n" not in deals.__doc__ for deals in PARTITIONS.values())


@given(labels=LABELS, share=st.floats(0, 0.5), seed=SEEDS)
@settings(deadline=None, max_examples=50)
def test_a_class_balanced_draw_is_balanced_and_loses_nothing(labels, share, seed):
    count = round(share * len(labels.unique()) * labels.bincount().min().item())
    chosen, rest = class_balanced(labels, count, np.random.default_rng(seed))
    again, _ = class_balanced(labels, count, np.random.default_rng(seed))
    drawn = labels[chosen].bincount(minlength=int(labels.max()) + 1)
    assert len(chosen) == count
    assert drawn.max() - drawn.min() <= 1
    assert torch.equal(torch.cat([chosen, rest]).sort().values, torch.arange(len(labels)))
    assert torch.equal(chosen, again)


def test_a_class_balanced_draw_can_take_everything_that_is_balanced():
    labels = torch.tensor([3, 3, 7, 7, 7, 7])  # class names need not start at 0
    chosen, rest = class_balanced(labels, 5, np.random.default_rng(0))
    assert labels[chosen].tolist().count(7) == 3
    assert labels[rest].tolist() == [7]


def test_every_example_is_drawn_equally_often():
    labels = torch.arange(4).repeat_interleave(10)
    rng = np.random.default_rng(0)
    times = torch.zeros(40)
    for _ in range(2000):
        times[class_balanced(labels, 10, rng)[0]] += 1
    assert (times / 2000 - 0.25).abs().max() < 0.05  # five standard deviations


@pytest.mark.parametrize(("labels", "count", "most"), [([0, 1, 1, 1], 4, 3), ([0, 1], 3, 2), ([0, 1], -1, 2)])
def test_a_draw_that_cannot_be_balanced_is_refused_with_the_most_that_can(labels, count, most):
    with pytest.raises(ConfigError, match=f"{count} examples.*to {most} "):
        class_balanced(torch.tensor(labels), count, np.random.default_rng(0))
