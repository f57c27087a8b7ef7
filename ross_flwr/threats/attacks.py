"""What an attacker sends instead of the truth.

An attack takes a stack of m honest vectors x_1 … x_m, what the attacker knows of what its victim is about to hear, and
returns the vector to send to that victim. μ and σ are the mean and the standard deviation of every coordinate of the
stack. Vectors are models, momenta or cross-gradients: an attack is the same for all of them.
"""

from collections.abc import Callable
from math import acos, sin
from statistics import NormalDist

import torch
from numpy.random import Generator
from torch import Tensor

__all__ = ["ATTACKS", "BLIND", "GRADIENTS_ONLY", "Attack", "published_z"]

Attack = Callable[..., Tensor]
"""From `vectors` of shape [m, P] to a new vector of shape [P]. Every attack takes, by keyword, and may ignore

- own: what the attacker would send if it were honest, shape [P];
- victim: the victim's own vector x_i, one of the rows, shape [P];
- weights, liar_weight: w_ij of the rows, shape [m], and Σ_b w_ib over the liars b among the victim's neighbours;
- liars, neighbors: m_i and n_i, the liars among the victim's neighbours and all of these;
- num_attackers, num_agents: m and n, the same of the whole network;
- strength: the number that the attack has, by default that of its paper;
- generator: for draws of this attacker, victim, step and round;
- common: for draws that all attackers make alike in every round;
- position: the victim's place among those the attacker sends to, from 0;
- notes: vectors kept from one call with the same attacker, victim and step to the next;
- round: t;
- defence: from the lie to what the victim will make of the rows and `liars` copies of it;
- model, learning_rate: the victim's model and η;
- utility, gradient: the utility of a model, and its gradient, on the attacker's sample of the validation distribution.
"""

EVALUATIONS = 20
"""So often a line search looks."""

JITTER = 1e-3
"""By this part of their length the vectors of Sybils differ."""


def sign_flip(vectors: Tensor, *, own: Tensor, strength: float = 3.0, **_: object) -> Tensor:
    """Send −s times the own vector (s = 3)."""
    return own * -strength


def bit_flip(vectors: Tensor, *, own: Tensor, **_: object) -> Tensor:
    """Send the own vector with every sign turned, −x."""
    return -own


def sign_flip_mean(vectors: Tensor, *, strength: float = 1.0, **_: object) -> Tensor:
    """Send −s μ (s = 1), the opposite of where the honest are.

    Allen-Zhu, Ebrahimianghazani, Li and Alistarh, "Byzantine-resilient non-convex stochastic gradient descent", ICLR
    2021.
    """
    return vectors.mean(0) * -strength


def ipm(vectors: Tensor, *, strength: float = 0.1, **_: object) -> Tensor:
    """Send −ε μ with a small ε (0.1), near enough to be kept and on the wrong side (IPM, fall of empires).

    Xie, Koyejo and Gupta, "Fall of empires: breaking Byzantine-tolerant SGD by inner product manipulation", UAI 2019.
    """
    return vectors.mean(0) * -strength


def ipm_optimised(vectors: Tensor, *, defence: Callable[[Tensor], Tensor], **_: object) -> Tensor:
    """Send −τ μ with the τ that moves the victim's aggregate farthest from μ, by line search.

    As in ByzFL (Guerraoui et al., 2025): argmax_τ |agg(x_1 … x_m, lies) − μ|.
    """
    mean = vectors.mean(0)
    return _farthest(lambda tau: mean * -tau, mean, defence)


def alie(vectors: Tensor, *, neighbors: int, liars: int, strength: float | None = None, **_: object) -> Tensor:
    """Send μ + z σ, inside the spread of the honest: a little is enough. z follows from the victim's neighbourhood.

    Baruch, Baruch and Goldberg, NeurIPS 2019. On a graph, as Wu, Chen and Ling do for IOS (2023): of n_i neighbours m_i
    lie, s = ⌊(n_i + 1)/2⌋ − m_i and z = Φ⁻¹((n_i − s)/n_i).
    """
    z = published_z(neighbors, (neighbors + 1) // 2 - liars) if strength is None else strength
    return vectors.mean(0) + z * _deviation(vectors)


def alie_network(
    vectors: Tensor, *, num_agents: int, num_attackers: int, strength: float | None = None, **_: object
) -> Tensor:
    """Send μ − z σ, a little is enough with the z that follows from the whole network.

    As He, Karimireddy and Jaggi do for ClippedGossip (2022): of n agents m lie, s = ⌊n/2 + 1⌋ − m and
    z = Φ⁻¹((n − m − s)/(n − m)).
    """
    honest = num_agents - num_attackers
    z = published_z(honest, num_agents // 2 + 1 - num_attackers) if strength is None else strength
    return vectors.mean(0) - z * _deviation(vectors)


def alie_optimised(vectors: Tensor, *, defence: Callable[[Tensor], Tensor], **_: object) -> Tensor:
    """Send μ + τ σ with the τ that moves the victim's aggregate farthest from μ, by line search.

    As in ByzFL (Guerraoui et al., 2025): argmax_τ |agg(x_1 … x_m, lies) − μ|.
    """
    mean, deviation = vectors.mean(0), _deviation(vectors)
    return _farthest(lambda tau: mean + tau * deviation, mean, defence)


def gaussian(vectors: Tensor, *, own: Tensor, generator: Generator, strength: float = 30.0, **_: object) -> Tensor:
    """Send noise from N(0, σ² I) with σ = 30."""
    return _normal(generator, own) * strength


def zero(vectors: Tensor, *, own: Tensor, **_: object) -> Tensor:
    """Send zeros."""
    return torch.zeros_like(own)


def same_value(vectors: Tensor, *, own: Tensor, strength: float = 1.0, **_: object) -> Tensor:
    """Send the same number c (1) in every coordinate."""
    return torch.full_like(own, strength)


def infinite(vectors: Tensor, *, own: Tensor, **_: object) -> Tensor:
    """Send infinity in every coordinate; a receiver takes it for no message."""
    return torch.full_like(own, torch.inf)


def duplicate(vectors: Tensor, **_: object) -> Tensor:
    """Send the vector of the first honest agent, so that it counts more than once."""
    return vectors[0].clone()


def mimic(
    vectors: Tensor, *, notes: dict[str, Tensor], generator: Generator, strength: float = 100.0, **_: object
) -> Tensor:
    """Send the honest vector that stands out most along the direction in which they differ most.

    Karimireddy, He and Jaggi, "Byzantine-robust learning on heterogeneous datasets via bucketing", ICLR 2022. For the
    first 100 rounds copy the first and look for the direction z, with μ̂ the mean of all vectors so far:
    z ← norm((t+1)/(t+2) z + 1/(t+2) norm Σ_k (x_k − μ̂) ⟨x_k − μ̂, z⟩). Then copy argmax_k |⟨x_k, z⟩|. (With
    |⟨x_k − μ̂, z⟩| in the sum, as in MoNNA's released code, what lies on both sides of μ̂ cancels, and z is not found.)
    """
    t = int(notes.get("count", torch.zeros(1)))
    z = notes["direction"] if t else _unit(_normal(generator, vectors[0]))
    if t < strength:
        mean = torch.lerp(notes["mean"], vectors.mean(0), 1 / (t + 1)) if t else vectors.mean(0)
        around = vectors - mean
        turn = _unit(around @ z @ around)
        notes["mean"], notes["direction"] = mean, _unit(z * (t + 1) / (t + 2) + turn / (t + 2))
        notes["count"] = torch.full((1,), t + 1.0)
        return vectors[0].clone()
    return vectors[int((vectors @ z).abs().argmax())].clone()


def dissensus(
    vectors: Tensor, *, victim: Tensor, weights: Tensor, liar_weight: float, strength: float = 1.0, **_: object
) -> Tensor:
    """Send x_i − ε Σ_j w_ij (x_j − x_i) / Σ_b w_ib: with ε = 1 plain gossip gives the victim back its own x_i.

    He, Karimireddy and Jaggi, "Byzantine-robust decentralized learning via ClippedGossip", 2022. The sums are over the
    victim's honest neighbours j and its lying ones b.
    """
    return victim - weights.to(vectors) @ (vectors - victim) * (strength / liar_weight)


def isolation(vectors: Tensor, *, victim: Tensor, liars: int, **_: object) -> Tensor:
    """Send (r x_i − Σ_j x_j) / m_i for r honest neighbours j: with the lies they sum to r x_i and say nothing new.

    Wu, Chen and Ling, "Byzantine-resilient decentralized stochastic optimization with robust aggregation rules", 2023.
    Weighted by W it is `dissensus` with ε = 1.
    """
    return (len(vectors) * victim - vectors.sum(0)) / liars


def zero_sum(vectors: Tensor, *, victim: Tensor, liars: int, **_: object) -> Tensor:
    """Send −Σ_j x_j / m_i over the victim's honest neighbours j: with the lies they sum to zero.

    Wu, Chen and Ling, 2023.
    """
    return (victim - vectors.sum(0)) / liars


def dmpa(vectors: Tensor, *, own: Tensor, **_: object) -> Tensor:
    """Turn the mean of the clean vectors known away from their main direction, by the angle of their correlation.

    DMPA (arXiv:2502.04771), whose formulas were not available; reconstructed from its summary. With the m clean vectors
    a_k as the rows of A: (λ, v) the largest eigenpair of their correlation matrix, θ = arccos(λ/m), d = Aᵀv/|Aᵀv|; the
    lie is the mean of a_k − (1 + sin θ) ⟨a_k, d⟩ d.
    """
    clean = torch.cat([own[None], vectors]).double()
    around = torch.nn.functional.normalize(clean - clean.mean(1, keepdim=True))
    values, eigenvectors = torch.linalg.eigh(around @ around.T)
    theta = acos(min(max(float(values[-1]) / len(clean), -1.0), 1.0))
    direction, mean = _unit(clean.T @ eigenvectors[:, -1]), clean.mean(0)
    return (mean - (1 + sin(theta)) * (mean @ direction) * direction).to(own)


def stale(
    vectors: Tensor, *, own: Tensor, notes: dict[str, Tensor], round: int, strength: float = 0.0, **_: object
) -> Tensor:
    """Ride free: send the own vector of k rounds ago, or with k = 0 that of the attack's first round, again and again.

    As long as none is that old, the oldest there is.
    """
    if strength or not notes:
        notes[str(round)] = own
    old_enough = sorted((key for key in notes if strength and int(key) <= round - strength), key=int)
    for key in old_enough[:-1]:
        del notes[key]
    return notes[min(notes, key=int)].clone()


def noise_rider(vectors: Tensor, *, own: Tensor, generator: Generator, **_: object) -> Tensor:
    """Ride free: send noise that is as long as what the honest send."""
    return _unit(_normal(generator, own)) * float(vectors.norm(dim=1).mean())


def sybil(
    vectors: Tensor, *, own: Tensor, common: Generator, generator: Generator, strength: float = 1.0, **_: object
) -> Tensor:
    """Pull as one: all attackers send the same wrong direction, s times as long as the own vector, nearly identical.

    One adversary under several identities, as Werthenbach and Pouwelse assume for SybilWall (2023).
    """
    return (_unit(_normal(common, own)) + JITTER * _unit(_normal(generator, own))) * (float(own.norm()) * strength)


def equivocation(
    vectors: Tensor, *, own: Tensor, common: Generator, position: int, strength: float = 1.0, **_: object
) -> Tensor:
    """Tell every neighbour something else: pull every second one along a direction, and the others against it.

    x ± s |x| d, with the direction d that all attackers share.
    """
    away = _unit(_normal(common, own)) * (float(own.norm()) * strength)
    return own - away if position % 2 else own + away


def shapley_adaptive(
    vectors: Tensor,
    *,
    own: Tensor,
    model: Tensor,
    learning_rate: float,
    utility: Callable[[Tensor], float],
    gradient: Callable[[Tensor], Tensor],
    common: Generator,
    **_: object,
) -> Tensor:
    """Buy weight and spend it: descend on the validation distribution, and pull the model away as far as that pays for.

    g = a h + b d, of our own making: h is the gradient at the victim's model on the attacker's sample of the validation
    distribution, d a direction that all attackers share in all rounds, of the length of h. a is the best step along h.
    Then b > 0 maximises b φ(b), for a victim that weighs by Shapley values moves along d by about that much; φ is g's
    value, where it is positive, in the game of two players that the attacker can play by itself: g, and the honest
    gradients it knows, as one. Where nothing pays, the truth. A lie about cross-gradients only.
    """

    def worth(lie: Tensor) -> float:
        return utility(model - learning_rate * lie)

    h = gradient(model)
    away = _unit(_normal(common, own)) * h.norm()
    h = h * max((2.0**k for k in range(-2, 7)), key=lambda a: worth(h * a))
    others, m = vectors.mean(0), len(vectors)
    nobody, rest = utility(model), worth(others)

    def phi(lie: Tensor) -> float:
        return (worth(lie) - nobody + worth((lie + m * others) / (m + 1)) - rest) / 2

    lies = {b: h + b * away for b in (2.0**k for k in range(-4, 9))}
    pulls = {b: b * phi(lie) for b, lie in lies.items()}
    best = max(pulls, key=lambda b: pulls[b])
    return lies[best] if pulls[best] > 0 else own


ATTACKS: dict[str, Attack] = {
    "sign-flip": sign_flip,
    "sign-flip-mean": sign_flip_mean,
    "bit-flip": bit_flip,
    "ipm": ipm,
    "ipm-optimised": ipm_optimised,
    "alie": alie,
    "alie-network": alie_network,
    "alie-optimised": alie_optimised,
    "gaussian": gaussian,
    "zero": zero,
    "same-value": same_value,
    "infinite": infinite,
    "duplicate": duplicate,
    "mimic": mimic,
    "dissensus": dissensus,
    "isolation": isolation,
    "zero-sum": zero_sum,
    "dmpa": dmpa,
    "stale": stale,
    "noise-rider": noise_rider,
    "sybil": sybil,
    "equivocation": equivocation,
    "shapley-adaptive": shapley_adaptive,
}

BLIND = {"sign-flip", "bit-flip", "gaussian", "zero", "same-value", "infinite", "stale", "sybil", "equivocation"}
"""Attacks that look at nobody's vectors but the attacker's own. The others tell the truth until they know some."""

GRADIENTS_ONLY = {"shapley-adaptive"}
"""Attacks that are about cross-gradients."""


def published_z(voters: int, supporters: int) -> float:
    """Return z = Φ⁻¹((voters − s)/voters), s = `supporters` being those who have to be won over for a majority.

    With no s ≥ 1 to win, 1 is taken; z is never negative.
    """
    return max(0.0, NormalDist().inv_cdf(max(voters - max(supporters, 1), 0.5) / voters))


def _farthest(lie: Callable[[float], Tensor], centre: Tensor, defence: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the lie(τ) that moves the aggregate farthest: τ grows, doubling its steps, while that helps, then less."""

    def damage(tau: float) -> float:
        return float((defence(lie(tau)) - centre).norm())

    best, step, growing = 0.0, 10.0, True
    most = damage(best)
    for _ in range(EVALUATIONS - 1):
        tried = damage(best + step)
        growing = growing and tried > most
        if tried > most:
            best, most = best + step, tried
        step *= 2.0 if growing else 0.8
    return lie(best)


def _deviation(vectors: Tensor) -> Tensor:
    """Return σ, unbiased; zero of a single vector."""
    return vectors.std(0, correction=1 if len(vectors) > 1 else 0)


def _normal(generator: Generator, like: Tensor) -> Tensor:
    return torch.from_numpy(generator.standard_normal(len(like))).to(like)


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = torch.nn.functional.normalize(vector, dim=0)
    return unit
