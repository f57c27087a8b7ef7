"""What a second core is worth to runs whose agents do not compute in one stack, where two are idle."""

from itertools import islice
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import ratio

from ross_flwr import resolve
from ross_flwr.engine.threads import cores
from ross_flwr.runs.local import LocalRun

DATA = Path(__file__).parents[3] / "shared/data"
KEYS = {
    "topology": "ring",
    "batch-size": 32,
    "attackers": 0,
    "num-rounds": 10**6,
    "evaluate-every": 10**6,
}
CNN = {"dataset": "mnist", "data-path": str(DATA), "model": "cnn"}
CIFAR = {"dataset": "huggingface", "data-path": str(DATA / "cifar10")}
CASES = {
    "dpsgd": (60, CNN | {"algorithm": "dpsgd"}),
    "ross": (10, CNN | {"algorithm": "ross", "validation-size": 200, "validation-batch": 10}),
    "ross-plus": (10, CNN | {"algorithm": "ross-plus"}),
    "dpsgd, tested": (2, CNN | {"algorithm": "dpsgd", "evaluate-every": 1}),
    "dpsgd, private": (10, CNN | {"algorithm": "dpsgd", "dp-clip": 1.0, "dp-noise": 1.0}),
    "dpsgd, shufflenet": (2, CIFAR | {"algorithm": "dpsgd", "model": "shufflenet_v2_x0_5"}),
    "dpsgd, resnet18": (1, CIFAR | {"algorithm": "dpsgd", "model": "resnet18"}),
    "diloco, transformer": (1, {"task": "language-model", "algorithm": "diloco"}),
}
"""How many rounds of what. Threads compute in the first four, processes in the others."""


@pytest.mark.skipif(not (DATA / "MNIST").is_dir(), reason="needs MNIST and CIFAR-10 in shared/data beside the checkout")
@pytest.mark.parametrize("name", CASES)
def test_two_cores_are_worth_more_than_one(name: str, benchmark: BenchmarkFixture, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    if cores() < 2:
        pytest.skip("needs two cores")
    number, keys = CASES[name]
    one, two = (LocalRun(resolve(KEYS | keys | {"engine": engine})) for engine in ("loop", "auto"))
    each = {id(run): run.rounds() for run in (one, two)}

    def some(run: LocalRun) -> None:
        assert len(list(islice(each[id(run)], number))) == number

    assert ratio(benchmark, lambda: some(two), lambda: some(one), repeats=9) >= 1.3
    two.host.engine.close()
