"""Uniform Byzantine-resilient aggregation."""

from math import floor, inf

from torch import Tensor

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.screening import LossScreening, distance, mean
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("ubar")
class UBAR(LossScreening):
    """UBAR (Guo et al., arXiv:2002.08569): first the near neighbours, of these the ones that do no worse than oneself.

    ::

        S_i = the ⌊ρ k⌋ neighbours whose x_j is nearest to x_i, at least one
        R_i = {j ∈ S_i : F_i(x_j) ≤ F_i(x_i)};   if empty, or F_i(x_i) is infinite, the best j ∈ S_i
        x_i ← a x_i + (1 − a) mean_{j ∈ R_i} x_j − η ∇F_i(x_i; ξ_i)

    k counts the neighbours that were heard; with none the agent steps alone. Losses are those of this round's
    mini-batch, as published, or of Q_i. ρ = 0.4 and a = 0.5 are the values of published experiments. Where F_j differ
    much, it selects too much; and where |S_i| = 1, as with ρ = 0.4 and four neighbours, the losses decide nothing.

    State: the model. Per agent and round: one exchange, k·P·4 bytes, one gradient, and 1 + |S_i| losses, counted as
    utilities. With a = 1 agents learn alone.
    """

    near_share: float = option(
        0.4, "ρ, the part of the neighbours, the nearest, that is looked at", minimum=0.0, maximum=1.0
    )
    own_weight: float = option(0.5, "a, the weight of the own model beside the accepted ones", minimum=0.0, maximum=1.0)

    def proposal(self, agent: Agent) -> Tensor:
        """Return x_i: the step comes after the mixing."""
        return agent["model"]

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return a x_i + (1 − a) mean_R x_j − η ∇F_i(x_i)."""
        gradient = agent.gradient(own)
        if not others:
            return own - self.learning_rate * gradient
        near = sorted(others, key=lambda j: distance(others[j], own))[: max(1, floor(self.near_share * len(others)))]
        losses = {j: agent.loss(others[j], self.loss_data) for j in near}
        bound = agent.loss(own, self.loss_data)
        accepted = [j for j in near if losses[j] <= bound < inf] or [min(near, key=losses.__getitem__)]
        mixed = self.own_weight * own + (1 - self.own_weight) * mean([others[j] for j in accepted])
        return mixed.sub_(gradient, alpha=self.learning_rate)
