"""Noise that agents draw together, so that more of it vanishes when they mix.

The noise of N agents is N(0, Σ) in every coordinate, independent from query to query. To somebody who sees what all
agents release and knows none of their seeds, agent i is as well hidden as by noise of its own of the variance
1 / (Σ⁻¹)_ii. Every Σ here has max_i (Σ⁻¹)_ii = 1, so it hides as well as independent noise of variance 1, Σ = I. What
survives one mixing is tr(W Σ Wᵀ).
"""

from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Correlation", "Source", "joint", "leaks", "pairwise", "sources", "surviving"]

Array: TypeAlias = NDArray[np.float64]
Correlation: TypeAlias = Literal["pairwise", "joint"]
Source: TypeAlias = tuple[int, int]
"""The agents, in ascending order, that share a seed; twice the same where it is one agent's own."""

RIDGE = 1e-4
"""Added to the diagonal of WᵀW. It bounds noise that W takes away entirely, of which there could be any amount."""

CLOSE, ITERATIONS = 1e-10, 10_000
"""How near to 1 every (Σ⁻¹)_ii is when the iteration of `joint` ends, and after how many it ends in any case."""

RATIOS = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 801)])
"""The s²/σ² that `pairwise` chooses from."""


def pairwise(mixing: Array) -> Array:
    """Return Σ = σ² I + s² L, shape [N, N]: noise that neighbours share with opposite signs, and noise of their own.

    DECOR (Allouah, Koloskova, El Firdoussi, Jaggi and Guerraoui, ICML 2024, arXiv:2405.01031). L is the Laplacian of
    the graph. Of all σ² and s², these let the least noise survive, `RIDGE` included.

    Where two neighbours share nothing and draw noise of the same variance instead, no (Σ⁻¹)_ii grows, as Σ has no
    positive entry beside its diagonal (it is an M-matrix).

    Parameters
    ----------
    mixing : Array
        W, shape [N, N]; neighbours have positive weights.

    Examples
    --------
    >>> ring = (np.eye(4) + np.roll(np.eye(4), 1, 0) + np.roll(np.eye(4), -1, 0)) / 3
    >>> [round(surviving(ring, covariance), 2) for covariance in (np.eye(4), pairwise(ring), joint(ring))]
    [1.33, 1.02, 1.0]
    """
    edges = (mixing > 0) & ~np.eye(len(mixing), dtype=bool)
    laplacian = np.diag(edges.sum(1)) - edges.astype(np.float64)
    values, vectors = np.linalg.eigh(laplacian)
    scales = ((vectors**2) @ (1 / (1 + np.outer(values, RATIOS)))).max(0)
    cost = _cost(mixing)
    survives = scales * (np.trace(cost) + RATIOS * np.sum(cost * laplacian))
    best = int(survives.argmin())
    chosen: Array = scales[best] * (np.eye(len(mixing)) + RATIOS[best] * laplacian)
    return chosen


def joint(mixing: Array) -> Array:
    """Return the Σ, shape [N, N], of which the least survives: CorN-DSGD (Rodio, Chen and Larsson, arXiv:2501.14644).

    ::

        min tr(Σ M)   subject to   (Σ⁻¹)_ii ≤ 1 for all i,   Σ ≻ 0,   M = WᵀW + RIDGE I

    Where Λ = diag(λ) holds the multipliers, M = Σ⁻¹ Λ Σ⁻¹, so Σ⁻¹ = Λ^-½ (Λ^½ M Λ^½)^½ Λ^-½. The iteration
    λ_i ← λ_i (Σ⁻¹)_ii ends where every (Σ⁻¹)_ii is 1. The paper's code solves it as a semidefinite programme.

    Parameters
    ----------
    mixing : Array
        W, shape [N, N].
    """
    cost, multipliers = _cost(mixing), np.ones(len(mixing))
    for _ in range(ITERATIONS):
        root = np.sqrt(multipliers)
        precision = _root(root[:, None] * cost * root) / np.outer(root, root)
        hidden = precision.diagonal()
        if np.abs(hidden - 1).max() < CLOSE:
            break
        multipliers *= hidden
    return _inverse(precision)


def surviving(mixing: Array, covariance: Array) -> float:
    """Return tr(W Σ Wᵀ)."""
    return float(np.trace(mixing @ covariance @ mixing.T))


def leaks(covariance: Array) -> Array:
    """Return (Σ⁻¹)_ii, shape [N]: the precision with which all releases together show an agent's gradient."""
    return _inverse(covariance).diagonal()


def sources(kind: Correlation, mixing: Array, agent: int) -> tuple[dict[Source, float], float]:
    """Return what an agent's noise is the sum of, as factors on N(0, 1) by source, and its (Σ⁻¹)_ii.

    With ``"pairwise"``, a neighbour has the same source with the opposite sign. The noise of ``"joint"`` is no sum of
    sources that two agents share: agent i takes row i of Σ^½, and everybody needs the sources of everybody.
    """
    covariance = _covariance(kind, mixing.tobytes(), len(mixing))
    leak = float(leaks(covariance)[agent])
    if kind == "joint":
        return {(k, k): float(factor) for k, factor in enumerate(_root(covariance)[agent])}, leak
    shared = {j: np.sqrt(-value) for j, value in enumerate(covariance[agent]) if j != agent and value < 0}
    found = {(min(agent, j), max(agent, j)): float(factor if agent < j else -factor) for j, factor in shared.items()}
    return found | {(agent, agent): float(np.sqrt(covariance[agent].sum()))}, leak


@lru_cache(maxsize=4)
def _covariance(kind: Correlation, mixing: bytes, num_agents: int) -> Array:
    matrix = np.frombuffer(mixing).reshape(num_agents, num_agents)
    return joint(matrix) if kind == "joint" else pairwise(matrix)


def _cost(mixing: Array) -> Array:
    found: Array = mixing.T @ mixing + RIDGE * np.eye(len(mixing))
    return found


def _inverse(matrix: Array) -> Array:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _root(matrix: Array) -> Array:
    """Return the symmetric square root."""
    values, vectors = np.linalg.eigh(matrix)
    found: Array = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return found
