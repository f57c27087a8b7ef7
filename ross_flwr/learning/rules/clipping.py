"""Gossip with clipped differences."""

from collections.abc import Mapping

from torch import Tensor

from ross_flwr.config import option
from ross_flwr.learning.rules.rule import Bounded, View, Weighing, register_rule
from ross_flwr.learning.rules.stacks import distance

__all__ = ["ClippedGossip"]


@register_rule("clipped-gossip")
class ClippedGossip(Bounded, Weighing):
    """x_i + Σ_j w_ij clip(x_j − x_i, τ), clip(z, τ) = z min(1, τ/|z|): no neighbour pulls farther than τ.

    ClippedGossip, or self-centered clipping, of He, Karimireddy and Jaggi, 2022 (arXiv:2202.01545); with a fixed τ it
    is centered clipping (Karimireddy, He and Jaggi, "Learning from history for Byzantine robust optimization", ICML
    2021) around the own vector and with the weights of W. The adaptive τ is the (f+1)-th largest of the distances |x_j
    − x_i| heard, which for f = 1 is the second largest of the authors' code, and 0 when no more than f neighbours were
    heard. τ = ∞, or f = 0, is the weighted mean. Not here: the τ of the theory, which requires knowing who lies.

    Examples
    --------
    >>> import torch
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> ClippedGossip(clip_radius=4.0)(torch.tensor([1.0]), others, View(weights={2: 0.25, 3: 0.25}))
    tensor([2.2500])
    """

    clip_radius: float = option(
        0.0, "τ: no neighbour pulls an agent farther than this; 0 for the (f+1)-th largest distance", minimum=0.0
    )

    least = (1, 2)

    def obstacle(self, m: int) -> str:
        """Ask for f + 2 vectors if the radius adapts."""
        return "" if self.clip_radius else super().obstacle(m)

    def weights(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return w_ij min(1, τ/|x_j − x_i|)."""
        distances = {j: distance(vector, own) for j, vector in others.items()}
        ordered = [*sorted(distances.values(), reverse=True), *[0.0] * (self.byzantine + 1)]
        radius = self.clip_radius or ordered[self.byzantine]
        return {j: view.weights[j] * (1.0 if d <= radius else radius / d) for j, d in distances.items()}
