"""Exact Shapley values against shapiq's. A module of its own: shapiq takes seconds to import."""

from math import comb

import numpy as np
import pytest

from ross_flwr.learning.shapley import Game, shapley_values

shapiq = pytest.importorskip("shapiq")

AIRPORT = np.array([12.0, 1.0, 7.0, 3.0, 3.5])
COSTS = np.sort(AIRPORT)
SHARES = np.cumsum(np.diff(COSTS, prepend=0.0) / np.arange(5, 0, -1))[AIRPORT.argsort().argsort()]


def random_game(n, seed):
    values = np.random.default_rng(seed).normal(size=2**n)
    return lambda players: values[sum(1 << j for j in players)]


def gloves(left, right):
    """A pair is worth 1; the closed form counts the orders in which a left glove completes a pair."""
    n = left + right

    def value(players):
        return float(min(sum(j < left for j in players), sum(j >= left for j in players)))

    pivotal = sum(
        comb(left - 1, i) * comb(right, k) / (n * comb(n - 1, i + k))
        for i in range(left)
        for k in range(right + 1)
        if i < k
    )
    other = (min(left, right) - left * pivotal) / right
    return n, value, [pivotal] * left + [other] * right


KNOWN = {
    "a vote that four of seven win": (7, lambda s: float(len(s) >= 4), [1 / 7] * 7),
    "one left glove, two right ones": gloves(1, 2),
    "two left gloves, three right ones": gloves(2, 3),
    "airport": (5, lambda s: max((AIRPORT[j] for j in s), default=0.0), SHARES),
}


def ours(n, value):
    return shapley_values(
        Game(n, lambda coalitions: [value(s) for s in coalitions]), "exact", generator=np.random.default_rng(0)
    )


def theirs(n, value):
    computer = shapiq.ExactComputer(lambda masks: np.array([value(tuple(np.flatnonzero(m))) for m in masks]), n)
    found = computer(index="SV", order=1)
    return np.array([found[(j,)] for j in range(n)])


@pytest.mark.parametrize("n", range(2, 9))
@pytest.mark.parametrize("seed", range(3))
def test_exact_values_are_those_of_shapiq_on_random_games(n, seed):
    value = random_game(n, seed)
    np.testing.assert_allclose(ours(n, value), theirs(n, value), atol=1e-9)


@pytest.mark.parametrize("name", KNOWN)
def test_exact_values_and_shapiqs_are_those_of_the_closed_form(name):
    n, value, expected = KNOWN[name]
    np.testing.assert_allclose(ours(n, value), expected, atol=1e-12)
    np.testing.assert_allclose(theirs(n, value), expected, atol=1e-9)
