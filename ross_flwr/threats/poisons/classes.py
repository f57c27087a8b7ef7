"""Poisons made of the gradients of single classes, which no honest mini-batch rules out.

The attacker takes them on its own validation set, a sample of the distribution that its victims judge by.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.config import option
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.classes import by_class, class_gradients
from ross_flwr.learning.least_squares import Array
from ross_flwr.learning.requests import Gradient
from ross_flwr.learning.screen import screen
from ross_flwr.learning.streams import stream
from ross_flwr.threats.poisons.poison import Poison

__all__ = ["LongestClass", "OneClass", "ScreenAdaptive"]

SHARE = 0.35
"""The share s of the screen that attackers expect of their victims."""

LARGEST = 10.0
"""The largest factor that is tried."""

STRETCHED = 5
"""How many candidates of `ScreenAdaptive` are made longer."""

HALVINGS = 6
"""How often an interval is halved to find a limit."""


@dataclass(frozen=True)
class OneClass(Poison):
    """Return s times (1) the gradient on one class, which the seed draws for all attackers; s = 4 amplifies it."""

    scale: float = option(1.0, "s")

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return s times the gradient on the attacker's validation examples of the class."""
        parts = by_class(request.objective.validation)
        part = parts[int(stream(agent.seed, "one class").integers(2**32)) % len(parts)]
        return self.scale * agent.validation_gradient(request.vector, part)


@dataclass(frozen=True)
class LongestClass(Poison):
    """Return the longest class gradient times s; by default (0) s is the limit of the screen of ross-plus."""

    scale: float = option(0.0, "s, 0 for the limit", minimum=0.0)

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return s times the longest of the class gradients at the model asked about."""
        classes = class_gradients(agent, request.vector)
        longest = int(classes.norm(dim=1).argmax())
        scale = self.scale
        if not scale:
            passes, _ = screened(gradient, classes, SHARE)
            only = np.eye(len(classes))[[longest]]
            scale = 1 + largest(lambda more: passes((1 + more) * only), LARGEST - 1, 1).item()
        return scale * classes[longest]


@dataclass(frozen=True)
class ScreenAdaptive(Poison):
    """Return the gradient most opposed to descent of those that a screen of share s (0.35) lets pass.

    This attack is ours, and made for `ross-plus`. The attacker knows the screen but not its victim's data, so it
    applies the screen to its own class gradients h_c at the victim's model, with its honest gradient as the own one.
    Candidates are h_c − γ q and −γ q, where q is the mean gradient, with γ at the limit and at half of it, and the
    worst of these made as long as passes. It returns the one with the smallest inner product with q.
    """

    share: float = option(SHARE, "s", minimum=0.0, maximum=1.0)

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return the worst candidate."""
        classes = class_gradients(agent, request.vector)
        passes, corners = screened(gradient, classes, self.share)
        sizes = np.array([len(part) for part in by_class(agent.validation)])
        descent = sizes / sizes.sum()
        length = np.linalg.norm(descent @ corners)
        if not length:
            return gradient

        def opposed(shares: Array) -> Array:
            return cast(Array, shares @ corners @ (descent @ corners))

        starts = np.vstack([np.eye(len(sizes)), np.zeros(len(sizes))])
        away = -descent * np.linalg.norm(corners, axis=1).max() / length
        limits = largest(lambda ways: passes(starts + ways * away), 1.0, len(starts))
        candidates = np.vstack([starts + part * limits * away for part in (0.5, 1.0)])
        candidates = candidates[opposed(candidates).argsort()[:STRETCHED]]
        candidates *= 1 + largest(lambda more: passes((1 + more) * candidates), LARGEST - 1, len(candidates))
        return torch.from_numpy(candidates[opposed(candidates).argmin()]).to(classes) @ classes


def screened(own: Tensor, classes: Tensor, share: float) -> tuple[Callable[[Array], NDArray[np.bool_]], Array]:
    """Return which combinations of class gradients an agent's screen lets pass as they are, and class coordinates.

    All of them lie in the space of the classes' and the own gradient, where C + 1 coordinates stand for P numbers.

    Parameters
    ----------
    own : Tensor
        The agent's own gradient, shape [P].
    classes : Tensor
        Its class gradients, shape [C, P].
    share : float
        s of the screen.
    """
    basis = torch.cat([own[None], classes]).double()
    values, vectors = torch.linalg.eigh((basis @ basis.T).nan_to_num())
    points = vectors * values.clamp(min=0).sqrt()
    corners = points[1:].cpu().numpy()

    def passes(shares: Array) -> NDArray[np.bool_]:
        gradients = torch.cat([points[:1], torch.from_numpy(shares).to(points) @ points[1:]])
        factors, kept = screen(gradients, points[1:], share)
        whole: NDArray[np.bool_] = kept & (factors == 1)
        return whole[1:]

    return passes, corners


def largest(allowed: Callable[[Array], NDArray[np.bool_]], most: float, count: int) -> Array:
    """Return the largest number from 0 to `most` that is allowed, for each of `count`, by bisection, as a column."""
    low, high = np.zeros((count, 1)), np.full((count, 1), most)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fine = allowed(middle)[:, None]
        low, high = np.where(fine, middle, low), np.where(fine, high, middle)
    return low
