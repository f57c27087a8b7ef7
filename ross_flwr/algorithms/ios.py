"""Iterative outlier scissor."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.local_steps import AdaptThenCombine
from ross_flwr.config import part
from ross_flwr.learning import rules


@register("ios")
class IOS(AdaptThenCombine):
    """IOS, the iterative outlier scissor (Wu, Chen, Ling, IEEE TSP 2023): cut off the farthest from the mean, f times.

    ::

        x½_i = x_i after K local steps;   U = M_i
        f times:  U ← U − {argmax_{j ∈ U, j ≠ i} ‖x½_j − x̄_U‖},   x̄_U = Σ_{j∈U} w_ij x½_j / Σ_{j∈U} w_ij
        x_i = x̄_U

    The rule is `rules.IOS`. State: the model. Per agent and pass: one exchange, k·P·4 bytes, K gradients. With f = 0
    it is D-PSGD, adapt-then-combine.
    """

    family = "Byzantine-robust"

    rule: rules.Rule = part(rules.IOS)
