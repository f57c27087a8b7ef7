"""Poisons: how an attacker changes the gradients it steps along and the cross-gradients it returns.

`POISONS` knows each by the name that it has in a configuration.
"""

from ross_flwr.threats.poisons.classes import LongestClass, OneClass, ScreenAdaptive
from ross_flwr.threats.poisons.poison import Poison, Poisoning
from ross_flwr.threats.poisons.simple import (
    FlippedLabels,
    GradientConstant,
    GradientNoise,
    GradientScaling,
    GradientZero,
)

__all__ = [
    "POISONS",
    "FlippedLabels",
    "GradientConstant",
    "GradientNoise",
    "GradientScaling",
    "GradientZero",
    "LongestClass",
    "OneClass",
    "Poison",
    "Poisoning",
    "ScreenAdaptive",
]

POISONS: dict[str, type[Poison]] = {
    "gradient-scaling": GradientScaling,
    "gradient-zero": GradientZero,
    "gradient-noise": GradientNoise,
    "gradient-constant": GradientConstant,
    "flipped-labels": FlippedLabels,
    "one-class": OneClass,
    "longest-class": LongestClass,
    "screen-adaptive": ScreenAdaptive,
}
"""Poisons by name."""
