"""Attacks that are fitted to their victim: to its place in the graph, its rule, or the game it plays.

Their examples lie about the `view` of `View`'s example.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ross_flwr.config import option
from ross_flwr.threats.attacks.attack import Attack, View, normal, unit

__all__ = ["ALIEOptimised", "Dissensus", "IPMOptimised", "Isolation", "ShapleyAdaptive", "ZeroSum"]

EVALUATIONS = 20
"""The number of points that a line search evaluates."""


@dataclass(frozen=True)
class Dissensus(Attack):
    """Send x_i − ε Σ_j w_ij (x_j − x_i) / Σ_b w_ib: with ε = 1 plain gossip gives the victim back its own x_i.

    He, Karimireddy and Jaggi, "Byzantine-robust decentralized learning via ClippedGossip", 2022. The sums are over the
    victim's honest neighbours j and its lying ones b.

    Examples
    --------
    >>> Dissensus().lie(view)
    tensor([-1., -4.])
    """

    epsilon: float = option(1.0, "ε", minimum=0.0)

    def lie(self, view: View) -> Tensor:
        """Return x_i − ε Σ_j w_ij (x_j − x_i) / Σ_b w_ib."""
        pull = view.weights.to(view.vectors) @ (view.vectors - view.victim)
        return view.victim - pull * (self.epsilon / float(view.liar_weights.sum()))


@dataclass(frozen=True)
class Isolation(Attack):
    """Send (r x_i − Σ_j x_j) / m_i for r honest neighbours j: together with the lies they sum to r x_i, nothing new.

    Wu, Chen and Ling, "Byzantine-resilient decentralized stochastic optimization with robust aggregation rules", 2023.
    Weighted by W it is `Dissensus` with ε = 1.

    Examples
    --------
    >>> Isolation().lie(view)
    tensor([-2., -4.])
    """

    def lie(self, view: View) -> Tensor:
        """Return (r x_i − Σ_j x_j) / m_i."""
        return (len(view.vectors) * view.victim - view.vectors.sum(0)) / view.liars


@dataclass(frozen=True)
class ZeroSum(Attack):
    """Send −Σ_j x_j / m_i over the victim's honest neighbours j: together with the lies they sum to zero.

    Wu, Chen and Ling, 2023.

    Examples
    --------
    >>> ZeroSum().lie(view)
    tensor([-3., -4.])
    """

    def lie(self, view: View) -> Tensor:
        """Return −Σ_j x_j / m_i."""
        return (view.victim - view.vectors.sum(0)) / view.liars


@dataclass(frozen=True)
class IPMOptimised(Attack):
    """Send −τ μ with the τ that moves the victim's aggregate farthest from μ, by line search.

    As in ByzFL (Guerraoui et al., 2025): argmax_τ |agg(x_1 … x_m, lies) − μ|.

    Examples
    --------
    >>> bool((IPMOptimised().lie(view) < -1e6).all())  # the victim takes the mean, which nothing bounds
    True
    """

    def lie(self, view: View) -> Tensor:
        """Return −τ μ."""
        return _farthest(lambda tau: view.mean * -tau, view)


@dataclass(frozen=True)
class ALIEOptimised(Attack):
    """Send μ + τ σ with the τ that moves the victim's aggregate farthest from μ, by line search.

    As in ByzFL (Guerraoui et al., 2025): argmax_τ |agg(x_1 … x_m, lies) − μ|.

    Examples
    --------
    >>> bool((ALIEOptimised().lie(view) > 1e6).all())  # the victim takes the mean, which nothing bounds
    True
    """

    def lie(self, view: View) -> Tensor:
        """Return μ + τ σ."""
        return _farthest(lambda tau: view.mean + tau * view.deviation, view)


def _farthest(lie: Callable[[float], Tensor], view: View) -> Tensor:
    """Return the lie(τ) that moves the aggregate farthest. Steps of τ double while that helps, and then shrink."""

    def damage(tau: float) -> float:
        return float((view.defence(lie(tau)) - view.mean).norm())

    best, step, growing = 0.0, 10.0, True
    most = damage(best)
    for _ in range(EVALUATIONS - 1):
        tried = damage(best + step)
        growing = growing and tried > most
        if tried > most:
            best, most = best + step, tried
        step *= 2.0 if growing else 0.8
    return lie(best)


@dataclass(frozen=True)
class ShapleyAdaptive(Attack):
    """Buy weight and spend it: help on the validation distribution, and pull the model away as far as that pays for.

    This attack is ours. It sends g = a h + b d. h is the gradient at the victim's model on the attacker's sample of the
    validation distribution; d is a direction, as long as h, that all attackers share in all passes. a is the best step
    along h. b > 0 maximises b φ(b), which is about how far a victim that weighs by Shapley values moves along d. φ is
    g's value, where positive, in a game that the attacker can play by itself. It has two players: g, and the honest
    gradients that the attacker knows, together. Where nothing pays, and before it has heard the victim's model, the
    attacker tells the truth. It lies only in cross-gradients.

    Examples
    --------
    >>> ShapleyAdaptive().lie(view)  # the truth: the victim's model is not known yet
    tensor([1., 2.])
    """

    gradients_only = True

    def lie(self, view: View) -> Tensor:
        """Return a h + b d."""
        model = view.model
        if model is None:
            return view.own

        def worth(lie: Tensor) -> float:
            return view.utility(model - view.learning_rate * lie)

        h = view.gradient(model)
        away = unit(normal(view.common, view.own)) * h.norm()
        h = h * max((2.0**k for k in range(-2, 7)), key=lambda a: worth(h * a))
        others, m = view.mean, len(view.vectors)
        nobody, rest = view.utility(model), worth(others)

        def phi(lie: Tensor) -> float:
            return (worth(lie) - nobody + worth((lie + m * others) / (m + 1)) - rest) / 2

        lies = {b: h + b * away for b in (2.0**k for k in range(-4, 9))}
        pulls = {b: b * phi(lie) for b, lie in lies.items()}
        best = max(pulls, key=lambda b: pulls[b])
        return lies[best] if pulls[best] > 0 else view.own
