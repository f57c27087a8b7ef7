"""Rules that ask the agent's own validation set Q_i what its neighbours' models are worth."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp, inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn

from ross_flwr.config import option
from ross_flwr.learning.rules.rule import View, register_rule
from ross_flwr.learning.rules.screening import SMALLEST_LOSS, JudgingModels
from ross_flwr.learning.rules.stacks import distance
from ross_flwr.learning.shapley import Game, relu, shapley_values

__all__ = ["FLTrust", "ShapleyModels", "Softmin"]

PULL = 2.0
"""How far a neighbour pulls at most, in steps of the agent's own."""

FAR = 10.0
"""From this many steps of the agent's own on, a momentum weighs the less the farther its model is."""


def untrained_share() -> Any:
    """Declare `untrained-share`."""
    return option(
        0.75,
        "ρ: softmin refuses a model that is worse than the own one and has this share of the first model's loss; a "
        "large share refuses none",
        minimum=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class JudgingOnValidation(JudgingModels):
    """A rule that judges models by their loss on Q_i."""

    @property
    def needs_validation(self) -> bool:
        """True: the losses are those on Q_i."""
        return True


@register_rule("softmin")
class Softmin(JudgingOnValidation):
    """Models weigh less the larger their loss on Q_i is, compared with that of the own one.

    ::

        L_j = max(F(x_j; Q_i), 10⁻⁸);   H_i = {j ∈ N_i : L_j < L_i or L_j < ρ F(x_i⁰; Q_i)}
        e_j = w_ij exp(−L_j / L_i);   c_ij = e_j / (e_i + Σ_{k ∈ H_i} e_k),   e_i with the rest of the weights
        x_i + Σ_{j ∈ H_i} c_ij clip(x_j − x_i, 2 s_i),   clip(z, τ) = z min(1, τ/‖z‖)

    Ours. Where all losses are alike it is the mean by W. A model with twice the own loss has 37 % of its weight, one
    with ten times the loss a hundredth of a percent, and the best has at most e times its weight, so a liar gains
    nothing by a loss that is too good. Where the own loss is infinite the least of the others takes its place.

    A loss does not see everything: while all losses are near chance they say nothing, and a softmax hides how far a
    model is. So a model that is worse than the own one and hardly better than the first is refused; where a task is
    hard or Q_i has wrong labels that hits models of worth too, and a larger ρ (`untrained_share`) is better. None
    pulls farther than twice the length s_i of the step that the agent itself took in this pass, nor a momentum than
    twice the own one's length. −u_i is just that far away, so a momentum has the weight c_ij min(1, 10 s_i/‖x_j − x_i‖)
    by the model that it came with. Methods that mix before they step have no such bounds. Takes 1 + k losses, and one
    more in the first pass.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> view = View(weights={2: 0.25, 3: 0.25}, loss=lambda x, data: float(abs(x - 1.5)))
    >>> Softmin()(torch.tensor([1.0]), others, view)
    tensor([1.3333])
    >>> view.step = lambda: 0.25
    >>> Softmin()(torch.tensor([1.0]), others, view)
    tensor([1.1667])
    """

    untrained_share: float = untrained_share()

    def weights(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return c_ij min(1, 2 s_i/‖x_j − x_i‖)."""
        given, step = super().weights(own, others, view), view.step()
        distances = {j: distance(others[j], own) for j in given if j in others}
        cut = {j: _shortened(given[j], PULL * step, d) for j, d in distances.items()}
        if view.models:
            view.given.update({j: _shortened(given[j], FAR * step, d) for j, d in distances.items()})
        return cut

    def judged(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return c_ij."""
        bound = max(view.loss(own, "validation"), SMALLEST_LOSS)
        losses = {j: max(view.loss(model, "validation"), SMALLEST_LOSS) for j, model in others.items()}
        scale = bound if isfinite(bound) else min(losses.values(), default=inf)
        if not isfinite(scale):
            return {}
        limit = max(bound, self.untrained_share * view.untrained())
        shares = {j: view.weights[j] * exp(-loss / scale) for j, loss in losses.items() if loss < limit}
        total = (1 - sum(view.weights[j] for j in others)) * exp(-bound / scale) + sum(shares.values())
        return {j: share / total for j, share in shares.items()}


def _shortened(weight: float, reach: float, length: float) -> float:
    """Return the weight of a pull of this length that is cut at `reach`."""
    return weight if length <= reach else weight * reach / length


@register_rule("fltrust")
class FLTrust(JudgingOnValidation):
    """Neighbours weigh by how far their displacements point where the loss on Q_i falls.

    ::

        d_j = x_j − x_i;   t_j = max(0, cos(d_j, −∇F(x_i; Q_i)));   m = median of the ‖d_j‖
        x_i + Σ_j c_ij d_j,   c_ij = Σ_{k ∈ N_i} w_ik · t_j / Σ_k t_k · min(1, m/‖d_j‖)

    FLTrust's weights (Cao, Fang, Liu and Gong, NDSS 2021, arXiv:2012.13995) on displacements: an adaptation of ours.
    There, every update gets the length of the trusted one. A gradient tells no length for displacements, so here
    the long ones get that of the median. Where nobody points downhill, the own model stays. Takes one gradient on Q_i.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([-900.0])}
    >>> view = View(weights={2: 0.25, 3: 0.25}, gradient=lambda x: x - 3)
    >>> FLTrust()(torch.tensor([1.0]), others, view)
    tensor([1.5000])
    """

    def judged(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return c_ij."""
        if not others:
            return {}
        moves = torch.stack([others[j] - own for j in others])
        lengths = moves.norm(dim=1)
        cosines = nn.functional.cosine_similarity(moves, -view.gradient(own)[None], dim=1)
        trust = relu(cosines.double().numpy())
        shortened = (lengths.median() / lengths.clamp_min(1e-30)).clamp_max(1).tolist()
        given = sum(view.weights[j] for j in others)
        found = zip(others, trust.tolist(), shortened, strict=True)
        return {j: given * share * factor for j, share, factor in found if share}


@register_rule("shapley-models")
class ShapleyModels(JudgingOnValidation):
    """Neighbours weigh by what their models add to the own one, by Shapley values on Q_i.

    ::

        v(S) = −F(mean of x_i and the x_j, j ∈ S; Q_i)      for S ⊆ N_i
        φ_j  = Shapley value of j in the game (N_i, v)
        x_i + Σ_j c_ij (x_j − x_i),   c_ij = Σ_{k ∈ N_i} w_ik · max(φ_j, 0) / Σ_k max(φ_k, 0)

    Ours: ROSS's game, played for models. The own model is in every coalition, and where nobody improves it, it stays.
    Takes at most 2ᵏ losses, or 2 + 2k (k − 1) where that is less.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> view = View(weights={2: 0.25, 3: 0.25}, loss=lambda x, data: float(abs(x - 3)))
    >>> ShapleyModels()(torch.tensor([1.0]), others, view)
    tensor([1.5000])
    """

    def judged(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return c_ij."""
        if not others:
            return {}
        neighbors = list(others)

        def values(coalitions: Iterable[tuple[int, ...]]) -> list[float]:
            means = (torch.stack([own, *(others[neighbors[k]] for k in each)]).mean(0) for each in coalitions)
            return [-view.loss(mean, "validation") for mean in means]

        phi = shapley_values(Game(len(neighbors), values), "auto", generator=view.generator())
        given = sum(view.weights[j] for j in neighbors)
        return {j: given * share for j, share in zip(neighbors, relu(phi).tolist(), strict=True) if share}
