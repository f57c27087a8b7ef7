"""Images as a task: what agents are tested on."""

import re

import numpy as np
import pytest
import torch

from ross_flwr.config import ConfigError
from ross_flwr.data import load
from ross_flwr.tasks import models
from ross_flwr.tasks.images import images


def rows(examples, indices=slice(None)):
    """Return every example as bytes: no two of the digits are alike."""
    taken = zip(examples.images[indices], examples.labels[indices], strict=True)
    return {(image.numpy().tobytes(), int(label)) for image, label in taken}


@pytest.mark.parametrize("validation", ["balanced", "own-mix"])
def test_the_tuning_split_is_training_data_that_no_agent_holds_and_no_test_data(validation):
    published = load("digits")
    task = images("digits", test_split="tuning", validation=validation, validation_size=60)(6, 0)
    tested = rows(task.source.test, task.shares.test)
    assert len(tested) == len(task.shares.test) == 288
    assert tested <= rows(published.train)
    assert not tested & rows(published.test)
    for agent in range(6):
        held = torch.cat([task.training(agent), task.shares.validation(agent)])
        assert not tested & rows(task.source.train, held)
    assert sum(map(len, task.shares.parts)) + len(task.shares.validation_pool) == len(published.train) - 288


def test_the_tuning_split_is_the_same_for_every_seed_and_has_a_fifth_of_every_class():
    first, other = (images("digits", test_split="tuning")(4, seed).source for seed in (0, 1))
    assert torch.equal(first.test.images, other.test.images)
    share = first.test.labels.bincount() / load("digits").train.labels.bincount()
    assert share.tolist() == pytest.approx([0.2] * 10, abs=0.01)


@pytest.mark.parametrize("rare", [1, 4], ids=["a class with one example", "with four"])
@pytest.mark.parametrize("size", [100, 40])
def test_a_class_that_is_too_rare_for_validation_sets_is_named_with_what_fits(tmp_path, rare, size):
    labels = np.array(["common", "usual"])[np.arange(400) % 2].astype("<U6")
    labels[:rare] = "rare"
    arrays = {"images": np.zeros((400, 4, 4), np.uint8), "labels": labels}
    np.savez(tmp_path / "set.npz", **arrays, test_images=arrays["images"][:9], test_labels=["common"] * 8 + ["usual"])
    own = {"data_path": str(tmp_path / "set.npz"), "batch_size": 2, "partition": "iid"}
    with pytest.raises(
        ConfigError, match=f"validation-size = {size} takes .*: class rare has only {rare}; "
    ) as refused:
        images("file", **own, validation_size=size)(10, 0).shares.validation(0)
    fits = int(re.search(r"validation-size = (\d+) is the most", str(refused.value))[1])
    task = images("file", **own, validation_size=fits)(10, 0)
    assert len(task.shares.validation(0)) == fits
    with pytest.raises(ConfigError, match=f"validation-size = {fits + 1} takes"):
        images("file", **own, validation_size=fits + 1)(10, 0).shares.validation(0)
    with pytest.raises(ConfigError, match=r"test-size = 8, equally many .*: class usual has only 1, so at most 3 can"):
        _ = images("file", **own, validation_size=fits, test_size=8)(10, 0).shares.test


def test_a_table_in_a_model_does_not_travel(monkeypatch):
    """As in swin_v2_t, which has coordinates beside its parameters."""

    class Tabled(torch.nn.Linear):
        def __init__(self):
            super().__init__(64, 10)
            self.register_buffer("table", torch.ones(64))

        def forward(self, pixels):
            return super().forward(pixels.flatten(1) * self.table)

    monkeypatch.setitem(models.MODELS, "tabled", lambda *_: Tabled())
    assert images("digits", model="tabled")(4, 0).model.size == 650


def test_devices_whose_classes_have_other_names_do_not_exchange_models(tmp_path):
    def digest(*names):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        np.savez(file, images=np.zeros((20, 4, 4), np.uint8), labels=np.array(names)[np.arange(20) % len(names)])
        return images("file", data_path=str(file))(4, 0).model.digest

    assert digest("cat", "dog") == digest("dog", "cat") != digest("dog", "eel")
    assert digest("0", "1") == digest(0, 1) != digest("cat", "dog")
