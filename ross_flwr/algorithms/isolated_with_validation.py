"""No collaboration, and all the data that an agent has."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.isolated import Isolated


@register("isolated-with-validation")
class IsolatedWithValidation(Isolated):
    """SGD by every agent on its own data and its Q_i together: x_i ← x_i − η ∇F(x_i; ξ_i), ξ_i from both.

    What an agent that owns a validation set reaches without sending a message. Costs as `isolated`.
    """

    trains_on = "own and validation"
