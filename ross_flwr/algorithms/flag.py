"""The Flag Aggregator."""

import torch
from torch import Tensor

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.screening import ModelScreening
from ross_flwr.config import option
from ross_flwr.learning import rules
from ross_flwr.learning.agent import Agent


@register("flag")
class Flag(ModelScreening):
    """Flag Aggregator (Almasi et al., arXiv:2302.05865): follow the subspace that most neighbours' differences share.

    ::

        x½_i = x_i − η ∇F_i(x_i; ξ_i);   g_j = (x½_j − x½_i) / ‖x½_j − x½_i‖
        Y    = the r-dimensional flag median of {g_j}, r = ⌈(k + 1)/2⌉
        x_i  = x½_i + median_j ‖x½_j − x½_i‖ · 1/m Σ_j Y Yᵀ g_j,   m = k + 1

    The paper's server aggregates gradients; here the rule acts on differences to the own model, and since it returns a
    direction, the median of their lengths gives it one back: with f of 2f + 1 neighbours lying that is no longer than
    an honest one. W is ignored. The rule itself is `rules.flag`, which any method that mixes can use.

    State: the model. Per agent and round: one exchange, k·P·4 bytes, one gradient. With one neighbour it is the mean
    of the two.
    """

    byzantine: int = option(1, "f, the lying neighbours a robust method is prepared for", minimum=0)

    def neighbors_needed(self) -> int:
        """Return 2f + 1, so that the median length is an honest one's."""
        return 2 * self.byzantine + 1

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return the flag aggregate of the neighbourhood."""
        return rules.flag(torch.stack((own, *others.values())), own=own)
