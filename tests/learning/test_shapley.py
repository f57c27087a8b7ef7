"""Cooperative games, Shapley estimators and the weights made from the values."""

from itertools import permutations as orders_of
from math import factorial, inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ross_flwr.config import ConfigError
from ross_flwr.learning.shapley import ESTIMATORS, WEIGHTINGS, Game, shapley_values

SAMPLED = ["permutation", "antithetic"]
EFFICIENT = ["exact", *SAMPLED, "stratified", "auto"]


def phi_of(game, estimator="exact", permutations=4, seed=0, tolerance=0.0):
    generator = np.random.default_rng(seed)
    return shapley_values(game, estimator, permutations=permutations, generator=generator, tolerance=tolerance)


def mask_of(coalition):
    return sum(1 << player for player in coalition)


def each(value):
    """From coalitions to the value of each."""
    return lambda coalitions: [value(coalition) for coalition in coalitions]


def random_game(n, seed):
    values = np.random.default_rng(seed).normal(size=2**n)
    return Game(n, each(lambda coalition: values[mask_of(coalition)]))


def gradient_game(n, seed):
    """Utility −‖target − mean gradient of the coalition‖², as an agent's own game looks."""
    gradients = np.random.default_rng(seed).normal(1.0, 0.7, (n, 8))
    return Game(n, each(lambda s: -float(np.mean((0.9 - (gradients[list(s)].mean(0) if s else 0.0)) ** 2))))


def monotone_game(n):
    return Game(n, each(lambda s: 1 - 0.3 ** len(s) + 0.001 * sum(s)))


def brute_force(game):
    phi = np.zeros(game.num_players)
    for order in orders_of(range(game.num_players)):
        for position, player in enumerate(order):
            before = mask_of(order[:position])
            phi[player] += game(before | 1 << player) - game(before)
    return phi / factorial(game.num_players)


AIRPORT = [1.0, 3.0, 3.5, 7.0, 12.0]  # what each player's runway costs, ascending
KNOWN = {
    "one player gets all there is": (1, lambda s: 3.0 * len(s) + 2, [3.0]),
    "additive: each gets its own": (
        4,
        lambda s: sum([0.5, -1.0, 0.0, 2.0][j] for j in s),
        [0.5, -1.0, 0.0, 2.0],
    ),
    "majority vote: all are alike": (5, lambda s: float(len(s) >= 3), [0.2] * 5),
    "two left shoes, three right ones": (
        5,
        lambda s: float(min(sum(j < 2 for j in s), sum(j >= 2 for j in s))),
        [0.65, 0.65, 0.7 / 3, 0.7 / 3, 0.7 / 3],
    ),
    "airport: each stretch is shared by those who need it": (
        5,
        lambda s: max((AIRPORT[j] for j in s), default=0.0),
        np.cumsum(np.diff([0.0, *AIRPORT]) / np.arange(5, 0, -1)),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_exact_values_are_those_of_the_textbook(name):
    players, value, expected = KNOWN[name]
    np.testing.assert_allclose(phi_of(Game(players, each(value))), expected, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_the_exact_values_average_over_all_orders(n, seed):
    game = random_game(n, seed)
    np.testing.assert_allclose(phi_of(game), brute_force(game), atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 7),
    seed=st.integers(0, 2**32),
    permutations=st.integers(0, 9),
    estimator=st.sampled_from(EFFICIENT),
)
def test_the_values_share_out_what_the_grand_coalition_gains(n, seed, permutations, estimator):
    game = random_game(n, seed)
    phi = phi_of(game, estimator, permutations, seed)
    assert phi.shape == (n,)
    assert phi.dtype == np.float64
    assert phi.sum() == pytest.approx(game(2**n - 1) - game(0), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 7),
    seed=st.integers(0, 2**32),
    dummy=st.integers(0, 6),
    estimator=st.sampled_from(sorted(ESTIMATORS.keys() - {"stratified"})),  # which shares out what is missing
)
def test_a_player_that_changes_nothing_is_worth_nothing(n, seed, dummy, estimator):
    rest = random_game(n, seed)
    game = Game(n, each(lambda s: rest(mask_of(s) & ~(1 << dummy % n))))
    phi = phi_of(game, estimator, 4, seed)
    assert phi[dummy % n] == 0
    assert np.count_nonzero(phi) == n - 1


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 6), seed=st.integers(0, 2**32), estimator=st.sampled_from(["exact", "auto"]))
def test_two_players_that_contribute_alike_are_worth_alike(n, seed, estimator):
    rest = random_game(n, seed)

    def value(coalition):
        """Of players 0 and 1 only the number counts."""
        mask = mask_of(coalition)
        return rest(mask ^ 0b11 if mask & 0b11 == 0b10 else mask)

    phi = phi_of(Game(n, each(value)), estimator, permutations=100)
    assert phi[0] == pytest.approx(phi[1], abs=1e-12)


@pytest.mark.parametrize(("players", "coalitions"), [(1, 2), (3, 8), (5, 32)])
def test_the_exact_values_cost_each_coalition_once(players, coalitions):
    game = random_game(players, seed=1)
    phi_of(game)
    assert game.evaluations == coalitions


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_no_coalition_is_evaluated_twice(estimator):
    calls = []
    game = Game(4, each(lambda s: calls.append(s) or float(len(s)) ** 0.5))
    for seed in range(3):
        phi_of(game, estimator, 20, seed)
    assert len(calls) == len(set(calls)) == game.evaluations
    assert all(list(s) == sorted(set(s)) for s in calls)
    assert {(), (0, 1, 2, 3)} <= set(calls)


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 9), r=st.integers(1, 20), seed=st.integers(0, 99), estimator=st.sampled_from(SAMPLED))
def test_r_orders_never_cost_more_than_the_budget_says(n, r, seed, estimator):
    game = random_game(n, seed)
    phi_of(game, estimator, r, seed)
    assert game.evaluations <= 2 + r * (n - 1)


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 9), r=st.integers(1, 20), seed=st.integers(0, 99))
def test_strata_cost_no_more_than_orders_but_for_those_that_are_always_looked_at(n, r, seed):
    game = random_game(n, seed)
    phi_of(game, "stratified", r, seed)
    assert game.evaluations <= max(2 + r * (n - 1), 2 * n + 2)


@pytest.mark.parametrize("estimator", SAMPLED)
def test_one_order_costs_one_evaluation_per_prefix(estimator):
    game = random_game(9, seed=0)
    phi_of(game, estimator, permutations=1)
    assert game.evaluations == 10


@pytest.mark.parametrize("estimator", [*SAMPLED, "truncated", "stratified", "auto"])
def test_a_budget_of_zero_is_two_orders_per_player(estimator):
    games = [random_game(6, seed=2) for _ in range(2)]
    zero, twelve = (phi_of(game, estimator, r) for game, r in zip(games, (0, 12), strict=True))
    np.testing.assert_array_equal(zero, twelve)
    assert games[0].evaluations == games[1].evaluations
    assert not np.array_equal(zero, phi_of(games[0], estimator, 11))


@pytest.mark.parametrize("estimator", SAMPLED)
def test_many_orders_come_close_to_the_exact_values(estimator):
    game = random_game(6, seed=3)
    error = phi_of(game, estimator, permutations=20_000) - phi_of(game)
    # A marginal contribution here has a deviation near 1.4, so a mean of 20 000 has one near 0.01.
    assert np.abs(error).max() < 0.05


@pytest.mark.parametrize("permutations", [2, 10, 50])
def test_reversed_orders_reduce_the_error_at_equal_cost(permutations):
    game = gradient_game(5, seed=0)
    truth = phi_of(game)
    plain, paired = (
        np.mean([np.abs(phi_of(game, estimator, permutations, seed) - truth) for seed in range(200)])
        for estimator in SAMPLED
    )
    assert paired < 0.9 * plain


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_an_order_and_its_reverse_are_exact_where_players_interact_in_pairs(n, seed):
    gain = np.random.default_rng(seed).normal(size=(n, n))
    game = Game(n, each(lambda s: gain[np.ix_(s, s)].sum()))
    np.testing.assert_allclose(phi_of(game, "antithetic", 2, seed), phi_of(game), atol=1e-11)
    np.testing.assert_allclose(phi_of(game, "stratified", 2, seed), phi_of(game), atol=1e-11)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(3, 12), seed=st.integers(0, 2**32))
def test_one_order_of_strata_compares_single_players(n, seed):
    game, seen = random_game(n, seed), []
    looked = Game(n, each(lambda s: seen.append(s) or game(mask_of(s))))
    phi = phi_of(looked, "stratified", 1, seed)
    assert sorted(seen) == sorted([(), tuple(range(n)), *((j,) for j in range(n))])
    np.testing.assert_allclose(np.diff(phi), np.diff([game(1 << j) for j in range(n)]), atol=1e-12)
    assert phi.sum() == pytest.approx(game(2**n - 1) - game(0), abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_strata_of_all_coalitions_give_the_exact_values(n, seed):
    game = random_game(n, seed)
    np.testing.assert_allclose(phi_of(game, "stratified", 2**n), phi_of(game), atol=1e-12)


@pytest.mark.parametrize("players", [6, 10])
def test_strata_have_less_than_half_the_error_of_orders_at_equal_cost(players):
    def error(estimator, game, truth, seed):
        return np.abs(phi_of(game, estimator, players, seed) - truth).mean()

    games = [gradient_game(players, seed) for seed in range(5)]
    errors = [
        [error(estimator, game, phi_of(game), seed) for game in games for seed in range(20)]
        for estimator in ("stratified", "antithetic")
    ]
    assert np.mean(errors[0]) < 0.5 * np.mean(errors[1])


def test_truncation_saves_evaluations_and_stays_within_its_tolerance():
    full, short = monotone_game(10), monotone_game(10)
    phi, cut = phi_of(full, "permutation", 20), phi_of(short, "truncated", 20, tolerance=0.05)
    assert short.evaluations < full.evaluations / 2
    assert 0 < np.abs(cut - phi).max() <= 0.05
    assert 0 < full(2**10 - 1) - full(0) - cut.sum() <= 0.05


def test_truncation_below_zero_tolerance_walks_every_order_to_its_end():
    game = Game(5, each(lambda s: float(len(s) % 2)))  # passes v(M) on the way
    plain = phi_of(game, "permutation")
    np.testing.assert_array_equal(phi_of(game, "truncated", tolerance=-1.0), plain)
    assert not np.array_equal(phi_of(game, "truncated", tolerance=0.0), plain)


@pytest.mark.parametrize(
    ("players", "permutations", "chosen"),
    [
        (1, 1, "exact"),
        (3, 3, "exact"),  # 8 coalitions, 8 evaluations at most
        (3, 2, "antithetic"),
        (5, 10, "exact"),
        (5, 0, "exact"),
        (6, 0, "antithetic"),
        (10, 20, "antithetic"),
    ],
)
def test_auto_is_exact_where_that_costs_no_more(players, permutations, chosen):
    automatic, explicit = random_game(players, seed=4), random_game(players, seed=4)
    phi = phi_of(automatic, "auto", permutations)
    np.testing.assert_array_equal(phi, phi_of(explicit, chosen, permutations))
    assert automatic.evaluations == explicit.evaluations
    assert (automatic.evaluations == 2**players) == (chosen == "exact")


@pytest.mark.parametrize("estimator", [*SAMPLED, "truncated", "stratified"])
def test_the_generator_alone_decides_a_sampled_estimate(estimator):
    game = random_game(7, seed=5)
    first, again, other = (phi_of(game, estimator, 4, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_exact_values_draw_nothing_from_the_generator():
    generator = np.random.default_rng(0)
    shapley_values(random_game(4, seed=0), "exact", generator=generator)
    assert generator.random() == np.random.default_rng(0).random()


def test_an_unknown_estimator_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"shapley = 'exakt' is not known.*did you mean 'exact'\?"):
        phi_of(random_game(2, seed=0), "exakt")


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("diverged", [nan, inf, -inf, -1e30])
def test_a_player_that_makes_coalitions_diverge_pays_for_it(estimator, diverged):
    game = Game(5, each(lambda s: diverged if 3 in s else 0.1 * len(s)))
    phi = phi_of(game, estimator, 10)
    assert phi[3] == pytest.approx(-1e6 - 0.2, abs=0.2)
    assert (np.delete(phi, 3) > 0).all()


def test_the_floor_replaces_only_what_is_not_finite_above_it():
    game = Game(3, each(lambda s: [5.0, nan, -3.0, -1.0][len(s)]), floor=-2.0)
    assert [game(mask) for mask in (0b000, 0b001, 0b011, 0b111)] == [5.0, -2.0, -2.0, -1.0]


WEIGHTED = {
    "relu": ([3.0, -5.0, 1.0, 0.0], [0.75, 0.0, 0.25, 0.0]),
    "minmax": ([3.0, -1.0, 1.0, 0.0], [4 / 7, 0.0, 2 / 7, 1 / 7]),
    "softmax": ([2.0, 0.0], [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))]),
    "uniform": ([3.0, -5.0, 1.0, 0.0], [0.25] * 4),
}


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_the_weights_follow_their_formula(name):
    phi, expected = WEIGHTED[name]
    np.testing.assert_allclose(WEIGHTINGS[name](np.array(phi)), expected, atol=1e-12)


@settings(deadline=None, max_examples=200)
@given(
    phi=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8),
    name=st.sampled_from(sorted(WEIGHTINGS)),
)
def test_the_weights_are_a_distribution_that_keeps_the_order_of_the_values_or_all_zero(phi, name):
    pi = WEIGHTINGS[name](np.array(phi))
    assert (pi >= 0).all()
    assert (np.diff(pi[np.argsort(phi)]) >= 0).all()
    favours_somebody = {"relu": max(phi) > 1e-12, "minmax": max(phi) - min(phi) > 1e-12}.get(name, True)
    assert pi.sum() == pytest.approx(float(favours_somebody), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "phi", "expected"),
    [
        ("relu", [-1.0, -2.0, 0.0], 0.0),
        ("relu", [3e-17, -0.1, -0.2], 0.0),  # cancelled contributions leave rounding behind
        ("minmax", [0.2, 0.2, 0.2], 0.0),
        ("minmax", [0.1 + 0.2, 0.3, 0.3], 0.0),
        ("softmax", [0.0, 0.0, 0.0], 1 / 3),
        ("softmax", [3e-17, -3e-17, 0.0], 1 / 3),
    ],
)
def test_values_that_favour_nobody_give_no_weights_or_equal_ones(name, phi, expected):
    np.testing.assert_allclose(WEIGHTINGS[name](np.array(phi)), [expected] * 3, atol=1e-15)


def test_the_weights_of_softmax_do_not_depend_on_the_unit_of_the_utility():
    phi = np.array([-0.2, 0.1, 0.05])
    np.testing.assert_allclose(WEIGHTINGS["softmax"](phi), WEIGHTINGS["softmax"](1000 * phi))
