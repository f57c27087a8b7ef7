"""Attacks made of the honest vectors x_1 … x_m, with mean μ and deviation σ in every coordinate.

Their examples lie about the `view` of `View`'s example.
"""

from dataclasses import dataclass
from math import acos, sin
from statistics import NormalDist

import torch
from torch import Tensor

from ross_flwr.config import option
from ross_flwr.threats.attacks.attack import Attack, View, normal, unit

__all__ = [
    "ALIE",
    "DMPA",
    "IPM",
    "ALIENetwork",
    "Duplicate",
    "Echo",
    "Mimic",
    "NoiseRider",
    "SignFlipMean",
    "published_z",
]


@dataclass(frozen=True)
class SignFlipMean(Attack):
    """Send −s μ (s = 1), the opposite of the honest mean.

    Allen-Zhu, Ebrahimianghazani, Li and Alistarh, "Byzantine-resilient non-convex stochastic gradient descent", ICLR
    2021.

    Examples
    --------
    >>> SignFlipMean().lie(view)
    tensor([-2., -2.])
    """

    scale: float = option(1.0, "s", minimum=0.0)

    def lie(self, view: View) -> Tensor:
        """Return −s μ."""
        return view.mean * -self.scale


@dataclass(frozen=True)
class IPM(Attack):
    """Send −ε μ with a small ε (0.1): near enough to be kept, but on the wrong side (IPM, fall of empires).

    Xie, Koyejo and Gupta, "Fall of empires: breaking Byzantine-tolerant SGD by inner product manipulation", UAI 2019.

    Examples
    --------
    >>> IPM().lie(view)
    tensor([-0.2000, -0.2000])
    """

    epsilon: float = option(0.1, "ε", minimum=0.0)

    def lie(self, view: View) -> Tensor:
        """Return −ε μ."""
        return view.mean * -self.epsilon


@dataclass(frozen=True)
class ALIE(Attack):
    """Send μ + z σ, inside the spread of the honest vectors; z follows from the victim's neighbourhood (ALIE).

    Baruch, Baruch and Goldberg, NeurIPS 2019. On a graph, Wu, Chen and Ling's form for IOS (2023): of n_i neighbours
    m_i lie, s = ⌊(n_i + 1)/2⌋ − m_i and z = Φ⁻¹((n_i − s)/n_i).

    Examples
    --------
    >>> ALIE(z=1.0).lie(view)
    tensor([3.4142, 4.8284])
    """

    z: float = option(0.0, "z; 0 for the published one", minimum=0.0)

    def lie(self, view: View) -> Tensor:
        """Return μ + z σ."""
        z = self.z or published_z(view.neighbors, (view.neighbors + 1) // 2 - view.liars)
        return view.mean + z * view.deviation


@dataclass(frozen=True)
class ALIENetwork(Attack):
    """Send μ − z σ, inside the spread of the honest vectors; z follows from the whole network (ALIE).

    He, Karimireddy and Jaggi's form for ClippedGossip (2022): of n agents m lie, s = ⌊n/2 + 1⌋ − m and
    z = Φ⁻¹((n − m − s)/(n − m)).

    Examples
    --------
    >>> ALIENetwork(z=1.0).lie(view)
    tensor([ 0.5858, -0.8284])
    """

    z: float = option(0.0, "z; 0 for the published one", minimum=0.0)

    def lie(self, view: View) -> Tensor:
        """Return μ − z σ."""
        lying = len(view.attackers)
        z = self.z or published_z(view.num_agents - lying, view.num_agents // 2 + 1 - lying)
        return view.mean - z * view.deviation


def published_z(voters: int, supporters: int) -> float:
    """Return z = Φ⁻¹((voters − s)/voters), where s = `supporters` must be won over for a majority.

    If s is below 1, it counts as 1; z is never negative.
    """
    return max(0.0, NormalDist().inv_cdf(max(voters - max(supporters, 1), 0.5) / voters))


@dataclass(frozen=True)
class Duplicate(Attack):
    """Send a copy of the first honest agent's vector, so that it counts more than once.

    Examples
    --------
    >>> Duplicate().lie(view)
    tensor([1., 0.])
    """

    def lie(self, view: View) -> Tensor:
        """Return x_1."""
        return view.vectors[0].clone()


@dataclass(frozen=True)
class Echo(Attack):
    """Send the victim its own vector back, so that it stays alone with its data and learns them by heart.

    Pasquini, Raynal and Troncoso, "On the (in)security of peer-to-peer decentralized machine learning", IEEE S&P 2023,
    who then ask the victim's model which examples it knows; `ross-flwr audit` does.

    Examples
    --------
    >>> Echo().lie(view)
    tensor([1., 0.])
    """

    def lie(self, view: View) -> Tensor:
        """Return x_i, as it was heard last."""
        return view.victim.clone()


@dataclass(frozen=True)
class Mimic(Attack):
    """Send a copy of the honest vector that stands out most along the direction in which honest vectors differ most.

    Karimireddy, He and Jaggi, "Byzantine-robust learning on heterogeneous datasets via bucketing", ICLR 2022. For the
    first k passes (100) copy the first and look for the direction z, with μ̂ the mean of all vectors so far:
    z ← norm((t+1)/(t+2) z + 1/(t+2) norm Σ_k (x_k − μ̂) ⟨x_k − μ̂, z⟩). Then copy argmax_k |⟨x_k, z⟩|. (With
    |⟨x_k − μ̂, z⟩| in the sum, as in MoNNA's released code, vectors on the two sides of μ̂ cancel, and z is not found.)

    Examples
    --------
    >>> Mimic().lie(view)
    tensor([1., 0.])
    """

    warm_up: int = option(100, "k", unit="passes", minimum=1)

    def lie(self, view: View) -> Tensor:
        """Return a copy of an honest vector."""
        vectors, notes = view.vectors, view.notes
        t = int(notes.get("count", torch.zeros(1)))
        z = notes["direction"] if t else unit(normal(view.generator, vectors[0]))
        if t < self.warm_up:
            mean = torch.lerp(notes["mean"], view.mean, 1 / (t + 1)) if t else view.mean
            around = vectors - mean
            turn = unit(around @ z @ around)
            notes["mean"], notes["direction"] = mean, unit(z * (t + 1) / (t + 2) + turn / (t + 2))
            notes["count"] = torch.full((1,), t + 1.0)
            return vectors[0].clone()
        return vectors[int((vectors @ z).abs().argmax())].clone()


@dataclass(frozen=True)
class DMPA(Attack):
    """Turn the mean of the known clean vectors off their main direction, by the angle of their correlation.

    DMPA (arXiv:2502.04771). Its formulas were not available; we reconstructed it from its summary. Let the m clean
    vectors a_k be the rows of A, (λ, v) the largest eigenpair of their correlation matrix, θ = arccos(λ/m) and
    d = Aᵀv/|Aᵀv|. The lie is the mean of a_k − (1 + sin θ) ⟨a_k, d⟩ d.

    Examples
    --------
    >>> DMPA().lie(view)
    tensor([ 0.5333, -0.2667])
    """

    def lie(self, view: View) -> Tensor:
        """Return the turned mean."""
        clean = torch.cat([view.own[None], view.vectors]).double()
        around = torch.nn.functional.normalize(clean - clean.mean(1, keepdim=True))
        values, eigenvectors = torch.linalg.eigh(around @ around.T)
        theta = acos(min(max(float(values[-1]) / len(clean), -1.0), 1.0))
        direction, mean = unit(clean.T @ eigenvectors[:, -1]), clean.mean(0)
        return (mean - (1 + sin(theta)) * (mean @ direction) * direction).to(view.own)


@dataclass(frozen=True)
class NoiseRider(Attack):
    """Ride free: send noise of the same length as honest vectors.

    Examples
    --------
    >>> round(float(NoiseRider().lie(view).norm()), 2)
    3.0
    """

    def lie(self, view: View) -> Tensor:
        """Return noise of the mean length of the honest vectors."""
        return unit(normal(view.generator, view.own)) * float(view.vectors.norm(dim=1).mean())
