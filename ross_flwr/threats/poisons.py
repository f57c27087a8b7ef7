"""Poisons: how an attacker changes the gradients it steps along and the cross-gradients it returns."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ross_flwr.config import option
from ross_flwr.learning.agent import Agent, GradientTransform
from ross_flwr.learning.requests import Gradient, Of

__all__ = ["POISONS", "GradientConstant", "GradientNoise", "GradientScaling", "Poison", "Poisoning"]


@dataclass(frozen=True)
class Poison(ABC):
    """A link of the gradient chain that does harm.

    A subclass is a frozen dataclass. The key `attack-strength` sets its first field, if it has one, which is declared
    with `option`.
    """

    @abstractmethod
    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return what the poison makes of `gradient`, a new tensor of shape [P]."""


@dataclass(frozen=True)
class GradientScaling(Poison):
    """Multiply every gradient an attacker computes by s (−3): below 0 it climbs the loss, at 0 it teaches nothing."""

    scale: float = option(-3.0, "s")

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return s g."""
        return gradient * self.scale


@dataclass(frozen=True)
class GradientNoise(Poison):
    """Add noise from N(0, σ² I) with σ = 3 to every gradient an attacker computes."""

    sigma: float = option(3.0, "σ", minimum=0.0)

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return g plus noise, which is drawn anew for every gradient."""
        generator = agent.stream("poison", agent.counts["gradients"])
        return gradient - self.sigma * torch.from_numpy(generator.standard_normal(len(gradient))).to(gradient)


@dataclass(frozen=True)
class GradientConstant(Poison):
    """Put c (−3) in every coordinate of every gradient an attacker computes."""

    value: float = option(-3.0, "c")

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return c in every coordinate."""
        return torch.full_like(gradient, self.value)


POISONS: dict[str, type[Poison]] = {
    "gradient-scaling": GradientScaling,
    "gradient-noise": GradientNoise,
    "gradient-constant": GradientConstant,
}
"""Poisons by name."""


@dataclass(frozen=True)
class Poisoning:
    """A link of the gradient chain that applies another link to some gradients only.

    Parameters
    ----------
    poison : GradientTransform
        The other link.
    about : sequence of {"own", "cross"} (default: both)
        The gradients that are poisoned: the agent's own, those at its neighbours' models, or both.
    since : int (default: 0)
        The pass (counted from 0) in which it begins.
    """

    poison: GradientTransform
    about: Sequence[Of] = ("own", "cross")
    since: int = 0

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return the poisoned gradient, shape [P], or the honest one before the attack begins and off its target."""
        if agent.pass_number < self.since or request.of not in self.about:
            return gradient
        return self.poison(gradient, agent, request)
