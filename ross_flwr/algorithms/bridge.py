"""Byzantine-resilient decentralized gradient descent."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.local_steps import CombineThenAdapt
from ross_flwr.config import part
from ross_flwr.learning import rules


@register("bridge")
class BRIDGE(CombineThenAdapt):
    """BRIDGE (Fang, Yang, Bajwa, IEEE TSIPN 2022): x_i ← screen(x_i, {x_j}) − η D_i, D_i = ∇F_i(x_i; ξ_i) for K = 1.

    Screen, then step with the gradient taken before; with K > 1 local steps, D_i is the sum of their gradients. This is
    BRIDGE-T, which trims the neighbours' values and averages the rest with the own one (`rules.TrimmedNeighbors`).
    BRIDGE-M, -K and -B are ``dpsgd`` with ``aggregator`` = 'median', 'krum' and 'bulyan'.

    State: the model. Per agent and pass: one exchange, k·P·4 bytes, K gradients. With f = 0 it is D-PSGD with equal
    weights.
    """

    family = "Byzantine-robust"

    rule: rules.Rule = part(rules.TrimmedNeighbors)
