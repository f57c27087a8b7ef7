"""Poisons that need no more than the gradient, or its mini-batch."""

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ross_flwr.config import ConfigError, option
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.requests import Gradient
from ross_flwr.threats.poisons.poison import Poison

__all__ = ["FlippedLabels", "GradientConstant", "GradientNoise", "GradientScaling", "GradientZero"]


@dataclass(frozen=True)
class GradientScaling(Poison):
    """Multiply every gradient an attacker computes by s (−3): below 0 it climbs the loss."""

    scale: float = option(-3.0, "s")

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return s g."""
        return gradient * self.scale


@dataclass(frozen=True)
class GradientZero(Poison):
    """Put zeros in the place of every gradient an attacker computes: it teaches nothing."""

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(gradient)


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


@dataclass(frozen=True)
class FlippedLabels(Poison):
    """Compute every gradient on the same mini-batch with the labels C − 1 − y, y = 0 … C − 1 being the true ones."""

    def check(self, agent: Agent) -> None:
        """Refuse data whose examples have no class, or several."""
        targets = agent.objective.batch(torch.tensor([0])).targets
        if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.is_floating_point():
            raise ConfigError(
                "attack = 'flipped-labels' takes a task with one class for each example: use another attack"
            )

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return the gradient on the flipped labels."""
        inputs, targets = request.batch.inputs, request.batch.targets
        num_classes = request.objective.outputs(request.vector, request.batch).shape[-1]
        flipped = replace(request, batch=Batch(inputs, num_classes - 1 - targets))
        with agent.counts.timed("gradients", len(targets)):
            return cast(Tensor, agent.compute(flipped)[0])
