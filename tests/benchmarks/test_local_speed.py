"""How close the local engine comes to its limit: a hand-written PyTorch loop over flat vectors."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import ratio
from torch import Tensor, nn

from ross_flwr import resolve
from ross_flwr.runs.local import LocalRun

MNIST = Path(__file__).parents[3] / "shared/data"
ROUNDS = 50


def hand_written(run: LocalRun) -> list[Tensor]:
    """D-PSGD on a ring as one would write it for this case alone: the same data, batches, model and arithmetic."""
    task = run.assembly.task
    source, n = task.source, run.run.num_agents
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    parameters = list(module.parameters())
    sizes = [p.numel() for p in parameters]
    images, labels = source.train.images, source.train.labels
    gain, offset = 1 / (255 * source.std[0]), -source.mean[0] / source.std[0]
    orders = [torch.randperm(len(part)) for part in task.shares.parts]
    models = [task.model.initial.clone() for _ in range(n)]
    for t in range(ROUNDS):
        mixed = [(models[i] + models[i - 1] + models[(i + 1) % n]).mul_(1 / 3) for i in range(n)]
        for i in range(n):
            for p, view in zip(parameters, models[i].split(sizes), strict=True):
                p.data = view.view(p.shape)
            position = t % (len(orders[i]) // 32) * 32
            rows = task.shares.parts[i][orders[i][position : position + 32]]
            inputs = images[rows].float().mul_(gain).add_(offset)
            loss = nn.functional.cross_entropy(module(inputs), labels[rows])
            gradient = torch.cat([g.view(-1) for g in torch.autograd.grad(loss, parameters)])
            mixed[i].sub_(gradient, alpha=0.1)
        models = mixed
    return models


@pytest.mark.skipif(not (MNIST / "MNIST").is_dir(), reason="needs MNIST in shared/data beside the checkout")
def test_the_local_engine_runs_at_90_percent_of_a_hand_written_loop(benchmark: BenchmarkFixture) -> None:
    run = LocalRun(
        resolve(
            {
                "algorithm": "dpsgd",
                "dataset": "mnist",
                "data-path": str(MNIST),
                "topology": "ring",
                "hidden": 100,
                "batch-size": 32,
                "attackers": 0,
                "num-rounds": 10**6,
                "evaluate-every": 10**6,
            }
        )
    )
    rounds = run.rounds()

    def ours() -> None:
        assert len(list(islice(rounds, ROUNDS))) == ROUNDS

    measured = ratio(benchmark, ours, lambda: hand_written(run), repeats=9)
    benchmark.extra_info["rounds_per_second"] = round(ROUNDS / benchmark.stats.stats.min, 1)
    assert measured >= 0.90
