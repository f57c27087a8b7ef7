"""What a table of results may claim: intervals of means, paired tests with Holm's correction, and collapses.

A run *collapses* when the mean accuracy of its honest agents ends within two points of chance, 1 / C for C classes, or
is not a number. Means are over all seeds, including collapsed ones, whose number stands beside the mean.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import atan, cos, inf, pi, sin, sqrt
from statistics import fmean, stdev
from typing import Any

from ross_flwr.runs.finished import OURS

__all__ = [
    "SIGNIFICANT",
    "Difference",
    "Score",
    "Table",
    "differences",
    "half_width",
    "holm",
    "legend",
    "marks",
    "our_method",
    "paired",
]

SIGNIFICANT = 0.05
"""A difference with a smaller p, after Holm's correction, is significant."""

NEAR_CHANCE = 0.02
"""A run whose accuracy is at most this far above chance has collapsed."""

Table = Mapping[tuple[str, ...], Mapping[str, "Score"]]
"""By place (a scenario and a topology, say) and method: the accuracies over seeds."""


@dataclass(frozen=True)
class Score:
    """The final accuracy of a method in one place: the mean over honest agents, by seed.

    Attributes
    ----------
    by_seed : dict of int to float
        A run whose accuracy is not a number counts as 0.
    collapsed : int
        How many of the runs collapsed.

    Examples
    --------
    >>> print(Score({0: 0.90, 1: 0.92, 2: 0.94}, collapsed=0))
    92.0 ± 5.0
    >>> print(Score({0: 0.90, 1: 0.10}, collapsed=1).text(interval=False))
    50.0 (1/2 collapsed)
    """

    by_seed: Mapping[int, float]
    collapsed: int

    @classmethod
    def of(cls, summaries: Mapping[int, Mapping[str, Any]]) -> "Score":
        """Return the score of the runs with these summaries, by seed."""
        means = {seed: (summary["accuracy"] or {}).get("mean") for seed, summary in summaries.items()}
        chance = {seed: 1 / classes if (classes := summaries[seed].get("classes")) else -inf for seed in summaries}
        fallen = [seed for seed, mean in means.items() if mean is None or mean <= chance[seed] + NEAR_CHANCE]
        return cls({seed: mean or 0.0 for seed, mean in means.items()}, len(fallen))

    @cached_property
    def mean(self) -> float:
        """The mean over all seeds."""
        return fmean(self.by_seed.values())

    @cached_property
    def half_width(self) -> float | None:
        """Half of the 95 % interval of the mean; None for one seed."""
        return half_width(list(self.by_seed.values()))

    def text(self, *, interval: bool = True) -> str:
        """Return it in percent: the mean, half of its interval, and how many runs collapsed."""
        spread = f" ± {100 * self.half_width:.1f}" if interval and self.half_width is not None else ""
        fallen = f" ({self.collapsed}/{len(self.by_seed)} collapsed)" if self.collapsed else ""
        return f"{100 * self.mean:.1f}{spread}{fallen}"

    __str__ = text


@dataclass(frozen=True)
class Difference:
    """How far our method is above another one in one place, paired by seed.

    Attributes
    ----------
    place : tuple of str
        Where.
    against : str
        The other method.
    seeds : int
        How many seeds both have.
    mean : float
        Our accuracy minus the other's.
    half_width : float or None
        Half of the 95 % interval of the mean; None for one seed.
    p : float or None
        Of a two-sided paired t-test; None for one seed.
    adjusted : float or None
        `p` after Holm's correction for all comparisons of the table.
    """

    place: tuple[str, ...]
    against: str
    seeds: int
    mean: float
    half_width: float | None
    p: float | None
    adjusted: float | None

    @property
    def significant(self) -> bool:
        """Whether it is significant after the correction."""
        return self.adjusted is not None and self.adjusted < SIGNIFICANT


def our_method(algorithms: Mapping[str, str]) -> str | None:
    """Return the method that is compared with all others, given the algorithm of each: ross-plus, else ross, if any."""
    return next((method for ours in OURS for method, algorithm in algorithms.items() if algorithm == ours), None)


def differences(table: Table, ours: str | None) -> list[Difference]:
    """Return our method against every other in every place, with Holm's correction over all of them."""
    found = []
    for place, scores in table.items():
        mine = scores.get(ours or "")
        for other, score in scores.items():
            if mine and other != ours and (seeds := sorted(mine.by_seed.keys() & score.by_seed.keys())):
                own, theirs = ([each.by_seed[seed] for seed in seeds] for each in (mine, score))
                found.append((place, other, own, theirs))
    p_values = [paired(own, theirs) for *_, own, theirs in found]
    adjusted = iter(holm([p for p in p_values if p is not None]))
    return [
        Difference(
            place,
            other,
            len(own),
            fmean(own) - fmean(theirs),
            half_width([a - b for a, b in zip(own, theirs, strict=True)]),
            p,
            None if p is None else next(adjusted),
        )
        for (place, other, own, theirs), p in zip(found, p_values, strict=True)
    ]


def marks(table: Table, found: Iterable[Difference]) -> dict[tuple[str, ...], str]:
    """Return ▲ where our method is significantly above the best other one, and ▼ where it is below, by place."""
    by_pair = {(each.place, each.against): each for each in found}
    result = {}
    for place, scores in table.items():
        others = [method for method in scores if (place, method) in by_pair]
        if others:
            against = by_pair[place, max(others, key=lambda method: scores[method].mean)]
            result[place] = ("▲" if against.mean > 0 else "▼") if against.significant else ""
    return result


def legend(ours: str | None, found: Sequence[Difference]) -> list[str]:
    """Return what the numbers and marks of a table mean, in sentences, and what its tests can tell apart at all."""
    sentences = [
        "Accuracy in %: the mean over seeds ± half of its 95 % interval. A run collapsed if the mean over its honest "
        f"agents ended within {100 * NEAR_CHANCE:.0f} points of chance."
    ]
    if not found:
        return sentences
    tested = [each for each in found if each.p is not None]
    if not tested:
        return [*sentences, "With one seed no difference can be tested."]
    seeds, alpha = min(each.seeds for each in tested), SIGNIFICANT / len(tested)
    least = quantile(1 - alpha, seeds - 1) / sqrt(seeds)
    return [
        *sentences,
        f"▲ and ▼: {ours} is above or below the best other method with p < {SIGNIFICANT}, in a two-sided t-test paired "
        f"by seed, after Holm's correction for {len(tested)} comparisons: {ours} with every other method in every "
        f"place. On {seeds} seeds the first of these is significant from a mean difference of {least:.1f} times its "
        "standard deviation on.",
    ]


def paired(own: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return p of the two-sided paired t-test; None for fewer than two pairs, 1 where all pairs are equal.

    Examples
    --------
    >>> round(paired([0.9, 0.8, 0.85], [0.3, 0.9, 0.0]), 4)
    0.2543
    """
    apart = [a - b for a, b in zip(own, theirs, strict=True)]
    if len(apart) < 2 or not any(apart):
        return 1.0 if len(apart) > 1 else None
    spread = stdev(apart)
    return 1 - within(sqrt(len(apart)) * abs(fmean(apart)) / spread, len(apart) - 1) if spread else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method, in the same order.

    Holm, "A simple sequentially rejective multiple test procedure", 1979: with p₍₁₎ ≤ … ≤ p₍ₘ₎, the k-th becomes the
    largest of (m − j + 1) p₍ⱼ₎ over j ≤ k, and at most 1.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[k]))
        adjusted[k] = largest
    return adjusted


def half_width(values: Sequence[float]) -> float | None:
    """Return half of Student's 95 % interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    return quantile(0.95, len(values) - 1) * stdev(values) / sqrt(len(values))


def within(t: float, freedom: int) -> float:
    """Return the probability that Student's t with `freedom` degrees of freedom lies between −t and t.

    Abramowitz and Stegun, "Handbook of mathematical functions", 26.7.3 and 26.7.4.
    """
    angle, odd = atan(t / sqrt(freedom)), freedom % 2
    term, total = cos(angle) ** odd, 0.0
    for k in range(odd, freedom - 1, 2):
        total += term
        term *= cos(angle) ** 2 * (k + 1) / (k + 2)
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def quantile(share: float, freedom: int) -> float:
    """Return the t for which `within` is `share`, which is below 1."""
    low, high = 0.0, 1.0
    while within(high, freedom) < share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < share else (low, middle)
    return high
