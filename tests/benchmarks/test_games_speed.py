"""What a round of ROSS in single steps costs beside its gradients: the CNN, ten agents, |Q_i| = 200, one thread."""

from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ross_flwr import resolve
from ross_flwr.runs.local import LocalRun

MNIST = Path(__file__).parents[3] / "shared/data"
KEYS = {
    "algorithm": "ross",
    "model": "cnn",
    "dataset": "mnist",
    "data-path": str(MNIST),
    "attackers": 0,
    "validation-size": 200,
    "num-rounds": 10**6,
    "evaluate-every": 10**6,
    "engine": "loop",
}
CHEAP = {"shapley": "stratified", "permutations": 1, "validation-batch": 32}
CASES = {
    "complete": (25, {"topology": "complete"}),
    "complete, 12 coalitions on 32 examples": (2, {"topology": "complete"} | CHEAP),
    "ring": (7, {"topology": "ring"}),
    "ring, 5 coalitions on 32 examples": (2.5, {"topology": "ring"} | CHEAP),
}
"""At most how many times the gradients' time, and the keys."""


@pytest.mark.skipif(not (MNIST / "MNIST").is_dir(), reason="needs MNIST in shared/data beside the checkout")
@pytest.mark.parametrize("name", CASES)
def test_a_round_costs_a_few_times_its_gradients(name: str, benchmark: BenchmarkFixture) -> None:
    most, keys = CASES[name]
    rounds = LocalRun(resolve(KEYS | keys)).rounds()
    list(islice(rounds, 1))

    def one() -> tuple[float, dict[str, Any]]:
        began = perf_counter()
        line = next(rounds)
        return perf_counter() - began, line

    timed = [one() for _ in range(5)]
    ratio = median(seconds / line["time"]["gradients"] for seconds, line in timed)
    benchmark.group = f"{ratio:.1f} times the time of its gradients"
    benchmark.pedantic(one, rounds=2, iterations=1)
    assert ratio <= most
