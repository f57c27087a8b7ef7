"""What neighbours find out: attacks succeed without noise and fail at ε = 1."""

import json

import pytest
import torch
from click.testing import CliRunner
from torch.nn.functional import cross_entropy

from ross_flwr.cli import cli
from ross_flwr.config import ConfigError, resolve
from ross_flwr.privacy.disclosure import entropy, inverted, likeness, threshold
from ross_flwr.runs.assemble import assemble
from ross_flwr.runs.audit import DEFAULTS, Canaries, audit

QUICK = DEFAULTS | {"num-rounds": 30}


def test_attacks_succeed_without_noise_and_fail_at_an_epsilon_of_1(tmp_path):
    pytest.importorskip("matplotlib")
    words = [word for key, value in QUICK.items() for word in ("-c", f"{key}={value}")]
    done = CliRunner().invoke(cli, ["audit", *words, "--out", str(tmp_path)], catch_exceptions=False)
    told = json.loads((tmp_path / "audit.json").read_text())
    assert told["epsilon"] == pytest.approx(1.0)
    found = {(row["run"], row["attack"]): row["succeeds"] for row in told["rows"]}
    assert len(found) == 18
    assert not any(succeeds for (run, _), succeeds in found.items() if run == "with noise")
    for attack in (
        "gradient inversion",
        "membership by loss, received model",
        "echo: membership by loss, received model",
    ):
        assert found["without noise", attack], attack
    text = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert text.count("data:image/png") == 3 * 6
    assert told["promise"] in done.output


def test_canaries_are_drawn_alike_whether_an_agent_trains_on_them_or_not():
    task = assemble(resolve(QUICK)).task
    canaries = Canaries(task, 10, 3)
    objective, plain = canaries.objective(1), task.objective(1)
    assert objective.num_examples == plain.num_examples - 10
    trained = objective.batch(torch.arange(objective.num_examples))
    everything = plain.batch(torch.arange(plain.num_examples))

    def labels(batch, image):
        return batch.targets[(batch.inputs == image).flatten(1).all(1)].tolist()

    for part, stays in ((canaries.members[1], True), (canaries.others[1], False)):
        for image, label in zip(part.inputs, part.targets.tolist(), strict=True):
            assert labels(trained, image) == ([label] if stays else [])
            assert label not in labels(everything, image)


def test_label_informed_entropy_is_that_of_its_definition_and_finite_where_a_model_is_sure():
    outputs, targets = torch.tensor([[2.0, 0.0, -1.0], [900.0, 0.0, 0.0]]), torch.tensor([1, 0])
    p = outputs[0].double().softmax(0)
    expected = -(1 - p[1]) * p[1].log() - sum(p[c] * (1 - p[c]).log() for c in (0, 2))
    assert entropy(outputs, targets).tolist() == pytest.approx([float(expected), 0.0])
    assert entropy(outputs, 1 - targets).isfinite().all()
    assert float(cross_entropy(outputs[:1], targets[:1])) > 1


def test_a_guess_is_right_half_of_the_time_and_an_image_without_contrast_is_like_none():
    assert threshold(torch.zeros(4), torch.zeros(4)) == 0.5
    assert threshold(torch.ones(4), torch.zeros(4)) == 1.0
    assert likeness(torch.ones(3, 3), torch.rand(3, 3)) == 0.0


def test_what_cannot_be_audited_is_refused():
    with pytest.raises(ConfigError, match="begin with a linear layer: use model = 'mlp'"):
        inverted(torch.zeros(30), {"weight": torch.Size([2, 1, 3, 3]), "bias": torch.Size([2])})
    with pytest.raises(ConfigError, match=r"use dp-clip = 1.0 with dp-epsilon = 1.0"):
        audit(resolve(QUICK | {"dp-clip": 0.0, "dp-epsilon": 0.0}))
