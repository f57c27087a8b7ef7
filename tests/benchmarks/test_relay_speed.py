"""What blocks of agents are worth in Flower's simulation engine, whose price is per message and not per agent.

The engine hands a node its next message every 0.1 s: no method with one exchange a round does more than 10 rounds/s.
"""

from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp import Grid
from pytest_benchmark.fixture import BenchmarkFixture
from simulation import simulate

from ross_flwr import PeerRelay
from ross_flwr.flower.client_app import app
from ross_flwr.flower.records import record_of

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


WARM_UP = 5
"""Rounds that are not counted: Ray starts, data loads, memory grows."""


def rounds_per_second(num_nodes: int, num_rounds: int, **more: Any) -> float:
    """Return the rate over `num_rounds` rounds of D-PSGD on 100 agents after the warm-up, without the final test."""
    lines: list[dict[str, Any]] = []
    total = WARM_UP + num_rounds + 1

    def play(grid: Grid) -> None:
        relay = PeerRelay(**OPTIONS, **more, num_rounds=total, test_size=100)
        model = relay.assembly.task.model
        relay.start(grid, record_of(model.named(model.initial)), total)
        lines.extend(relay.history.lines)

    simulate(num_nodes, app, play)
    assert not any(line["absent"] or line["missing"] for line in lines)
    return num_rounds / sum(line["seconds"] for line in lines[WARM_UP:-1])


@pytest.mark.skipif(not (MNIST / "MNIST").is_dir(), reason="needs MNIST in shared/data beside the checkout")
def test_two_nodes_of_fifty_agents_are_several_times_as_fast_as_a_hundred_of_one(
    benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    single = rounds_per_second(100, 8)
    in_context = rounds_per_second(2, 40)
    in_files = [rounds_per_second(2, 40, state_dir=str(tmp_path))]
    ratio = in_files[0] / single
    benchmark.group = f"{ratio:.1f} times the speed of one agent a node, {in_context / single:.1f} without state-dir"
    benchmark.pedantic(
        lambda: in_files.append(rounds_per_second(2, 40, state_dir=str(tmp_path))), rounds=1, iterations=1
    )
    benchmark.extra_info.update(single=single, in_context=in_context, in_files=in_files)
    print(f"\nrounds/s: a hundred nodes {single:.2f}, two {in_context:.2f}, two with state-dir {in_files}")
    assert max(in_files) / single >= 5
