"""Decentralized parallel SGD."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.local_steps import CombineThenAdapt


@register("dpsgd")
class DPSGD(CombineThenAdapt):
    """Decentralized parallel SGD (Lian et al., NeurIPS 2017).

    ::

        x_i ← Σ_j w_ij x_j − η D_i

    With K = 1 local step, D_i = ∇F_i(x_i; ξ_i); with more, x_i − η D_i is the model after K steps from x_i. Gradients
    are taken before mixing, so they can be computed while messages travel. `local-dsgd` with K = 1 is the other order,
    adapt-then-combine: x_i ← Σ_j w_ij (x_j − η ∇F_j(x_j; ξ_j)), which comes nearer to the optimum with the same η.

    State: x_i. Per agent, pass and k neighbours: one exchange, K gradients, k·P·4 bytes. With W = 11ᵀ/N and K = 1 it
    is centralized SGD, with W = I each agent's own.

    Examples
    --------
    >>> DPSGD(learning_rate=0.2, local_steps=3).steps
    ('share', 'mix')
    """

    family = "decentralized optimisation"
