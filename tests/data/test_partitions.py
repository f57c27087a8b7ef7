"""Partitions deal every example once, and class-balanced draws are balanced."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ross_flwr.config import ConfigError
from ross_flwr.data import PARTITIONS, class_balanced, load, partition

SEEDS = st.integers(0, 2**32)
AGENTS = st.sampled_from([2, 10, 100])
LABELS = st.builds(
    lambda seed, count, classes: torch.from_numpy(np.random.default_rng(seed).integers(0, classes, count)),
    SEEDS,
    st.integers(1000, 3000),
    st.integers(2, 12),
)


def deal(name, labels, num_agents, *, alpha=1.0, classes_per_agent=2, minimum=0, seed=0):
    return partition(
        name,
        labels,
        num_agents,
        alpha=alpha,
        classes_per_agent=classes_per_agent,
        minimum=minimum,
        seed=seed,
    )


def label_entropy(labels, parts):
    """Mean over agents, weighted by their examples, of the entropy of their labels, in nats."""
    counts = torch.stack([labels[part].bincount(minlength=10) for part in parts]).double()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    entropies = -torch.special.xlogy(shares, shares).sum(1)
    return ((entropies * counts.sum(1)).sum() / counts.sum()).item()


@pytest.mark.parametrize("name", PARTITIONS)
@given(labels=LABELS, num_agents=AGENTS, seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_every_example_is_held_by_exactly_one_agent(name, labels, num_agents, seed):
    parts = deal(name, labels, num_agents, seed=seed)
    assert len(parts) == num_agents
    assert all(part.dtype == torch.int64 and part.ndim == 1 for part in parts)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(labels)))


@pytest.mark.parametrize("name", PARTITIONS)
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
    for name in PARTITIONS:
        parts = deal(name, labels, num_agents, alpha=alpha, minimum=minimum, seed=seed)
        assert min(map(len, parts)) >= minimum


@given(labels=LABELS, num_agents=AGENTS, seed=SEEDS)
@settings(deadline=None, max_examples=15)
def test_iid_parts_differ_by_at_most_one_example(labels, num_agents, seed):
    sizes = [len(part) for part in deal("iid", labels, num_agents, seed=seed)]
    assert max(sizes) - min(sizes) <= 1


@given(num_agents=AGENTS, classes_per_agent=st.integers(1, 10), seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_shards_that_fit_the_classes_give_an_agent_no_more_classes_than_shards(num_agents, classes_per_agent, seed):
    shards = num_agents * classes_per_agent
    assume(shards % 10 == 0)
    labels = torch.arange(10).repeat(shards // 10 * 3)  # three examples a shard, no shard of two classes
    for part in deal("shards", labels, num_agents, classes_per_agent=classes_per_agent, seed=seed):
        assert len(part) == 3 * classes_per_agent
        assert len(labels[part].unique()) <= classes_per_agent


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
        ("shards", {"classes_per_agent": 0}, ["classes-per-agent = 0", "1 to 10"]),
        ("shards", {"classes_per_agent": 11}, ["classes-per-agent = 11", "1 to 10"]),
        ("shards", {"classes_per_agent": 3, "minimum": 5}, ["'shards'", "batch-size = 5", "an agent"]),
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
