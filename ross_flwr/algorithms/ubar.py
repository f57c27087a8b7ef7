"""Uniform Byzantine-resilient aggregation."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.local_steps import CombineThenAdapt
from ross_flwr.config import part
from ross_flwr.learning import rules


@register("ubar")
class UBAR(CombineThenAdapt):
    """UBAR (Guo et al., arXiv:2002.08569): first the near neighbours, of these the ones that do no worse than oneself.

    ::

        S_i = the ⌊ρ k⌋ neighbours whose x_j is nearest to x_i, at least one
        R_i = {j ∈ S_i : F_i(x_j) ≤ F_i(x_i)};   if empty, or F_i(x_i) is infinite, the best j ∈ S_i
        x_i ← ½ x_i + ½ mean_{j ∈ R_i} x_j − η D_i,   D_i = ∇F_i(x_i; ξ_i) for K = 1

    The rule is `rules.UBAR`. With K > 1 local steps, D_i is the sum of their gradients; losses are those of the pass's
    mini-batch, as published, or of Q_i.

    State: the model. Per agent and pass: one exchange, k·P·4 bytes, K gradients, and 1 + |S_i| losses, counted as
    utilities.
    """

    family = "Byzantine-robust"

    rule: rules.Rule = part(rules.UBAR)
