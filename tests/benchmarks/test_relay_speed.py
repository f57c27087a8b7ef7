"""What blocks of agents are worth in Flower's simulation engine, whose price is per message and not per agent."""

from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp import Grid
from pytest_benchmark.fixture import BenchmarkFixture
from simulation import simulate

from ross_flwr import PeerRelay
from ross_flwr.client_app import app
from ross_flwr.transport.records import record_of

MNIST = Path(__file__).parents[3] / "shared/data"
OPTIONS: dict[str, Any] = {
    "algorithm": "dpsgd",
    "num_agents": 100,
    "topology_degree": 4,
    "dataset": "mnist",
    "data_path": str(MNIST),
    "partition": "iid",
    "hidden": 100,
    "attackers": 0,
    "evaluate_every": 10**6,
}


def seconds_per_round(num_nodes: int, num_rounds: int) -> float:
    """Return the mean over rounds, of which the first, in which Ray starts and data loads, is left out."""
    lines: list[dict[str, Any]] = []

    def play(grid: Grid) -> None:
        relay = PeerRelay(**OPTIONS, num_rounds=num_rounds + 2, test_size=100)
        model = relay.experiment.model
        relay.start(grid, record_of(model.named(model.initial)), num_rounds + 2)
        lines.extend(relay.history.lines)

    simulate(num_nodes, app, play)
    assert not any(line["absent"] or line["missing"] for line in lines)
    return sum(line["seconds"] for line in lines[1:-1]) / num_rounds


@pytest.mark.skipif(not (MNIST / "MNIST").is_dir(), reason="needs MNIST in shared/data beside the checkout")
def test_two_nodes_of_fifty_agents_are_ten_times_as_fast_as_a_hundred_of_one(benchmark: BenchmarkFixture) -> None:
    single = seconds_per_round(100, num_rounds=4)
    blocks = [seconds_per_round(2, num_rounds=20)]
    benchmark.group = f"{single / blocks[0]:.1f} times the speed of one agent a node"
    benchmark.pedantic(lambda: blocks.append(seconds_per_round(2, num_rounds=20)), rounds=1, iterations=1)
    benchmark.extra_info.update(ratio=single / blocks[0], rounds_per_second=[1 / b for b in blocks], single=1 / single)
    print(f"\n100 nodes: {1 / single:.2f} rounds/s; two nodes: {1 / blocks[0]:.2f} and {1 / blocks[1]:.2f} rounds/s")
    assert single / min(blocks) >= 10
