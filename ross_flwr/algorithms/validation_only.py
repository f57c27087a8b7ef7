"""No collaboration, and no data but the validation set."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.isolated import Isolated


@register("validation-only")
class ValidationOnly(Isolated):
    """SGD by every agent on its Q_i alone: x_i ← x_i − η ∇F(x_i; ξ_i), ξ_i from Q_i.

    Q_i has a few examples of every class where own data is skewed, and no message can spoil it. A method that owns Q_i
    has to beat this, above all under attack. Costs as `isolated`.
    """

    trains_on = "validation"
