"""Agents whose own gradients are poisoned: those they step along, and the cross-gradients they return."""

from collections.abc import Callable
from typing import Any

import torch
from numpy.random import Generator
from torch import Tensor

from ross_flwr.learning.agent import Agent

__all__ = ["POISONS", "Poison", "PoisonedAgent"]

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


class PoisonedAgent(Agent):
    """An agent whose gradients are poisoned, and through them the models it shares.

    Parameters
    ----------
    *parts
        Those of `Agent`.
    poison : str
        A name in `POISONS`.
    scale : float
        The number it takes.
    since : int
        The pass (counted from 0) in which it begins.
    target : str (default: "all")
        Poisoned are cross-gradients, taken at a neighbour's model (``"gradients"``), the agent's own (``"model"``), or
        both.
    """

    def __init__(self, *parts: Any, poison: str, scale: float, since: int, target: str = "all") -> None:
        super().__init__(*parts)
        self.poison = POISONS[poison]
        self.scale = scale
        self.since = since
        self.target = target

    def gradient(self, vector: Tensor, batch_number: int | None = None) -> Tensor:
        """Return what the poison makes of the gradient, shape [P]; the honest one before its time or off its target."""
        gradient = super().gradient(vector, batch_number)
        kind = "model" if vector is self.state.get("model") else "gradients"
        if self.round < self.since or self.target not in ("all", kind):
            return gradient
        generator = self.stream("poison", self.counts["gradients"])
        return self.poison(gradient, scale=self.scale, generator=generator)
