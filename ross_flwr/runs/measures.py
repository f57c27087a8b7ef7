"""The number that a run is judged by: progress, tables and reports show it first."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, log
from typing import Any

__all__ = ["ACCURACY", "LOSS", "NEAR_CHANCE", "Measure", "collapsed", "measure_of", "percent"]


@dataclass(frozen=True)
class Measure:
    """A number that a test gives.

    Attributes
    ----------
    name : str
        Its key in a line of a history or a summary, or in the ``metrics`` there.
    title : str
        What people call it.
    higher : bool
        Whether more of it is better.
    """

    name: str
    title: str
    higher: bool = False

    def spread(self, tested: Mapping[str, Any]) -> Mapping[str, float | None]:
        """Return its mean, smallest and largest over honest agents, in a line or a summary; nothing where none is."""
        return (tested.get("metrics") or {}).get(self.name) or tested.get(self.name) or {}

    def value(self, tested: Mapping[str, Any]) -> float:
        """Return its mean over honest agents; the worst there is where that is not a number."""
        mean = self.spread(tested).get("mean")
        return mean if mean is not None and isfinite(mean) else 0.0 if self.higher else inf

    def worst(self, tested: Mapping[str, Any]) -> float | None:
        """Return that of the worst honest agent."""
        return self.spread(tested).get("min" if self.higher else "max")

    def worth(self, value: float) -> float:
        """Return a number that is larger where the value is better."""
        return value if self.higher else -value

    def text(self, value: float | None) -> str:
        """Return a value, formatted for people.

        Examples
        --------
        >>> ACCURACY.text(0.9512), LOSS.text(0.123456), LOSS.text(None)
        ('95.1%', '0.1235', '–')
        """
        if self == ACCURACY or value is None or not isfinite(value):
            return percent(value)
        return f"{value:.4g}"


ACCURACY = Measure("accuracy", "accuracy", higher=True)
LOSS = Measure("loss", "loss")
OF_TASKS = (Measure("bits-per-byte", "bits per byte"), Measure("rmse", "RMSE"))
"""What tasks measure that are not judged by their accuracy."""

NEAR_CHANCE = 0.02
"""A run whose accuracy is at most this far above chance has collapsed."""


def measure_of(tested: Mapping[str, Any]) -> Measure:
    """Return what a line or a summary is judged by: bits per byte, RMSE or accuracy, or the loss where it has none.

    Examples
    --------
    >>> measure_of({"accuracy": {"mean": 0.2}, "metrics": {"bits-per-byte": {"mean": 3.1}}}).title
    'bits per byte'
    >>> measure_of({"accuracy": {"mean": float("nan")}, "loss": {"mean": 0.1}}).title
    'loss'
    """
    found = next((each for each in OF_TASKS if each.name in (tested.get("metrics") or {})), None)
    accuracy = (tested.get("accuracy") or {}).get("mean")
    known = accuracy is not None and isfinite(accuracy)
    return found or (ACCURACY if known or not isfinite(LOSS.value(tested)) else LOSS)


def collapsed(summary: Mapping[str, Any], measure: Measure) -> bool:
    """Return whether a run knows no more than chance, or what it is judged by is not a number."""
    mean, classes = measure.spread(summary).get("mean"), summary.get("classes") or 0
    if mean is None or not isfinite(mean):
        return True
    if measure == ACCURACY:
        return classes > 0 and mean <= 1 / classes + NEAR_CHANCE
    return classes > 1 and LOSS.value(summary) >= log(classes)


def percent(share: float | None) -> str:
    """Return a share, formatted for people; a dash if there is none."""
    return f"{share:.1%}" if share is not None and isfinite(share) else "–"
