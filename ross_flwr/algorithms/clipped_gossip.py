"""Gossip with clipped differences."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.local_steps import AdaptThenCombine, HeavyBall
from ross_flwr.config import part
from ross_flwr.learning import rules


@register("clipped-gossip")
class ClippedGossip(HeavyBall, AdaptThenCombine):
    """ClippedGossip, or self-centered clipping (He, Karimireddy, Jaggi, arXiv:2202.01545): no neighbour pulls far.

    ::

        K times, from z = x_i:  m_i = α m_i + ∇F_i(z; ξ_i);   z = z − η m_i
        x_i = Σ_j w_ij (z_i + clip(z_j − z_i, τ_i)),   clip(y, τ) = y min(1, τ/‖y‖)

    The rule, with its three radii, is `rules.ClippedGossip`. State: x_i, m_i (zero at first). Per agent and pass: one
    exchange, k·P·4 bytes, K gradients. With τ = ∞, or f = 0, the models are mixed by W; with τ = 0 agents learn alone.
    The paper takes K = 1.
    """

    family = "Byzantine-robust"

    rule: rules.Rule = part(rules.ClippedGossip)
