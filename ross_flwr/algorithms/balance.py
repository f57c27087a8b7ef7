"""Byzantine-robust averaging through local similarity."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.local_steps import AdaptThenCombine
from ross_flwr.config import part
from ross_flwr.learning import rules


@register("balance")
class BALANCE(AdaptThenCombine):
    """BALANCE (Fang et al., CCS 2024, arXiv:2406.10416): accept who is similar to one's own model, ever more strictly.

    ::

        x½_i = x_i after K local steps
        A_i  = {j ∈ N_i : ‖x½_i − x½_j‖ ≤ γ exp(−t/T) ‖x½_i‖}
        x_i  = ½ x½_i + ½ mean_{j ∈ A_i} x½_j;   x½_i if nobody is accepted

    The rule is `rules.BALANCE`. State: the model. Per agent and pass: one exchange, k·P·4 bytes, K gradients. With
    γ = 0, agents learn alone, except those with exactly the same model.
    """

    family = "Byzantine-robust"

    rule: rules.Rule = part(rules.BALANCE)
