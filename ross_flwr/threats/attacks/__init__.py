"""Attacks: what an attacker sends instead of the truth.

Vectors are models, momenta or cross-gradients: an attack is the same for all of them. `ATTACKS` knows each by the name
that it has in a configuration.
"""

from ross_flwr.threats.attacks.attack import Attack, View
from ross_flwr.threats.attacks.blind import (
    BitFlip,
    Equivocation,
    Gaussian,
    Infinite,
    SameValue,
    SignFlip,
    Stale,
    Sybil,
    Zero,
)
from ross_flwr.threats.attacks.fitted import (
    ALIEOptimised,
    Dissensus,
    IPMOptimised,
    Isolation,
    ShapleyAdaptive,
    ZeroSum,
)
from ross_flwr.threats.attacks.informed import (
    ALIE,
    DMPA,
    IPM,
    ALIENetwork,
    Duplicate,
    Echo,
    Mimic,
    NoiseRider,
    SignFlipMean,
)

__all__ = [
    "ALIE",
    "ATTACKS",
    "DMPA",
    "IPM",
    "ALIENetwork",
    "ALIEOptimised",
    "Attack",
    "BitFlip",
    "Dissensus",
    "Duplicate",
    "Echo",
    "Equivocation",
    "Gaussian",
    "IPMOptimised",
    "Infinite",
    "Isolation",
    "Mimic",
    "NoiseRider",
    "SameValue",
    "ShapleyAdaptive",
    "SignFlip",
    "SignFlipMean",
    "Stale",
    "Sybil",
    "View",
    "Zero",
    "ZeroSum",
]

ATTACKS: dict[str, type[Attack]] = {
    "sign-flip": SignFlip,
    "sign-flip-mean": SignFlipMean,
    "bit-flip": BitFlip,
    "ipm": IPM,
    "ipm-optimised": IPMOptimised,
    "alie": ALIE,
    "alie-network": ALIENetwork,
    "alie-optimised": ALIEOptimised,
    "gaussian": Gaussian,
    "zero": Zero,
    "same-value": SameValue,
    "infinite": Infinite,
    "duplicate": Duplicate,
    "echo": Echo,
    "mimic": Mimic,
    "dissensus": Dissensus,
    "isolation": Isolation,
    "zero-sum": ZeroSum,
    "dmpa": DMPA,
    "stale": Stale,
    "noise-rider": NoiseRider,
    "sybil": Sybil,
    "equivocation": Equivocation,
    "shapley-adaptive": ShapleyAdaptive,
}
"""Attacks by name."""
