"""Weights from the losses of the neighbours' models."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.local_steps import AdaptThenCombine
from ross_flwr.config import part
from ross_flwr.learning import rules


@register("resilient-p2p")
class ResilientP2P(AdaptThenCombine):
    """Resilient P2P learning (Bhowmick, Koutsoukos, arXiv:2501.04610): models weigh by their inverse loss on own data.

    ::

        x½_i = x_i after K local steps;   r_l = max(F_i(x½_l), 10⁻⁸)
        N⁺_i = {i} ∪ {l ∈ N_i : r_l ≤ r_i}, or all of M_i (`lower-loss-only` = false)
        x_i  = Σ_{l ∈ N⁺_i} c_il x½_l,   c_il = r_l⁻¹ / Σ_{p ∈ N⁺_i} r_p⁻¹

    The rule is `rules.ResilientP2P`. State: the model. Per agent and pass: one exchange, k·P·4 bytes, K gradients and
    1 + k losses, counted as utilities. Where all losses are alike it is the plain mean of the neighbourhood.
    """

    family = "Byzantine-robust"

    rule: rules.Rule = part(rules.ResilientP2P)
