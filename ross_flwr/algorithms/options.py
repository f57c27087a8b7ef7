"""The keys that several methods share, each explained once; a method may have its own default."""

from typing import Any

from ross_flwr.config import option
from ross_flwr.learning.shapley import ESTIMATORS, WEIGHTINGS

__all__ = [
    "fallback",
    "gradients_from",
    "local_steps",
    "mix_momentum",
    "momentum",
    "optimizer",
    "outer_rate",
    "permutations",
    "shapley",
    "utility",
    "validation_batch",
    "weighting",
]


def local_steps(default: int) -> Any:
    """Declare `local-steps`."""
    return option(default, "local steps K between two rounds of exchanges", unit="steps", minimum=1)


def optimizer(default: str) -> Any:
    """Declare `optimizer`."""
    return option(
        default,
        "what takes local steps, such as 'adam' or 'adamw(weight-decay=0.01), clip(1), cosine': an optimizer, then "
        "perhaps clipping and a schedule of the learning rate; `ross-flwr list optimizers` shows them",
    )


def outer_rate(default: float) -> Any:
    """Declare `outer-rate`."""
    return option(
        default, "how far an agent goes where local steps and mixing led; 1, without momentum, is there", minimum=0.0
    )


def momentum() -> Any:
    """Declare `momentum`."""
    return option(0.9, "momentum coefficient α", minimum=0.0, maximum=0.9999)


def mix_momentum() -> Any:
    """Declare `mix-momentum`."""
    return option(True, "whether agents mix their momentum along with their model")


def gradients_from(default: int) -> Any:
    """Declare `gradients-from`."""
    return option(
        default,
        "how many neighbours, drawn anew in each pass, compute a gradient at the agent's model; -1 for all of them",
        unit="neighbours",
        minimum=-1,
    )


def utility(default: str) -> Any:
    """Declare `utility`."""
    return option(
        default,
        "what a model is worth on Q_i: its accuracy, its accuracy with ties resolved by the loss, minus its loss, or "
        "the utility that the user's own app gave to peer_app",
        choices=("accuracy", "accuracy-then-loss", "loss", "own"),
    )


def validation_batch(default: int) -> Any:
    """Declare `validation-batch`."""
    return option(
        default,
        "how many examples of Q_i an agent looks at in a pass, equally many of each class; 0 for all of Q_i",
        unit="examples",
        minimum=0,
    )


def weighting(default: str) -> Any:
    """Declare `weighting`."""
    return option(default, "how Shapley values become weights π", choices=WEIGHTINGS)


def fallback(default: str) -> Any:
    """Declare `fallback`."""
    return option(
        default,
        "when no contribution is positive: follow the own gradient, the mean of all, or skip the step",
        choices=("self", "uniform", "skip"),
    )


def shapley() -> Any:
    """Declare `shapley`."""
    return option("auto", "estimator of the Shapley values", choices=ESTIMATORS)


def permutations() -> Any:
    """Declare `permutations`."""
    return option(
        0, "R, the budget of the sampling estimators; 0 for twice the players", unit="permutations", minimum=0
    )
