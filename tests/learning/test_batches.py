"""The part of its validation set that an agent looks at in a pass."""

import torch
from quadratics import Quadratic

from ross_flwr.learning.batches import Portions
from ross_flwr.learning.examples import Batch


class Labelled(Quadratic):
    """Q_i has 12 examples of class 0, 6 of class 1 and 6 of class 2."""

    @property
    def validation(self):
        targets = torch.tensor([0] * 12 + [1, 2] * 6)
        return Batch(torch.arange(24.0)[:, None], targets)


def objective(kind=Labelled):
    return kind(torch.zeros(3, 6))


def test_a_mini_batch_of_the_validation_set_has_equally_many_of_each_class_while_they_last():
    portions = Portions(objective(), agent=1, seed=0, size=6)
    counts = [portions.take(number).targets.bincount(minlength=3).tolist() for number in range(8)]
    assert counts == [[2, 2, 2], [2, 2, 2], [2, 2, 2], [6, 0, 0]] * 2
    seen = torch.cat([portions.take(number).inputs for number in range(4)]).flatten()
    assert sorted(seen.tolist()) == list(range(24))


def test_each_run_through_the_validation_set_is_shuffled_anew_and_alike_for_the_same_agent():
    first, again, other = (Portions(objective(), agent, seed=0, size=6) for agent in (1, 1, 2))
    assert torch.equal(first.take(0).inputs, again.take(0).inputs)
    assert not torch.equal(first.take(0).inputs, other.take(0).inputs)
    assert not torch.equal(first.take(0).inputs, first.take(4).inputs)


def test_without_a_size_or_with_a_large_one_an_agent_looks_at_all_of_the_validation_set():
    for size in (0, 24, 100):
        assert len(Portions(objective(), agent=1, seed=0, size=size).take(3)) == 24
