"""The methods. Importing this package registers all of them."""

from ross_flwr.algorithms import dpsgd, ross
from ross_flwr.algorithms.algorithm import (
    ALGORITHMS,
    Algorithm,
    Inbox,
    Outbox,
    broadcast,
    create,
    register,
    step,
)

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Inbox",
    "Outbox",
    "broadcast",
    "create",
    "dpsgd",
    "register",
    "ross",
    "step",
]
