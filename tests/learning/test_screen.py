"""The screen against lies that an earlier one let pass: class gradients e_1, e_2 and 2 e_3 in six dimensions."""

import numpy as np
import pytest
import torch

from ross_flwr.learning.screen import screen

CLASSES = torch.diag(torch.tensor([1.0, 1.0, 2.0, 0.0, 0.0, 0.0]))[:3]
OWN = torch.tensor([0.5, 0.5, 0.0, 0.1, 0.0, 0.0])


def screened(*gradients, own=OWN, classes=CLASSES):
    factors, passes = screen(torch.stack([own, *map(torch.as_tensor, gradients)]), classes, share=0.35)
    assert factors[0] == 1
    assert passes[0]
    return factors[1:].tolist(), passes[1:].tolist()


def test_a_class_gradient_passes_and_one_that_is_five_times_as_long_pulls_no_harder():
    assert screened([0.0, 0.0, 2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 10.0, 0.0, 0.0, 0.0]) == ([1.0, 0.2], [True, True])


def test_nobody_pulls_harder_than_the_longest_of_the_class_gradients_and_the_own_one():
    own = torch.tensor([1.0, 0.0, 0.0, 4.0, 0.0, 0.0])
    (factor,), _ = screened(10 * own, own=own)
    assert factor == pytest.approx(0.1)
    (factor,), _ = screened(10 * OWN)
    assert factor == pytest.approx(0.2 / float(OWN.norm()))


@pytest.mark.parametrize("length", [1.0, 5.0])
def test_what_is_explained_is_asked_of_the_shortened_gradient(length):
    """Across all classes lies the part b² of a gradient's square, and so much no mixture explains; 65 % may be left."""
    for across, passed in ((0.6, True), (0.85, False)):
        along = (1 - across**2) ** 0.5
        assert screened([0.0, 0.0, 2 * length * along, 0.0, 2 * length * across, 0.0])[1] == [passed]


def test_gradients_that_climb_or_lie_across_all_classes_do_not_pass():
    assert screened(-3 * OWN, -OWN, -0.5 * OWN, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0])[1] == [False] * 4


def test_four_times_the_square_of_the_own_noise_passes_and_a_gradient_of_zeros_changes_nothing():
    opposed, axes = torch.tensor([[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]), torch.eye(4)
    lies = 0.59 * axes[2], 0.61 * axes[2]
    assert screened(*lies, own=0.3 * axes[1], classes=opposed)[1] == [True, False]
    assert screened(*lies, 0 * axes[2], own=0.3 * axes[1], classes=opposed)[1] == [True, False, True]


def test_where_the_validation_set_says_nothing_an_agent_trusts_itself_alone():
    _, passes = screen(torch.eye(4)[:3], torch.zeros(2, 4), share=0.35)
    np.testing.assert_array_equal(passes, [True, False, False])
