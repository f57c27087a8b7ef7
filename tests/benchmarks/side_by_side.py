"""Time two pieces of work in turn, A B A B …, so that a machine whose speed drifts slows both alike."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

from pytest_benchmark.fixture import BenchmarkFixture


def ratio(
    benchmark: BenchmarkFixture | None, ours: Callable[[], object], baseline: Callable[[], object], *, repeats: int
) -> float:
    """Return the median of (baseline's seconds / ours), our speed as a multiple of the baseline's.

    The benchmark's table, if there is one, shows our time and, as its group's name, the ratio; both stand in its
    `extra_info` too.
    """
    ratios, seconds = [], []

    def both() -> None:
        began = perf_counter()
        baseline()
        between = perf_counter()
        ours()
        ratios.append((between - began) / (perf_counter() - between))
        seconds.append(between - began)

    ours(), baseline()
    for _ in range(repeats):
        both()
    result = median(ratios)
    if benchmark is None:
        return result
    benchmark.group = f"{result:.2f} times the baseline's speed"
    benchmark.pedantic(ours, rounds=2, iterations=1)
    benchmark.extra_info.update(ratio=round(result, 3), baseline_seconds=round(median(seconds), 4))
    return result
