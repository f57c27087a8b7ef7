"""Bad data: what happens to which examples, on whom, and that it happens again alike."""

import numpy as np
import pytest
import torch

from ross_flwr.config import ConfigError, resolve
from ross_flwr.runs.assemble import read_task
from ross_flwr.runs.local import LocalRun
from ross_flwr.tasks.corruptions import CORRUPTIONS, draw_corrupted
from ross_flwr.tasks.options import CorruptionOptions

KINDS = [kind for kind in CORRUPTIONS if kind != "none"]
SMALL = {"num-agents": 4, "topology": "ring", "attackers": 0, "hidden": 8, "corrupted": 1}
(BAD,) = draw_corrupted(CorruptionOptions(corruption="backdoor", corrupted=1), (), num_agents=4, seed=0)
GOOD = (BAD + 1) % 4


def training(kind, agent=BAD, **options):
    """All training examples of an agent, as it trains on them."""
    objective = read_task(resolve({**SMALL, "corruption": kind, **options})).objective(agent)
    return objective.batch(torch.arange(objective.num_examples))


@pytest.mark.parametrize("kind", KINDS)
def test_bad_data_is_the_same_in_any_batch_and_only_on_corrupted_agents(kind):
    clean, bad = training("none"), training(kind, **{"corruption-rate": 0.5})
    changed = (clean.targets != bad.targets) | (clean.inputs != bad.inputs).flatten(1).any(1)
    assert 0.3 < changed.double().mean() <= 0.51  # a flip may hit the label it was
    again = read_task(resolve({**SMALL, "corruption": kind, "corruption-rate": 0.5})).objective(BAD)
    few = torch.tensor([7, 3, 7, 50])
    assert torch.equal(again.batch(few).inputs, bad.inputs[few])
    assert torch.equal(again.batch(few).targets, bad.targets[few])
    assert torch.equal(training(kind, agent=GOOD).inputs, training("none", agent=GOOD).inputs)
    assert torch.equal(training(kind, agent=GOOD).targets, training("none", agent=GOOD).targets)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("asymmetric-label-noise", lambda labels: (labels + 1) % 10),
        ("label-flip", lambda labels: 9 - labels),
        ("backdoor", lambda labels: torch.zeros_like(labels)),
        ("feature-noise", lambda labels: labels),
    ],
)
def test_labels_become_what_the_kind_says(kind, wrong):
    labels = training("none").targets
    assert torch.equal(training(kind).targets, wrong(labels))


def test_symmetric_label_noise_gives_every_other_label_alike():
    options = {"num-agents": 2, "partition": "iid", "topology": "complete", "corrupted": 2}
    labels, noisy = training("none", 1, **options).targets, training("label-noise", 1, **options).targets
    shifts = ((noisy - labels) % 10).bincount(minlength=10)
    assert shifts[0] == 0
    assert shifts[1:].min() > 0.5 * len(labels) / 9
    assert torch.equal(training("label-noise", 1, **options, **{"corruption-rate": 0.0}).targets, labels)


def test_feature_noise_has_the_deviation_asked_for():
    noise = training("feature-noise", **{"noise-sigma": 0.2}).inputs - training("none").inputs
    assert noise.std().item() == pytest.approx(0.2, rel=0.03)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)


def test_the_trigger_is_a_white_corner():
    images = read_task(resolve(SMALL))
    (mean,), (std,) = images.source.mean, images.source.std
    clean, bad = training("none").inputs, training("backdoor").inputs
    assert torch.allclose(bad[..., -3:, -3:], torch.tensor((1 - mean) / std))
    bad[..., -3:, -3:] = clean[..., -3:, -3:]
    assert torch.equal(bad, clean)


def test_a_backdoor_that_is_learned_is_reported_and_where_nobody_teaches_it_there_is_none():
    options = {**SMALL, "algorithm": "dpsgd", "partition": "iid", "num-rounds": 60, "evaluate-every": 60, "hidden": 32}
    backdoor = {"corruption": "backdoor", "corrupted": 3, "corruption-rate": 0.5}
    taught, clean = LocalRun(resolve(options | backdoor)), LocalRun(resolve(options))
    list(taught.rounds()), list(clean.rounds())
    assert taught.summary()["attack-success"]["min"] > 0.8
    assert taught.summary()["clean-accuracy"]["mean"] > 0.8
    assert taught.summary()["corrupted"] == sorted(taught.assembly.threats.corrupted)
    assert clean.summary()["attack-success"] is clean.summary()["clean-accuracy"] is None


def test_success_is_measured_on_images_of_other_classes():
    images = read_task(resolve({**SMALL, "corruption": "backdoor"}))
    triggered = images.objective(0).triggered
    batch = triggered.batch(torch.arange(len(triggered)))
    assert len(batch) == 324
    assert batch.targets.unique().tolist() == [0]
    assert torch.equal(batch.inputs[..., -3:, -3:].flatten().unique(), batch.inputs.max().view(1))


def test_who_is_corrupted_follows_from_the_seed_and_spares_attackers():
    def choose(seed, attackers=(0, 1, 2), **options):
        options = CorruptionOptions(corruption="label-flip", **options)
        return draw_corrupted(options, attackers, num_agents=10, seed=seed)

    drawn = [choose(seed, corrupted=4) for seed in range(20)]
    assert all(len(agents) == 4 and not agents & {0, 1, 2} for agents in drawn)
    assert len(set(drawn)) > 10
    assert drawn[3] == choose(3, corrupted=4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"corrupted": 5}, "corrupted = 5 is too many: 4 agents do not attack"),
        ({"corruption": "label-flop"}, "did you mean 'label-flip'"),
    ],
)
def test_impossible_bad_data_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        LocalRun(resolve({**SMALL, "corruption": "backdoor", **options}))


def test_images_are_not_copied():
    images = read_task(resolve({**SMALL, "corruption": "feature-noise"}))
    objective = images.objective(BAD)
    assert objective.train_data.clean.examples.images is images.source.train.images
    assert np.shares_memory(
        objective.train_data.clean.examples.images.numpy(), images.objective(1).train_data.examples.images.numpy()
    )
