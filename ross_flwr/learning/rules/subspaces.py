"""Rules that work in the space that a few vectors span. All ignore W."""

from math import inf
from typing import cast

import numpy as np
from torch import Tensor

from ross_flwr.learning.rules.rule import Stacked, register_rule
from ross_flwr.learning.rules.stacks import Matrix, combined, coordinates

__all__ = ["CAF", "Flag", "GeometricMedian"]

FLAG_TURNS = 20
"""The number of iterations in `Flag`."""


@register_rule("geometric-median")
class GeometricMedian(Stacked):
    """Find argmin_z Σ_j |z − x_j|, the point with the least total distance.

    Pillutla, Kakade and Harchaoui, "Robust aggregation for federated learning" (RFA), 2022, but without their
    smoothing: Weiszfeld's iteration z ← Σ β_j x_j / Σ β_j, β_j = 1/|z − x_j|, from a coordinate median until it
    stops moving, with the step of Vardi and Zhang (2000) where z meets one of the vectors: m ≥ 2f + 1. With f =
    0 too it holds against fewer than m/2 liars. The iteration runs in at most m coordinates, whatever P.

    Examples
    --------
    >>> import torch
    >>> from ross_flwr.learning.rules import View
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> GeometricMedian()(torch.tensor([1.0]), others, View(weights={2: 0.3, 3: 0.3}))
    tensor([2.])
    """

    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the geometric median."""
        return combined(vectors, weiszfeld(coordinates(vectors)))


@register_rule("caf")
class CAF(Stacked):
    """Weigh down vectors that stand out along the direction of most variance (covariance-bound agnostic filter).

    Allouah, Guerraoui and Stephan, "Towards trustworthy federated learning with untrusted participants", ICML 2025.
    From c = 1, while Σ c_j > m − 2f: μ = Σ c_j x_j / Σ c_j; (λ, u) the largest eigenpair of the covariance under c;
    c_j ← c_j (1 − τ_j / max τ), τ_j = (uᵀ(x_j − μ))². The result is the μ with the smallest λ: m ≥ 2f + 1. With f = 0
    the plain mean. The eigenpair is exact, in at most m coordinates, and the maximum is over those with c_j > 0, so
    every turn takes the weight from at least one vector. If the maximum were over all, a far vector that has already
    lost its weight would keep the others from losing theirs.

    Examples
    --------
    >>> import torch
    >>> from ross_flwr.learning.rules import View
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> CAF(byzantine=1)(torch.tensor([1.0]), others, View(weights={2: 0.3, 3: 0.3}))
    tensor([1.5006])
    """

    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the best μ."""
        points, m = coordinates(vectors), len(vectors)
        f = self.byzantine
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
        return combined(vectors, best / best.sum())


@register_rule("flag")
class Flag(Stacked):
    """x_i + ℓ/m Σ_j Y Yᵀ g_j, g_j = (x_j − x_i)/|x_j − x_i|, along the subspace Y that most differences lie near.

    Almasi, Mishra, Vamanan and Ravi, "Flag aggregator: scalable distributed training under failures and augmented
    losses using convex optimization", 2023, around the own vector. Y is the flag median of the p = m − 1 directions:
    from w = 1, twenty times, Y = the ⌈(p + 1)/2⌉ first left singular vectors of [w_j g_j], w_j = (1 − |Yᵀg_j|²)^(−1/4).
    The published code draws the first Y, iterates once, and can also weigh differences of pairs. It returns a
    direction; here the direction gets the median ℓ of all lengths |x_j − x_i|, which is that of an honest vector with
    2f + 1 neighbours. Vectors equal to the own one do not pull. Works in at most m + 1 coordinates, whatever P.

    Examples
    --------
    >>> import torch
    >>> from ross_flwr.learning.rules import View
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([3.0]), 4: torch.tensor([900.0])}
    >>> Flag()(torch.tensor([1.0]), others, View(weights=dict.fromkeys(others, 0.25)))
    tensor([2.5000])
    """

    least = (2, 2)

    def outvotes(self, m: int) -> bool:
        """Return True: as published, it does not know f. It is a defence from 2f + 2 vectors on."""
        return True

    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the flag aggregate around the first vector."""
        own, pulls = vectors[0], coordinates(vectors)
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
        parts = np.linalg.pinv(directions) @ towards * np.median(lengths[1:])
        for row, part in zip(heard.tolist(), (parts / lengths[heard]).tolist(), strict=True):
            result.add_(vectors[row] - own, alpha=part)
        return result


def weiszfeld(points: Matrix) -> Matrix:
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
