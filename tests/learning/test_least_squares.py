"""How much of a gradient a mixture of class gradients explains, against a general solver."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from ross_flwr.learning import least_squares
from ross_flwr.learning.least_squares import distances


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def explained(gradients, classes):
    rests, lengths = distances(gradients, classes)
    np.testing.assert_allclose(lengths, gradients.square().sum(1), rtol=1e-9)
    return 1 - rests / lengths


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 12))
def test_it_is_the_r_squared_that_sequential_quadratic_programming_finds(seed, count, size):
    classes, gradient = normal(seed, count, size), normal(seed + 1, size)

    def residual(shares):
        return float((gradient - torch.from_numpy(shares) @ classes).square().sum())

    found = minimize(
        residual,
        np.full(count, 1 / count),
        bounds=[(0, None)] * count,
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    expected = 1 - found.fun / float(gradient.square().sum())
    assert explained(gradient[None], classes).item() == pytest.approx(expected, abs=2e-3 * max(1, abs(expected)))


def test_every_mixture_of_classes_is_explained_and_its_multiples_are_not():
    classes = normal(0, 10, 500)
    shares = torch.from_numpy(np.random.default_rng(1).dirichlet(np.full(10, 0.1), size=20))
    mixtures = shares @ classes
    assert explained(mixtures, classes).min() > 0.999
    assert explained(-3 * mixtures, classes).max() < 0.1
    assert explained(10 * mixtures, classes).max() < 0.5


def test_noise_takes_its_share_of_what_is_explained():
    classes = normal(0, 10, 2000)
    noisy = classes[:1] + normal(1, 1, 2000)  # as long as the gradient itself
    assert explained(noisy, classes).item() == pytest.approx(0.5, abs=0.05)


def test_wide_vectors_are_taken_piece_by_piece(monkeypatch):
    classes, gradients = normal(0, 3, 50), normal(1, 4, 50)
    whole = explained(gradients, classes)
    monkeypatch.setattr(least_squares, "CHUNK", 7)
    np.testing.assert_allclose(explained(gradients, classes), whole, rtol=1e-9)


def test_a_gradient_of_zeros_is_as_near_as_can_be_and_numbers_that_are_not_finite_are_infinitely_far():
    classes, gradients = normal(0, 3, 5), torch.zeros(2, 5).double()
    assert distances(gradients, classes)[0].tolist() == [0.0, 0.0]
    for bad in (torch.inf, torch.nan):
        gradients[0, 0] = bad
        assert distances(gradients, classes)[0].tolist() == [np.inf, 0.0]
    assert distances(normal(1, 1, 5), torch.zeros(3, 5).double())[0].tolist() == [np.inf]
