"""The keys of robust mixing."""

from typing import Any

from ross_flwr.config import group, option

__all__ = ["RobustOptions", "byzantine", "use_validation"]


def byzantine() -> Any:
    """Declare `byzantine`, which rules have too."""
    return option(1, "f, how many lying neighbours a robust method expects", minimum=0)


def use_validation() -> Any:
    """Declare `use-validation`, which methods and rules have."""
    return option(
        False,
        "whether Q_i also serves where it is not needed: methods that do not judge by it train on it too, whatever "
        "their rule, and rules that judge models by their loss measure it there and not on a mini-batch",
    )


@group("Robust mixing")
class RobustOptions:
    """How agents mix, instead of averaging."""

    aggregator: str = option(
        "mean",
        "how an agent makes one vector of its neighbourhood's wherever a method mixes; mean is by the mixing matrix; "
        "`ross-flwr list aggregators` shows the rules",
    )
    pre_aggregation: str = option(
        "none",
        "what is done to a neighbourhood's vectors before: nothing, averaging random pairs, or averaging each with "
        "those nearest to it",
        choices=("none", "bucketing", "nnm"),
    )
    byzantine: int = byzantine()
