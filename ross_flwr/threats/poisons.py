"""Poisons: what an attacker makes of the gradients it steps along, and of the cross-gradients it returns."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from numpy.random import Generator
from torch import Tensor

from ross_flwr.learning.agent import Agent, Of

__all__ = ["POISONS", "Poison", "Poisoning"]

Poison = Callable[..., Tensor]
"""From a gradient, shape [P], to another in its place; scale and a generator by keyword."""


def scaling(gradient: Tensor, *, scale: float, **_: object) -> Tensor:
    """Multiply every gradient an attacker computes by attack-scale: below 0 it climbs the loss, 0 teaches nothing."""
    return gradient * scale


def noise(gradient: Tensor, *, scale: float, generator: Generator, **_: object) -> Tensor:
    """Add noise from N(0, attack-scale² I) to every gradient an attacker computes."""
    return gradient + scale * torch.from_numpy(generator.standard_normal(len(gradient))).to(gradient)


def constant(gradient: Tensor, *, scale: float, **_: object) -> Tensor:
    """Put attack-scale in every coordinate of every gradient an attacker computes."""
    return torch.full_like(gradient, scale)


POISONS: dict[str, Poison] = {
    "gradient-scaling": scaling,
    "gradient-noise": noise,
    "gradient-constant": constant,
}


@dataclass(frozen=True, kw_only=True)
class Poisoning:
    """A link of the gradient chain that poisons what an attacker computes, and through it the models it shares.

    Parameters
    ----------
    poison : str
        A name in `POISONS`.
    scale : float
        The number it takes.
    since : int (default: 0)
        The pass (counted from 0) in which it begins.
    target : str (default: "all")
        Poisoned are cross-gradients (``"gradients"``), the agent's own gradients (``"model"``), or both.
    """

    poison: str
    scale: float
    since: int = 0
    target: str = "all"

    def __call__(self, gradient: Tensor, agent: Agent, of: Of) -> Tensor:
        """Return what the poison makes of the gradient, shape [P]; the honest one before its time or off its target."""
        spared = {"all": "", "model": "cross", "gradients": "own"}[self.target]
        if agent.pass_number < self.since or of == spared:
            return gradient
        generator = agent.stream("poison", agent.counts["gradients"])
        return POISONS[self.poison](gradient, scale=self.scale, generator=generator)
