"""Agents whose gradients are poisoned."""

from torch import Tensor

from ross_flwr.learning.objective import Batch, Objective, Performance

__all__ = ["ATTACKS", "GradientScaling"]


class GradientScaling:
    """An objective whose every gradient is multiplied by `scale`; a negative scale climbs the loss.

    It poisons the cross-gradients the agent returns and its own steps, and through these the model it shares.
    """

    def __init__(self, objective: Objective, scale: float) -> None:
        self.honest = objective
        self.scale = scale

    @property
    def size(self) -> int:
        """P, the length of a flat vector."""
        return self.honest.size

    @property
    def num_examples(self) -> int:
        """How many training examples the agent holds."""
        return self.honest.num_examples

    def batch(self, indices: Tensor) -> Batch:
        """Return the training examples at `indices`, shape [B]."""
        return self.honest.batch(indices)

    def gradient(self, vector: Tensor, batch: Batch) -> Tensor:
        """Return `scale` times the gradient of the mean loss on `batch`, shape [P]."""
        return self.honest.gradient(vector, batch).mul_(self.scale)

    def buffer_shift(self) -> Tensor | None:
        """Return by how much the last `gradient` moved the float buffers, or None when there are none."""
        return self.honest.buffer_shift()

    def utility(self, vector: Tensor, kind: str) -> float:
        """Return how good `vector` is on the validation set."""
        return self.honest.utility(vector, kind)

    def test(self, vector: Tensor) -> Performance:
        """Return loss and accuracy on the test set."""
        return self.honest.test(vector)


ATTACKS = {
    "none": "nobody lies",
    "gradient-scaling": "every gradient an attacker computes is multiplied by attack-scale",
}
