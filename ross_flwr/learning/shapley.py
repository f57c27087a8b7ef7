"""Cooperative games, estimators of their Shapley values, and mixing weights made from the values.

An agent plays a game over its closed neighbourhood M: v(S) is the utility of its model after a step along
the mean cross-gradient of S, and player j is worth

    φ_j = Σ_{S ⊆ M∖{j}} |S|! (n − |S| − 1)! / n! · (v(S ∪ {j}) − v(S)),    Σ_j φ_j = v(M) − v(∅).

Evaluating v is the whole cost, so costs below count evaluations; a `Game` makes none of them twice.
"""

from collections.abc import Callable
from math import comb, inf

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ross_flwr.config import require

__all__ = ["ESTIMATORS", "WEIGHTINGS", "Estimator", "Game", "Weighting", "shapley_values"]

Vector = NDArray[np.float64]

Estimator = Callable[..., Vector]
"""From a game to φ. `permutations` is the budget R, 0 means 2n; `tolerance` matters to `truncated` alone."""

Weighting = Callable[..., Vector]
"""From φ to weights π ≥ 0 with sum 1, or all zeros where φ favours nobody: a case for the caller's fallback.

`temperature` > 0 matters to `softmax` alone."""

RESOLUTION = 1e-12
"""Contributions (or differences of them) up to this size are rounding: they carry no weight."""


class Game:
    """A cooperative game over the players 0 … n−1 that asks for the value of a coalition at most once.

    A coalition is a bit mask: bit j is set when player j is in. A value that is not a finite number above
    `floor` (NaN, ±inf, or below it) counts as `floor`. So φ stays finite, and who makes coalitions diverge
    pays for it: a player that does so in each it joins has φ_j = floor − (a mean of v over those without it).

    Parameters
    ----------
    num_players : int
        The number of players n, at least 1.
    value : Callable[[tuple[int, ...]], float]
        The value of a coalition, given as a sorted tuple of players; () is the empty coalition.
    floor : float (default: -1e6)
        The value of a diverged coalition; well below that of any sane one.
    """

    def __init__(self, num_players: int, value: Callable[[tuple[int, ...]], float], floor: float = -1e6) -> None:
        self.num_players = num_players
        self.floor = floor
        self._value = value
        self._known: dict[int, float] = {}

    @property
    def evaluations(self) -> int:
        """The number of coalitions evaluated so far."""
        return len(self._known)

    def __call__(self, mask: int) -> float:
        """Return the value of the coalition `mask`."""
        if mask not in self._known:
            value = float(self._value(tuple(j for j in range(self.num_players) if mask >> j & 1)))
            self._known[mask] = value if self.floor < value < inf else self.floor
        return self._known[mask]


def exact(game: Game, *, permutations: int, generator: Generator, tolerance: float = 1e-3) -> Vector:
    """Weigh the marginal contributions to all coalitions: no error, 2ⁿ evaluations.

    The definition of Shapley (1953). Draws nothing from `generator`.
    """
    n = game.num_players
    values = np.array([game(mask) for mask in range(1 << n)])
    # |S|! (n − |S| − 1)! / n! for each coalition S of the other n − 1 players, in the order of their bits.
    weights = np.array([1 / (n * comb(n - 1, mask.bit_count())) for mask in range(1 << (n - 1))])
    by_bit = (values.reshape(-1, 2, 1 << player) for player in range(n))  # axis 1: without, with the player
    return np.array([weights @ (v[:, 1] - v[:, 0]).ravel() for v in by_bit])


def permutation(game: Game, *, permutations: int, generator: Generator, tolerance: float = 1e-3) -> Vector:
    """Average marginal contributions along R random orders (ApproShapley): at most 2 + R(n − 1) evaluations.

    Castro, Gómez and Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009. Unbiased,
    and efficient for every R: each walk telescopes to v(M) − v(∅). With marginal contributions in [−r, r],
    R ≥ (2r²/ε²) ln(2n/δ) keeps all n errors below ε with probability 1 − δ (Hoeffding).
    """
    return _mean_marginals(game, permutations, generator)


def antithetic(game: Game, *, permutations: int, generator: Generator, tolerance: float = 1e-3) -> Vector:
    """Follow each random order by its reverse: the cost of `permutation`, mostly a smaller error.

    Mitchell, Cooper, Frank and Holmes, "Sampling permutations for Shapley value estimation", 2022. Who comes
    late in one walk comes early in the next, so a pair is exact where players interact at most in pairs.
    Unbiased and efficient like `permutation`. A pair is two of R; an odd R leaves the last order single.
    """
    return _mean_marginals(game, permutations, generator, paired=True)


def truncated(game: Game, *, permutations: int, generator: Generator, tolerance: float = 1e-3) -> Vector:
    """End a walk of `permutation` once |v(M) − v(prefix)| ≤ tolerance (TMC): often far fewer evaluations.

    Ghorbani and Zou, "Data Shapley: equitable valuation of data for machine learning", 2019. The rest of the
    walk counts 0, which biases the estimate: efficiency holds to `tolerance` only, and where v is not
    monotone a player may be off by more. A negative tolerance never truncates and gives `permutation`.
    """
    return _mean_marginals(game, permutations, generator, tolerance=tolerance)


def auto(game: Game, *, permutations: int, generator: Generator, tolerance: float = 1e-3) -> Vector:
    """Be `exact` where 2ⁿ ≤ 2 + R(n − 1), the most that R orders can cost, and `antithetic` elsewhere.

    With the default R = 2n that is exact up to 5 players.
    """
    n = game.num_players
    affordable = 2**n <= 2 + (permutations or 2 * n) * (n - 1)
    estimator = exact if affordable else antithetic
    return estimator(game, permutations=permutations, generator=generator)


def _mean_marginals(
    game: Game, permutations: int, generator: Generator, *, paired: bool = False, tolerance: float = -1.0
) -> Vector:
    """Walk R orders, every second the reverse of the last if `paired`; end one within `tolerance` of v(M)."""
    n = game.num_players
    walks = permutations or 2 * n
    everyone = game((1 << n) - 1)
    phi = np.zeros(n)
    order: list[int] = []
    for walk in range(walks):
        order = order[::-1] if paired and walk % 2 else generator.permutation(n).tolist()
        mask = 0
        for player in order:
            before = game(mask)
            if abs(everyone - before) <= tolerance:
                break
            mask |= 1 << player
            phi[player] += game(mask) - before
    return phi / walks


ESTIMATORS: dict[str, Estimator] = {
    "exact": exact,
    "permutation": permutation,
    "antithetic": antithetic,
    "truncated": truncated,
    "auto": auto,
}


def shapley_values(
    game: Game, estimator: str, *, permutations: int = 0, generator: Generator, tolerance: float = 1e-3
) -> Vector:
    """Estimate the Shapley values φ, of shape (n,), with an estimator chosen by name.

    Parameters
    ----------
    game : Game
        The game; what it has evaluated before costs nothing.
    estimator : str
        A name in `ESTIMATORS`.
    permutations : int (default: 0)
        The budget R in orders of the players; 0 means 2n.
    generator : np.random.Generator
        Where the orders are drawn from.
    tolerance : float (default: 1e-3)
        When `truncated` ends a walk, in units of the utility.

    Examples
    --------
    >>> gloves = Game(3, lambda s: float(0 in s and len(s) > 1))  # one left glove, two right ones
    >>> shapley_values(gloves, "exact", generator=np.random.default_rng(0)).round(3).tolist()
    [0.667, 0.167, 0.167]
    """
    require("shapley", estimator, ESTIMATORS)
    chosen = ESTIMATORS[estimator]
    return chosen(game, permutations=permutations, generator=generator, tolerance=tolerance)


def relu(phi: Vector, temperature: float = 1 / 3) -> Vector:
    """π_j ∝ max(φ_j, 0): drops exactly the harmful players; zeros if nobody helps."""
    return _normalised(np.where(phi > RESOLUTION, phi, 0.0))


def minmax(phi: Vector, temperature: float = 1 / 3) -> Vector:
    """π_j ∝ φ_j − min φ: always drops the lowest player, harmful or not; zeros if all are equal."""
    spread = phi - phi.min()
    return _normalised(np.where(spread > RESOLUTION, spread, 0.0))


def softmax(phi: Vector, temperature: float = 1 / 3) -> Vector:
    """π_j ∝ exp(φ_j / (T · max|φ|)): drops nobody; T → 0 picks the best, T → ∞ or φ = 0 is uniform."""
    largest = np.abs(phi).max()
    if largest <= RESOLUTION:
        return uniform(phi)
    return _normalised(np.exp((phi - phi.max()) / largest / temperature))


def uniform(phi: Vector, temperature: float = 1 / 3) -> Vector:
    """π_j = 1/n, whatever the values."""
    return np.full(len(phi), 1 / len(phi))


def _normalised(weights: Vector) -> Vector:
    total = weights.sum()
    return weights / total if total > 0 else weights


WEIGHTINGS: dict[str, Weighting] = {"relu": relu, "minmax": minmax, "softmax": softmax, "uniform": uniform}
