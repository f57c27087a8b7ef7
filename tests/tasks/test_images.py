"""Images as a task: what agents are tested on."""

import pytest
import torch

from ross_flwr.data import load
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
