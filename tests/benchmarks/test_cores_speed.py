"""What a second core is worth to a run of the CNN, where two are idle."""

from itertools import islice
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import ratio

from ross_flwr import resolve
from ross_flwr.engine.batched import Batched
from ross_flwr.engine.threads import cores
from ross_flwr.runs.local import LocalRun

MNIST = Path(__file__).parents[3] / "shared/data"
KEYS = {
    "dataset": "mnist",
    "data-path": str(MNIST),
    "model": "cnn",
    "topology": "ring",
    "batch-size": 32,
    "attackers": 0,
    "num-rounds": 10**6,
    "evaluate-every": 10**6,
    "engine": "loop",
}
CASES = {
    "dpsgd": {"algorithm": "dpsgd"},
    "ross": {"algorithm": "ross", "validation-size": 200, "validation-batch": 10},
    "ross-plus": {"algorithm": "ross-plus"},
    "dpsgd, tested": {"algorithm": "dpsgd", "evaluate-every": 1},
}
ROUNDS = {"dpsgd": 20, "ross": 2, "ross-plus": 2, "dpsgd, tested": 1}


@pytest.mark.skipif(not (MNIST / "MNIST").is_dir(), reason="needs MNIST in shared/data beside the checkout")
@pytest.mark.parametrize("name", CASES)
def test_two_cores_are_worth_more_than_one(name: str, benchmark: BenchmarkFixture, monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    if cores() < 2:
        pytest.skip("needs two cores")
    one, two = (LocalRun(resolve(KEYS | CASES[name])) for _ in range(2))
    two.host.engine = Batched(2, stacking=False)
    each = {id(run): run.rounds() for run in (one, two)}

    def some(run: LocalRun) -> None:
        assert len(list(islice(each[id(run)], ROUNDS[name]))) == ROUNDS[name]

    assert ratio(benchmark, lambda: some(two), lambda: some(one), repeats=9) >= 1.3
