"""What a table of results may claim: intervals of means, paired tests with Holm's correction, and collapses.

A run *collapses* when the mean accuracy of its honest agents ends within two points of chance, 1 / C for C classes, or
is not a number; where another `Measure` takes the place of accuracy, when it is not a number, or the loss is that of a
guess, ln C. Means are over all seeds, including collapsed ones, whose number stands beside the mean.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import atan, cos, isfinite, pi, sin, sqrt
from statistics import fmean, stdev
from typing import Any

from ross_flwr.runs.finished import OURS
from ross_flwr.runs.measures import ACCURACY, NEAR_CHANCE, Measure, collapsed, measure_of

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

Table = Mapping[tuple[str, ...], Mapping[str, "Score"]]
"""By place (a scenario and a topology, say) and method: what methods are judged by, such as accuracies, over seeds."""


@dataclass(frozen=True)
class Score:
    """The final accuracy of a method in one place, or what else it is judged by: the mean over honest agents, by seed.

    Attributes
    ----------
    by_seed : dict of int to float
        A run whose accuracy is not a number counts as 0, and one with another measure as ∞.
    collapsed : int
        How many of the runs collapsed.
    measure : Measure
        What it is.

    Examples
    --------
    >>> print(Score({0: 0.90, 1: 0.92, 2: 0.94}, collapsed=0))
    92.0 ± 5.0
    >>> print(Score({0: 0.90, 1: 0.10}, collapsed=1).text(interval=False))
    50.0 (1/2 collapsed)
    """

    by_seed: Mapping[int, float]
    collapsed: int
    measure: Measure = ACCURACY

    @classmethod
    def of(cls, summaries: Mapping[int, Mapping[str, Any]]) -> "Score":
        """Return the score of the runs with these summaries, by seed."""
        measures = map(measure_of, summaries.values())
        measure = next((each for each in measures if each != ACCURACY), ACCURACY)
        means = {seed: measure.value(summary) for seed, summary in summaries.items()}
        return cls(means, sum(collapsed(summary, measure) for summary in summaries.values()), measure)

    @cached_property
    def mean(self) -> float:
        """The mean over all seeds."""
        return fmean(self.by_seed.values())

    @property
    def worth(self) -> float:
        """A number that is larger where the mean is better."""
        return self.measure.worth(self.mean)

    @cached_property
    def half_width(self) -> float | None:
        """Half of the 95 % interval of the mean; None for one seed."""
        return half_width(list(self.by_seed.values()))

    def text(self, *, interval: bool = True) -> str:
        """Return the mean, half of its interval, and how many runs collapsed; accuracy in percent."""
        shown = (lambda value: f"{100 * value:.1f}") if self.measure == ACCURACY else self.measure.text
        spread = f" ± {shown(self.half_width)}" if interval and self.half_width is not None else ""
        fallen = f" ({self.collapsed}/{len(self.by_seed)} collapsed)" if self.collapsed else ""
        return f"{shown(self.mean)}{spread}{fallen}"

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
        Our mean minus the other's.
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
            against = by_pair[place, max(others, key=lambda method: scores[method].worth)]
            better = (against.mean > 0) == scores[others[0]].measure.higher
            result[place] = ("▲" if better else "▼") if against.significant else ""
    return result


def legend(ours: str | None, found: Sequence[Difference], measure: Measure = ACCURACY) -> list[str]:
    """Return what the numbers and marks of a table mean, in sentences, and what its tests can tell apart at all."""
    near, mean = f"within {100 * NEAR_CHANCE:.0f} points of chance", "the mean over seeds ± half of its 95 % interval."
    sentences = [f"Accuracy in %: {mean} A run collapsed if the mean over its honest agents ended {near}."]
    if measure != ACCURACY:
        named = measure.title[0].upper() + measure.title[1:]
        sentences = [f"{named}, lower is better: {mean} A run collapsed if it ended no better than a guess."]
    if not found:
        return sentences
    tested = [each for each in found if each.p is not None]
    if not tested:
        return [*sentences, "With one seed no difference can be tested."]
    seeds, alpha = min(each.seeds for each in tested), SIGNIFICANT / len(tested)
    least = quantile(1 - alpha, seeds - 1) / sqrt(seeds)
    none = "" if any(each.significant for each in tested) else " None is."
    return [
        *sentences,
        f"▲ and ▼: {ours} is better or worse than the best other method with p < {SIGNIFICANT}, in a two-sided t-test "
        f"paired by seed, after Holm's correction for {len(tested)} comparisons: {ours} with every other method in "
        f"every place.{none} On {seeds} seeds that takes a mean difference of {least:.1f} times its standard deviation "
        "over seeds.",
    ]


def paired(own: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return p of the two-sided paired t-test; None for fewer than two pairs or an infinite one, 1 where all are equal.

    Examples
    --------
    >>> round(paired([0.9, 0.8, 0.85], [0.3, 0.9, 0.0]), 4)
    0.2543
    """
    apart = [a - b for a, b in zip(own, theirs, strict=True)]
    if not all(map(isfinite, apart)):
        return None
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
    """Return half of Student's 95 % interval of the mean; None for fewer than two values, or an infinite one."""
    if len(values) < 2 or not all(map(isfinite, values)):
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
