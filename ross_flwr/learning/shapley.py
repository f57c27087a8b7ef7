"""Cooperative games, estimators of their Shapley values, and mixing weights made from the values.

An agent plays a game over its closed neighbourhood M: v(S) is the utility of its model after a step along
the mean cross-gradient of S, and player j is worth

    φ_j = Σ_{S ⊆ M∖{j}} |S|! (n − |S| − 1)! / n! · (v(S ∪ {j}) − v(S)),    Σ_j φ_j = v(M) − v(∅).

Evaluating v is the whole cost, so costs below count evaluations; a `Game` makes none of them twice.
"""

from collections.abc import Callable, Iterable
from itertools import accumulate
from math import comb, inf
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ross_flwr.config import require

__all__ = ["ESTIMATORS", "WEIGHTINGS", "Estimator", "Game", "Weighting", "shapley_values"]

Vector = NDArray[np.float64]

Values: TypeAlias = Callable[[Iterable[tuple[int, ...]]], Iterable[float]]
"""From coalitions to their values, in the same order."""

Estimator = Callable[..., Vector]
"""From a game to φ. `permutations` is the budget R, 0 means 2n; only `truncated` uses `tolerance`."""

Weighting = Callable[[Vector], Vector]
"""From φ to weights π ≥ 0 with sum 1, or all zeros if φ favours no player; then the caller needs a fallback."""

TEMPERATURE = 1 / 3
"""T of `softmax`."""

RESOLUTION = 1e-12
"""Contributions (or differences of them) up to this size are rounding: they carry no weight."""


class Game:
    """A cooperative game over the players 0 … n−1 that asks for the value of a coalition at most once.

    A coalition is a bit mask: bit j is set when player j is in. A value that is not a finite number above
    `floor` (NaN, ±inf, or below it) counts as `floor`. So φ stays finite, and a player that makes coalitions
    diverge pays for it: if it does so in each that it joins, φ_j = floor − (a mean of v over those without it).

    Parameters
    ----------
    num_players : int
        The number of players n, at least 1.
    values : callable
        From coalitions, each a sorted tuple of players, to their values; () is the empty coalition. Those that are
        asked for together may be evaluated together.
    floor : float (default: -1e6)
        The value of a diverged coalition, well below that of any other.
    """

    def __init__(self, num_players: int, values: Values, floor: float = -1e6) -> None:
        self.num_players = num_players
        self.floor = floor
        self._values = values
        self._known: dict[int, float] = {}

    @property
    def evaluations(self) -> int:
        """The number of coalitions evaluated so far."""
        return len(self._known)

    def values(self, masks: Iterable[int]) -> list[float]:
        """Return the values of some coalitions, evaluating the new ones together."""
        masks = list(masks)
        new = [mask for mask in dict.fromkeys(masks) if mask not in self._known]
        if new:
            coalitions = (tuple(j for j in range(self.num_players) if mask >> j & 1) for mask in new)
            for mask, value in zip(new, map(float, self._values(coalitions)), strict=True):
                self._known[mask] = value if self.floor < value < inf else self.floor
        return [self._known[mask] for mask in masks]

    def __call__(self, mask: int) -> float:
        """Return the value of the coalition `mask`."""
        return self.values((mask,))[0]


def exact(game: Game, *, permutations: int, generator: Generator, tolerance: float = 1e-3) -> Vector:
    """Weigh the marginal contributions to all coalitions: no error, 2ⁿ evaluations.

    The definition of Shapley (1953). Draws nothing from `generator`.
    """
    n = game.num_players
    values = np.array(game.values(range(1 << n)))
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

    Mitchell, Cooper, Frank and Holmes, "Sampling permutations for Shapley value estimation", 2022. A player that
    comes late in one walk comes early in the next, so a pair is exact where players interact at most in pairs.
    Unbiased and efficient like `permutation`. A pair is two of R; an odd R leaves the last order single.
    """
    return _mean_marginals(game, permutations, generator, paired=True)


def truncated(game: Game, *, permutations: int, generator: Generator, tolerance: float = 1e-3) -> Vector:
    """End a walk of `permutation` once |v(M) − v(prefix)| ≤ tolerance (TMC): often far fewer evaluations.

    Ghorbani and Zou, "Data Shapley: equitable valuation of data for machine learning", 2019. The rest of the
    walk counts 0, which biases the estimate: efficiency holds to `tolerance` only, and where v is not
    monotone a player may be off by more. A negative tolerance never truncates and gives `permutation`.

    Where |v(M) − v(∅)| ≤ tolerance, every walk ends at once and φ = 0 after two evaluations. GTG-Shapley (Liu, Chen,
    Zhao, Yu, Liu and Cui, 2022) truncates whole rounds in this way. Attackers can bring it about.
    """
    return _mean_marginals(game, permutations, generator, tolerance=tolerance)


def stratified(game: Game, *, permutations: int, generator: Generator, tolerance: float = 1e-3) -> Vector:
    """Let each coalition count for all players (stratified SVARM): at most 2 + R(n − 1) evaluations, or 2n + 2.

    Kolpaczki, Bengs, Muschalik and Hüllermeier, "Approximating the Shapley value without marginal contributions", 2024.
    For each size, mean values of coalitions with and without a player are compared. Nobody, everybody, single players
    and everybody but one are looked at first. R = 2 leaves it at these, draws nothing, and is exact where players
    interact at most in pairs; R = 1 leaves out everybody but one as well, and compares n + 2 coalitions: φ_j is
    v({j}) − v(∅), plus the same for all. Other coalitions have size s with a probability ∝ 1/(s(n − s)).

    What is missing to v(M) − v(∅) is shared out equally, so that the estimate is efficient, like `permutation`. So a
    player that changes nothing may be worth a little. With all 2ⁿ coalitions it is `exact`.
    """
    n, everyone = game.num_players, (1 << game.num_players) - 1
    budget = 2 + (permutations or 2 * n) * (n - 1)
    masks = [0, everyone, *(1 << j for j in range(n))]
    if permutations != 1:
        masks += [everyone ^ 1 << j for j in range(n)]
    if 2**n <= budget:
        masks = list(range(1 << n))
    elif budget > len(masks):
        sizes = np.arange(2, n - 1)
        odds = 1 / (sizes * (n - sizes))
        drawn = generator.choice(sizes, budget - len(masks), p=odds / odds.sum())
        masks += [sum(1 << int(j) for j in generator.choice(n, size, replace=False)) for size in drawn]
    masks = list(dict.fromkeys(masks))
    values = np.array(game.values(masks))
    inside = np.array([[mask >> j & 1 for j in range(n)] for mask in masks])
    of_size = inside.sum(1) == np.arange(n + 1)[:, None]  # [n + 1, coalitions]
    with np.errstate(invalid="ignore"):  # NaN: no such coalition was drawn
        having, lacking = ((of_size @ (part * values[:, None])) / (of_size @ part) for part in (inside, 1 - inside))
    phi = np.nanmean(having[1:] - lacking[:-1], axis=0)
    phi += (game(everyone) - game(0) - phi.sum()) / n
    return np.asarray(phi)


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
    orders: list[list[int]] = []
    for walk in range(permutations or 2 * n):
        orders.append(orders[-1][::-1] if paired and walk % 2 else generator.permutation(n).tolist())
    if tolerance < 0:  # no walk ends early, so all coalitions are known beforehand
        game.values(mask for order in orders for mask in _prefixes(order))
    everyone = game((1 << n) - 1)
    phi = np.zeros(n)
    for order in orders:
        for player, before, after in zip(order, _prefixes(order), _prefixes(order)[1:], strict=False):
            if abs(everyone - game(before)) <= tolerance:
                break
            phi[player] += game(after) - game(before)
    return phi / len(orders)


def _prefixes(order: list[int]) -> list[int]:
    """Return the coalitions on the way from nobody to all players of `order`."""
    return list(accumulate((1 << player for player in order), initial=0))


ESTIMATORS: dict[str, Estimator] = {
    "exact": exact,
    "permutation": permutation,
    "antithetic": antithetic,
    "truncated": truncated,
    "stratified": stratified,
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
        How near to v(M) `truncated` ends a walk, in units of the utility.

    Examples
    --------
    >>> # One left glove, two right ones: a pair is worth 1.
    >>> gloves = Game(3, lambda coalitions: [float(0 in s and len(s) > 1) for s in coalitions])
    >>> shapley_values(gloves, "exact", generator=np.random.default_rng(0)).round(3).tolist()
    [0.667, 0.167, 0.167]
    """
    require("shapley", estimator, ESTIMATORS)
    chosen = ESTIMATORS[estimator]
    return chosen(game, permutations=permutations, generator=generator, tolerance=tolerance)


def relu(phi: Vector) -> Vector:
    """π_j ∝ max(φ_j, 0): drops exactly the harmful players; zeros if nobody helps."""
    return _normalised(np.where(phi > RESOLUTION, phi, 0.0))


def minmax(phi: Vector) -> Vector:
    """π_j ∝ φ_j − min φ: always drops the lowest player, harmful or not; zeros if all are equal."""
    spread = phi - phi.min()
    return _normalised(np.where(spread > RESOLUTION, spread, 0.0))


def softmax(phi: Vector) -> Vector:
    """π_j ∝ exp(φ_j / (T · max|φ|)) with T = 1/3: drops nobody; φ = 0 is uniform."""
    largest = np.abs(phi).max()
    if largest <= RESOLUTION:
        return uniform(phi)
    return _normalised(np.exp((phi - phi.max()) / largest / TEMPERATURE))


def uniform(phi: Vector) -> Vector:
    """π_j = 1/n, whatever the values."""
    return np.full(len(phi), 1 / len(phi))


def _normalised(weights: Vector) -> Vector:
    total = weights.sum()
    return weights / total if total > 0 else weights


WEIGHTINGS: dict[str, Weighting] = {"relu": relu, "minmax": minmax, "softmax": softmax, "uniform": uniform}
