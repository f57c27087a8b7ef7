"""The reference with all data in one place."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.isolated import Isolated


@register("centralized")
class Centralized(Isolated):
    """SGD on the union of the honest agents' data, to show what is lost without pooling: x_i ← x_i − η ∇F(x_i; ξ_i).

    Agents do not communicate. They start from the same model and draw their own mini-batches, so each is an independent
    repeat, and their spread is that of the draws. The union also leaves out the data of corrupted agents. A corrupted
    agent corrupts its own copy of the union, and an attacker its own gradients; neither affects the others.

    State: x_i. Per agent and pass: no exchange, K gradients for K local steps, no bytes.
    """

    trains_on = "pooled"
