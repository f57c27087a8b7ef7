"""Data is decoded once, and held once however many agents learn from it."""

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

DATA = Path(__file__).parents[3] / "shared/data"

LOAD = """
import sys, time
from ross_flwr.data import load
began = time.perf_counter()
source = load("huggingface", sys.argv[1])
assert len(source.train) == 50_000 and len(source.test) == 10_000
print(time.perf_counter() - began)
"""

RUN = """
import resource, sys
from ross_flwr import resolve
from ross_flwr.runs.local import LocalRun
options = {"dataset": "mnist", "data-path": sys.argv[1], "num-agents": 100, "hidden": 100, "num-rounds": 3}
run = LocalRun(resolve(options | {"algorithm": sys.argv[2], "evaluate-every": 3, "attackers": 0}))
assert len(list(run.rounds())) == 3
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""


def measured(code: str, *arguments: object) -> float:
    """Return the number that a process of its own prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason="needs CIFAR-10 in shared/data beside the checkout")
def test_cifar10_is_in_memory_in_30_seconds_and_the_next_time_in_3(
    benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    first = measured(LOAD, DATA / "cifar10")
    again = [measured(LOAD, DATA / "cifar10") for _ in range(2)]
    benchmark.pedantic(measured, (LOAD, DATA / "cifar10"), rounds=1)
    benchmark.group = f"CIFAR-10 from parquet: {first:.1f} s, then {min(again):.2f} s"
    benchmark.extra_info.update(first_seconds=round(first, 2), next_seconds=round(min(again), 3))
    assert first < 30
    assert min(again) < 3


@pytest.mark.skipif(not (DATA / "MNIST").is_dir(), reason="needs MNIST in shared/data beside the checkout")
@pytest.mark.parametrize("method", ["dpsgd", "qg-dsgdm"])
def test_100_agents_on_mnist_live_in_1_5_gb(benchmark: BenchmarkFixture, method: str) -> None:
    peak = benchmark.pedantic(measured, (RUN, DATA, method), rounds=1)
    benchmark.group = f"100 agents on MNIST, {method}: {peak:.2f} GB at most"
    benchmark.extra_info["peak_gb"] = round(peak, 3)
    assert peak < 1.5
