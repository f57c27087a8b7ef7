"""Rules that make one vector of a neighbourhood's, some of which may lie.

A rule takes a stack of m vectors x_1 … x_m, of which up to f are Byzantine: sent by somebody who may know everything
and obeys nothing. It returns a new vector and changes none. With enough honest vectors (`feasible` tells) a robust rule
stays near them whatever the others are. A pre-aggregation makes another stack of the stack before the rule sees it.

At run time neighbours may be missing. A rule that then has too few vectors for f assumes the largest f' ≤ f it can
serve, rather than failing.

Distances are sums of squared differences in double precision. The usual shortcut, |x|² + |y|² − 2 xᵀy, is off by half
between models that are close to each other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations
from math import ceil, comb, inf
from typing import cast

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["AGGREGATORS", "PRE_AGGREGATIONS", "Aggregation", "PreAggregation", "Rule", "feasible"]

Matrix = NDArray[np.float64]

Rule = Callable[..., Tensor]
"""From `vectors` of shape [m, P] to a new vector of shape [P]. Every rule takes, by keyword, and may ignore

- own: the agent's own vector x_i, shape [P]: the one that surely does not lie;
- weights: the mixing weights w_ij of the rows, float64 of shape [m], with sum 1;
- f: how many of the rows are assumed to be Byzantine;
- radius: τ of `centered_clipping`.
"""

PreAggregation = Callable[..., tuple[Tensor, Tensor]]
"""From `vectors` and `weights` to another stack and its weights; f and a `generator` for draws by keyword."""

SUBSETS = 100_000
"""So many subsets `mda` is ready to look at."""

BUCKET = 2
"""Vectors in a bucket."""

FLAG_TURNS = 20
"""Turns of the iteration in `flag`."""

BLOCK = 2**16
"""Columns worked on at a time, so that double precision costs no second copy of the stack."""


def mean(vectors: Tensor, *, weights: Tensor, **_: object) -> Tensor:
    """Σ_j w_ij x_j, the weighted mean: gossip as usual, and no defence. The one rule that is mixing with W."""
    return _combined(vectors, weights)


def median(vectors: Tensor, **_: object) -> Tensor:
    """Take the median of every coordinate; of an even number the mean of the middle two.

    Yin, Chen, Ramchandran and Bartlett, "Byzantine-robust distributed learning: towards optimal statistical rates",
    ICML 2018. Ignores W and f; holds against fewer than m/2 liars.
    """
    return _middle(_ordered(vectors))


def trimmed_mean(vectors: Tensor, *, f: int, **_: object) -> Tensor:
    """Drop the f largest and the f smallest of every coordinate and average the m − 2f others.

    Yin et al., ICML 2018; BRIDGE-T of Fang, Yang and Bajwa, 2022, where agents use it on models. Ignores W. With f = 0
    the plain mean, with 2f = m − 1 the median.
    """
    rows, f = _ordered(vectors), _largest(f, len(vectors))
    return _average(rows[f : len(rows) - f])


def meamed(vectors: Tensor, *, f: int, **_: object) -> Tensor:
    """Average, in every coordinate, the m − f values nearest to the median (mean around the median).

    Xie, Koyejo and Gupta, "Generalized Byzantine-tolerant SGD", 2018. Ignores W. With f = 0 the plain mean. Of two
    values equally far from the median, the smaller stays.
    """
    rows, f = _ordered(vectors), _largest(f, len(vectors))
    centre, kept = _middle(rows), len(rows) - f
    # In order, the values to keep stand side by side: of the j-th and the (j + m − f)-th exactly one is among them.
    ends = [torch.where(rows[j + kept] - centre < centre - rows[j], rows[j + kept], rows[j]) for j in range(f)]
    return _average([*ends, *rows[f:kept]])


def krum(vectors: Tensor, *, own: Tensor, f: int, **_: object) -> Tensor:
    """Take the vector that is nearest, in sum of squares, to its m − f − 2 nearest others.

    argmin_k Σ_{j ∈ near(k)} |x_k − x_j|² with near(k) the m − f − 2 nearest to x_k among the others. Blanchard, El
    Mhamdi, Guerraoui and Stainer, "Machine learning with adversaries", NeurIPS 2017: m ≥ 2f + 3. Ignores W. Fewer than
    three vectors tell nothing about each other: the agent keeps its own.
    """
    return vectors[_krum_order(vectors, f)[0]].clone() if len(vectors) > 2 else own.clone()


def multi_krum(vectors: Tensor, *, own: Tensor, f: int, **_: object) -> Tensor:
    """Average the m − f vectors that `krum` likes best.

    Blanchard et al., NeurIPS 2017: m ≥ 2f + 3. Ignores W. With f = 0 the plain mean.
    """
    if len(vectors) < 3:
        return own.clone()
    f = _largest(f, len(vectors), 3)
    return _mean_of(vectors, _krum_order(vectors, f)[: len(vectors) - f])


def geometric_median(vectors: Tensor, **_: object) -> Tensor:
    """Find argmin_z Σ_j |z − x_j|, the point with the least total distance.

    Pillutla, Kakade and Harchaoui, "Robust aggregation for federated learning" (RFA), 2022, but without their
    smoothing: Weiszfeld's iteration z ← Σ β_j x_j / Σ β_j, β_j = 1/|z − x_j|, from a coordinate median until it
    stands still, with the step of Vardi and Zhang (2000) where z meets one of the vectors. Ignores W and f; holds
    against fewer than m/2 liars. The iteration runs in at most m coordinates, whatever P.
    """
    return _combined(vectors, torch.from_numpy(_weiszfeld(_coordinates(vectors))))


def centered_clipping(vectors: Tensor, *, own: Tensor, weights: Tensor, radius: float, **_: object) -> Tensor:
    """x_i + Σ_j w_ij (x_j − x_i) min(1, τ/|x_j − x_i|): nobody pulls farther than the clipping radius τ.

    Karimireddy, He and Jaggi, "Learning from history for Byzantine robust optimization", ICML 2021, around the own
    vector and with the weights of W: ClippedGossip of He, Karimireddy and Jaggi, 2022. Ignores f. τ → ∞ is the weighted
    mean, τ = 0 keeps the own vector.
    """
    result = own.clone()
    for vector, weight in zip(vectors, weights.tolist(), strict=True):
        pull = vector - own
        length = float(torch.linalg.vector_norm(pull, dtype=torch.float64))
        result.add_(pull, alpha=weight * (radius / length if length > radius else 1.0))
    return result


def mda(vectors: Tensor, *, f: int, **_: object) -> Tensor:
    """Average the m − f vectors with the smallest diameter (minimum-diameter averaging).

    argmin_{|S| = m − f} max_{j, k ∈ S} |x_j − x_k|. El Mhamdi, Guerraoui and Rouault, "The hidden vulnerability of
    distributed learning in Byzantium", ICML 2018. Ignores W. With f = 0 the plain mean. Looks at all C(m, f) subsets,
    of which it takes the first in lexicographic order of those that are best.
    """
    m, f = len(vectors), _largest(f, len(vectors))
    kept = m - f
    chosen = np.fromiter(chain.from_iterable(combinations(range(m), kept)), dtype=np.int64).reshape(-1, kept)
    member = np.zeros((m, len(chosen)), dtype=bool)
    member[chosen.T, np.arange(len(chosen))] = True
    distances = _squared_distances(vectors)
    best = np.ones(len(chosen), dtype=bool)
    # From the longest distance down, drop the subsets that hold both ends, as long as one is left.
    for distance in np.unique(distances)[::-1]:
        survivors = best.copy()
        for j, k in np.argwhere(np.triu(distances == distance, 1)):
            survivors &= ~(member[j] & member[k])
        if not survivors.any():
            break
        best = survivors
    return _mean_of(vectors, chosen[best.argmax()])


def caf(vectors: Tensor, *, f: int, **_: object) -> Tensor:
    """Weigh vectors down that stand out along the direction of most variance (covariance-bound agnostic filter).

    Allouah, Guerraoui and Stephan, "Towards trustworthy federated learning with untrusted participants", ICML 2025.
    From c = 1, while Σ c_j > m − 2f: μ = Σ c_j x_j / Σ c_j; (λ, u) the largest eigenpair of the covariance under c;
    c_j ← c_j (1 − τ_j / max τ), τ_j = (uᵀ(x_j − μ))². The result is the μ with the smallest λ. Ignores W. With f = 0
    the plain mean. The eigenpair is exact, in at most m coordinates, and the maximum is over those with c_j > 0: so
    every turn takes the weight from one vector at least. Were the maximum over all, one far vector, its weight long
    gone, would keep the others from losing any.
    """
    points, m, f = _coordinates(vectors), len(vectors), _largest(f, len(vectors))
    weights = best = np.ones(m)
    smallest = inf
    while weights.sum() > m - 2 * f:
        around = points - weights @ points / weights.sum()
        variances, directions = np.linalg.eigh((around.T * weights) @ around / weights.sum())
        if variances[-1] < smallest:
            smallest, best = variances[-1], weights
        squares = np.where(weights > 0, (around @ directions[:, -1]) ** 2, 0.0)
        if squares.max() <= 0:
            break
        weights = np.where(weights > 0, weights * (1 - squares / squares.max()), 0.0)
    return _combined(vectors, torch.from_numpy(best / best.sum()))


def flag(vectors: Tensor, *, own: Tensor, **_: object) -> Tensor:
    """x_i + ℓ/m Σ_j Y Yᵀ g_j, g_j = (x_j − x_i)/|x_j − x_i|, along the subspace Y that most differences lie near.

    Almasi, Mishra, Vamanan and Ravi, "Flag aggregator: scalable distributed training under failures and augmented
    losses using convex optimization", 2023, around the own vector. Y is the flag median of the p = m − 1 directions:
    from w = 1, twenty times, Y = the ⌈(p + 1)/2⌉ first left singular vectors of [w_j g_j], w_j = (1 − |Yᵀg_j|²)^(−1/4).
    The published code draws the first Y and turns once, and can weigh differences of pairs as well. It returns a
    direction; the median ℓ of the lengths |x_j − x_i| gives it one back. Vectors equal to the own one pull by nothing.
    Ignores W and f; holds against fewer than (m − 1)/2 liars. Works in at most m + 1 coordinates, whatever P.
    """
    pulls = _coordinates(torch.cat([own[None], vectors]))[1:]
    lengths = np.linalg.norm(pulls, axis=1)
    heard = np.flatnonzero(lengths)
    result = own.clone()
    if not heard.size:
        return result
    directions = (pulls[heard] / lengths[heard, None]).T
    near = np.ones(heard.size)
    for _turn in range(FLAG_TURNS):
        basis = np.linalg.svd(directions * near, full_matrices=False)[0][:, : heard.size // 2 + 1]
        near = (np.abs(1 - np.square(basis.T @ directions).sum(axis=0)) + 1e-7) ** -0.25
    towards = basis @ (basis.T @ directions.sum(axis=1)) / len(vectors)
    parts = np.linalg.pinv(directions) @ towards * np.median(lengths[heard])
    for row, part in zip(heard.tolist(), (parts / lengths[heard]).tolist(), strict=True):
        result.add_(vectors[row] - own, alpha=part)
    return result


AGGREGATORS: dict[str, Rule] = {
    "mean": mean,
    "median": median,
    "trimmed-mean": trimmed_mean,
    "meamed": meamed,
    "krum": krum,
    "multi-krum": multi_krum,
    "geometric-median": geometric_median,
    "centered-clipping": centered_clipping,
    "mda": mda,
    "caf": caf,
    "flag": flag,
}


def none(vectors: Tensor, *, weights: Tensor, **_: object) -> tuple[Tensor, Tensor]:
    """Leave the vectors as they are."""
    return vectors, weights


def bucketing(vectors: Tensor, *, weights: Tensor, generator: Generator, **_: object) -> tuple[Tensor, Tensor]:
    """Average pairs drawn at random, so that honest vectors differ less; an odd one stays alone.

    Karimireddy, He and Jaggi, "Byzantine-robust learning on heterogeneous datasets via bucketing", ICLR 2022, with
    s = 2. Half the vectors are left, of which still up to f are poisoned. A bucket's weight is that of its members.
    """
    order = generator.permutation(len(vectors))
    buckets = [order[start : start + BUCKET] for start in range(0, len(order), BUCKET)]
    stack = torch.stack([_mean_of(vectors, bucket) for bucket in buckets])
    return stack, torch.stack([weights[bucket].sum() for bucket in buckets])


def nnm(vectors: Tensor, *, weights: Tensor, f: int, **_: object) -> tuple[Tensor, Tensor]:
    """Replace every vector by the mean of the m − f nearest to it, itself included (nearest-neighbour mixing).

    Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing by mixing", AISTATS 2023. With f = 0 every vector
    is the plain mean.
    """
    kept = len(vectors) - _largest(f, len(vectors))
    nearest = np.argsort(_squared_distances(vectors), axis=1, kind="stable")[:, :kept]
    return torch.stack([_mean_of(vectors, row) for row in nearest]), weights


PRE_AGGREGATIONS: dict[str, PreAggregation] = {"none": none, "bucketing": bucketing, "nnm": nnm}


@dataclass(frozen=True)
class Aggregation:
    """How an agent makes one vector of its neighbourhood's: a pre-aggregation, a rule, and what they assume.

    Parameters
    ----------
    rule : str (default: "mean")
        A name in `AGGREGATORS`.
    pre_aggregation : str (default: "none")
        A name in `PRE_AGGREGATIONS`.
    byzantine : int (default: 1)
        f, of the vectors in a closed neighbourhood.
    clip_radius : float (default: 1.0)
        τ of `centered_clipping`.

    Examples
    --------
    >>> vectors = torch.tensor([[1.0], [2.0], [3.0], [2.0], [900.0]])
    >>> weights = torch.full((5,), 0.2, dtype=torch.float64)
    >>> Aggregation("median")(vectors, own=vectors[0], weights=weights, generator=np.random.default_rng(0))
    tensor([2.])
    """

    rule: str = "mean"
    pre_aggregation: str = "none"
    byzantine: int = 1
    clip_radius: float = 1.0

    def __call__(self, vectors: Tensor, *, own: Tensor, weights: Tensor, generator: Generator) -> Tensor:
        """Return the aggregate of `vectors`, a new tensor of shape [P]; see `Rule` for the arguments.

        Neighbours' vectors are finite, or they would have been dropped. An agent whose own is not has diverged, and as
        with the mean it stays so.
        """
        if not own.isfinite().all():
            return own.clone()
        f = self.byzantine
        vectors, weights = PRE_AGGREGATIONS[self.pre_aggregation](vectors, weights=weights, f=f, generator=generator)
        return AGGREGATORS[self.rule](vectors, own=own, weights=weights, f=f, radius=self.clip_radius)


_LEAST: dict[str, tuple[int, str]] = {
    "trimmed-mean": (1, "2f + 1"),
    "meamed": (1, "2f + 1"),
    "krum": (3, "2f + 3"),
    "multi-krum": (3, "2f + 3"),
    "mda": (1, "2f + 1"),
    "caf": (1, "2f + 1"),
    "nnm": (1, "2f + 1"),
}
"""How many vectors more than 2f a rule or pre-aggregation needs. Those not here make no use of f."""


def feasible(name: str, m: int, f: int, pre_aggregation: str = "none") -> str:
    """Return why the rule called `name` cannot face f liars among m vectors, in one clause; empty if it can.

    Examples
    --------
    >>> feasible("krum", 5, 1), feasible("krum", 5, 2)
    ('', 'krum needs at least 2f + 3 = 7 vectors and has 5')
    """
    left = ceil(m / BUCKET) if pre_aggregation == "bucketing" else m
    for part, has in ((pre_aggregation, m), (name, left)):
        more, formula = _LEAST.get(part, (0, ""))
        if formula and has < 2 * f + more:
            pairs = " after bucketing" if has < m else ""
            return f"{part} needs at least {formula} = {2 * f + more} vectors and has {has}{pairs}"
    if name == "mda" and comb(left, f) > SUBSETS:
        return f"mda would look at {comb(left, f)} subsets of {left} vectors, more than {SUBSETS}"
    return ""


def _largest(f: int, m: int, more: int = 1) -> int:
    """Return the largest f' ≤ f with m ≥ 2f' + more, or 0."""
    return max(0, min(f, (m - more) // 2))


def _combined(vectors: Tensor, weights: Tensor) -> Tensor:
    """Return Σ_j w_j x_j."""
    return weights.to(vectors) @ vectors


def _mean_of(vectors: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Return the mean of some rows; the others are not read."""
    return _average([vectors[row] for row in sorted(rows.tolist())])


def _average(rows: list[Tensor]) -> Tensor:
    total = rows[0].clone()
    for row in rows[1:]:
        total.add_(row)
    return total.div_(len(rows))


def _middle(rows: list[Tensor]) -> Tensor:
    """Return the median of every coordinate, the rows being in order."""
    m = len(rows)
    return (rows[(m - 1) // 2] + rows[m // 2]) / 2


def _ordered(vectors: Tensor) -> list[Tensor]:
    """Return rows that hold, in every coordinate, the values of `vectors` in ascending order.

    A sorting network of rows: for the few vectors of a neighbourhood ten times as fast as sorting column by column.
    """
    rows = list(vectors.clone())
    for low, high in _comparators(len(rows)):
        smaller = torch.minimum(rows[low], rows[high])
        torch.maximum(rows[low], rows[high], out=rows[high])
        rows[low] = smaller
    return rows


def _comparators(n: int) -> Iterator[tuple[int, int]]:
    """Yield the exchanges of Batcher's network for n values (Knuth, The Art of Computer Programming 3, 5.2.2 M)."""
    top = 1 << (n - 1).bit_length() >> 1
    p = top
    while p:
        q, r, d = top, 0, p
        while d:
            yield from ((i, i + d) for i in range(n - d) if i & p == r)
            d, q, r = q - p, q >> 1, p
        p >>= 1


def _squared_distances(vectors: Tensor) -> Matrix:
    """Return |x_j − x_k|², shape (m, m)."""
    m = len(vectors)
    distances = np.zeros((m, m))
    for part in _blocks(vectors):
        distances[np.triu_indices(m, 1)] += torch.pdist(part).square().cpu().numpy()
    both: Matrix = distances + distances.T
    return both


def _blocks(vectors: Tensor) -> Iterator[Tensor]:
    """Yield the stack in double precision, some columns at a time."""
    for start in range(0, vectors.shape[1], BLOCK):
        yield vectors[:, start : start + BLOCK].double()


def _krum_order(vectors: Tensor, f: int) -> NDArray[np.int64]:
    """Return the rows from the best Krum score on."""
    m = len(vectors)
    nearest = np.sort(_squared_distances(vectors), axis=1)[:, 1 : m - _largest(f, m, 3) - 1]
    order: NDArray[np.int64] = np.argsort(nearest.sum(axis=1), kind="stable")
    return order


def _coordinates(vectors: Tensor) -> Matrix:
    """Return points with the same distances as `vectors` in a space of at most m dimensions, shape (m, ≤ m).

    They are the columns of R in a QR decomposition of the stack, made block by block. Each is as exact as its own
    length allows: a huge vector does not spoil the others, as it would in a Gram matrix.
    """
    triangle: Tensor | None = None
    for part in _blocks(vectors):
        rows = (part - part[0]).T
        rows = rows if triangle is None else torch.cat([triangle, rows])
        triangle = torch.linalg.qr(rows, mode="r").R
    assert triangle is not None
    points: Matrix = triangle.T.cpu().numpy()
    return points


def _weiszfeld(points: Matrix) -> Matrix:
    """Return the weights λ ≥ 0, with sum 1, that make the geometric median of `points`: z = Σ λ_j p_j."""
    m = len(points)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    best = int(distances.sum(axis=1).argmin())
    scale = float(np.median(distances[best]))

    def look(z: Matrix) -> tuple[Matrix, Matrix, float]:
        """Return 1/|z − p_j| of the points away from z, which points are at z, and how hard the others pull."""
        away = points - z
        length = np.linalg.norm(away, axis=1)
        at = length <= 1e-12 * scale
        beta = np.where(at, 0.0, 1 / np.where(at, 1.0, length))
        return beta, at.astype(float), float(np.linalg.norm(beta @ away))

    _, here, pull = look(points[best])
    if pull < (1 - 1e-9) * here.sum():  # the median is one of the points, and then it is this
        return cast(Matrix, here / here.sum())
    z, weights = np.median(points, axis=0), np.full(m, 1 / m)
    for _ in range(1000):
        beta, here, pull = look(z)
        held = here.sum() / pull if here.any() and pull else float(here.any())
        if held >= 1:
            return cast(Matrix, here / here.sum())
        weights = (1 - held) * beta / beta.sum() + held * here / max(here.sum(), 1)
        before, z = z, weights @ points
        if np.linalg.norm(z - before) <= 1e-9 * scale:
            break
    return weights
