"""Attacks that use only the attacker's own vectors. Their examples lie about the `view` of `View`'s example."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ross_flwr.config import option
from ross_flwr.threats.attacks.attack import Attack, View, normal, unit

__all__ = ["BitFlip", "Equivocation", "Gaussian", "Infinite", "SameValue", "SignFlip", "Stale", "Sybil", "Zero"]

JITTER = 1e-3
"""How much the vectors of Sybils differ, relative to their length."""


@dataclass(frozen=True)
class SignFlip(Attack):
    """Send −s times the own vector (s = 3).

    Examples
    --------
    >>> SignFlip().lie(view)
    tensor([-3., -6.])
    """

    scale: float = option(3.0, "s", minimum=0.0)
    blind = True

    def lie(self, view: View) -> Tensor:
        """Return −s x."""
        return view.own * -self.scale


@dataclass(frozen=True)
class BitFlip(Attack):
    """Send the own vector with every sign reversed, −x.

    Examples
    --------
    >>> BitFlip().lie(view)
    tensor([-1., -2.])
    """

    blind = True

    def lie(self, view: View) -> Tensor:
        """Return −x."""
        return -view.own


@dataclass(frozen=True)
class Gaussian(Attack):
    """Send noise from N(0, σ² I) with σ = 30.

    Examples
    --------
    >>> Gaussian(sigma=0.0).lie(view)
    tensor([0., 0.])
    """

    sigma: float = option(30.0, "σ", minimum=0.0)
    blind = True

    def lie(self, view: View) -> Tensor:
        """Return noise."""
        return normal(view.generator, view.own) * self.sigma


@dataclass(frozen=True)
class Zero(Attack):
    """Send zeros.

    Examples
    --------
    >>> Zero().lie(view)
    tensor([0., 0.])
    """

    blind = True

    def lie(self, view: View) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(view.own)


@dataclass(frozen=True)
class SameValue(Attack):
    """Send the same number c (1) in every coordinate.

    Examples
    --------
    >>> SameValue().lie(view)
    tensor([1., 1.])
    """

    value: float = option(1.0, "c")
    blind = True

    def lie(self, view: View) -> Tensor:
        """Return c in every coordinate."""
        return torch.full_like(view.own, self.value)


@dataclass(frozen=True)
class Infinite(Attack):
    """Send infinity in every coordinate; receivers drop the message.

    Examples
    --------
    >>> Infinite().lie(view)
    tensor([inf, inf])
    """

    blind = True

    def lie(self, view: View) -> Tensor:
        """Return infinity in every coordinate."""
        return torch.full_like(view.own, torch.inf)


@dataclass(frozen=True)
class Stale(Attack):
    """Ride free: send the own vector of k passes ago, or with k = 0 always that of the attack's first pass.

    Until one is that old, send the oldest.

    Examples
    --------
    >>> Stale().lie(view)
    tensor([1., 2.])
    """

    age: int = option(0, "k", unit="passes", minimum=0)
    blind = True

    def lie(self, view: View) -> Tensor:
        """Return an old vector, and keep the current one for later."""
        notes = view.notes
        if self.age or not notes:
            notes[str(view.pass_number)] = view.own
        old_enough = sorted(int(key) for key in notes if self.age and int(key) <= view.pass_number - self.age)
        for number in old_enough[:-1]:
            del notes[str(number)]
        return notes[min(notes, key=int)].clone()


@dataclass(frozen=True)
class Sybil(Attack):
    """Pull together: all attackers send nearly the same wrong direction, s times as long as their own vector.

    This is one adversary with several identities, as Werthenbach and Pouwelse assume for SybilWall (2023).

    Examples
    --------
    >>> round(float(Sybil(length=2.0).lie(view).norm() / view.own.norm()), 2)
    2.0
    """

    length: float = option(1.0, "s, in lengths of the own vector", minimum=0.0)
    blind = True

    def lie(self, view: View) -> Tensor:
        """Return s |x| d, with a little noise."""
        direction = unit(normal(view.common, view.own)) + JITTER * unit(normal(view.generator, view.own))
        return direction * (float(view.own.norm()) * self.length)


@dataclass(frozen=True)
class Equivocation(Attack):
    """Tell neighbours different things: pull every second one along a direction, and the others against it.

    The lie is x ± s |x| d; all attackers share the direction d.

    Examples
    --------
    >>> round(float((Equivocation(length=2.0).lie(view) - view.own).norm() / view.own.norm()), 2)
    2.0
    """

    length: float = option(1.0, "s, in lengths of the own vector", minimum=0.0)
    blind = True

    def lie(self, view: View) -> Tensor:
        """Return x + s |x| d, or x − s |x| d."""
        away = unit(normal(view.common, view.own)) * (float(view.own.norm()) * self.length)
        return view.own - away if view.position % 2 else view.own + away
