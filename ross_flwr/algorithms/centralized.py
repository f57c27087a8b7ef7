"""The reference with all data in one place."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.isolated import Isolated


@register("centralized")
class Centralized(Isolated):
    """SGD on the union of the honest agents' data, to see what is lost by not pooling it: x_i ← x_i − η ∇F(x_i; ξ_i).

    Nobody talks to anybody. The agents start alike and draw mini-batches of their own, so each is an independent repeat
    and their spread is that of the draws. The parts of agents with corrupted data are left out as well; such an agent
    corrupts the union, as an attacker does its gradients, for itself alone.

    State: x_i. Per agent and round: no exchange, K gradients for K local steps, no bytes.
    """

    trains_on = "pooled"
