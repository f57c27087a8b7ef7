"""Byzantine-robust averaging through local similarity."""

from math import exp

from torch import Tensor, zeros_like

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.screening import ModelScreening, distance, mean
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent


@register("balance")
class BALANCE(ModelScreening):
    """BALANCE (Fang et al., CCS 2024, arXiv:2406.10416): accept who is similar to one's own model, ever more strictly.

    ::

        x½_i = x_i − η ∇F_i(x_i; ξ_i)
        A_i  = {j ∈ N_i : ‖x½_i − x½_j‖ ≤ γ exp(−κ t/T) ‖x½_i‖}
        x_i  = a x½_i + (1 − a) mean_{j ∈ A_i} x½_j;   x½_i if nobody is accepted

    t/T is the part of the run that is over. γ = 0.3, κ = 1 and a = 0.5 are said to be the paper's. The measure is
    relative to the model's norm, so all should start alike; towards the end it may shut out honest agents whose data is
    different. Other implementations fall back to the nearest neighbour, who may be the attacker; this one does not.

    State: the model. Per agent and round: one exchange, k·P·4 bytes, one gradient. With γ = ∞ everybody is accepted;
    with γ = 0 agents learn alone but for those with the very same model.
    """

    similarity: float = option(
        0.3, "γ, how far from the own model, relative to its norm, an accepted one may be at first", minimum=0.0
    )
    tightening: float = option(1.0, "κ, how that shrinks: by the factor exp(−κ) until the run's end", minimum=0.0)
    own_weight: float = option(0.5, "a, the weight of the own model beside the accepted ones", minimum=0.0, maximum=1.0)

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return a x½_i + (1 − a) mean_A x½_j."""
        bound = self.similarity * exp(-self.tightening * agent.progress) * distance(own, zeros_like(own))
        accepted = [model for model in others.values() if distance(model, own) <= bound]
        if not accepted:
            return own
        return self.own_weight * own + (1 - self.own_weight) * mean(accepted)
