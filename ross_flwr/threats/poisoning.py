"""Agents whose gradients are poisoned."""

from typing import Any

from torch import Tensor

from ross_flwr.learning.objective import Batch, ModuleObjective

__all__ = ["ATTACKS", "GradientScaling"]


class GradientScaling(ModuleObjective):
    """An objective whose every gradient is multiplied by `scale`; a negative scale climbs the loss.

    It poisons the cross-gradients the agent returns and its own steps, and through these the model it shares.
    """

    def __init__(self, *parts: Any, scale: float) -> None:
        super().__init__(*parts)
        self.scale = scale

    def gradient(self, vector: Tensor, batch: Batch) -> Tensor:
        """Return `scale` times the gradient of the mean loss on `batch`, shape [P]."""
        return super().gradient(vector, batch).mul_(self.scale)


ATTACKS = {
    "none": "nobody lies",
    "gradient-scaling": "every gradient an attacker computes is multiplied by attack-scale",
}
