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


class HandWritten:
    """D-PSGD as one would write it for this case alone: the same graph, data, batches, model and arithmetic."""

    def __init__(self, run: LocalRun, rounds: int) -> None:
        self.task, self.rounds = run.assembly.task, rounds
        self.neighbors = [agent.neighbors for agent in run.host.agents.values()]
        self.module = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
        self.parameters = list(self.module.parameters())
        self.sizes = [p.numel() for p in self.parameters]
        self.orders = [torch.randperm(len(part)) for part in self.task.shares.parts]
        self.models = [self.task.model.initial.clone() for _ in self.neighbors]

    def gradient(self, i: int, t: int) -> Tensor:
        source, order = self.task.source, self.orders[i]
        gain, offset = 1 / (255 * source.std[0]), -source.mean[0] / source.std[0]
        for p, view in zip(self.parameters, self.models[i].split(self.sizes), strict=True):
            p.data = view.view(p.shape)
        position = t % (len(order) // 32) * 32
        rows = self.task.shares.parts[i][order[position : position + 32]]
        inputs = source.train.images[rows].float().mul_(gain).add_(offset)
        loss = nn.functional.cross_entropy(self.module(inputs), source.train.labels[rows])
        return torch.cat([g.view(-1) for g in torch.autograd.grad(loss, self.parameters)])

    def gradients(self) -> None:
        for t in range(self.rounds):
            for i in range(len(self.models)):
                self.gradient(i, t)

    def whole(self) -> None:
        for t in range(self.rounds):
            mixed = []
            for model, neighbors in zip(self.models, self.neighbors, strict=True):
                total = model.clone()
                for j in neighbors:
                    total += self.models[j]
                mixed.append(total.mul_(1 / (len(neighbors) + 1)))
            for i, model in enumerate(mixed):
                model.sub_(self.gradient(i, t), alpha=0.1)
            self.models = mixed


@pytest.mark.skipif(not (MNIST / "MNIST").is_dir(), reason="needs MNIST in shared/data beside the checkout")
@pytest.mark.parametrize(
    ("agents", "beside", "number", "least"),
    [(10, "whole", 50, 1.1), (100, "whole", 5, 1.1), (1000, "whole", 1, 0.7), (1000, "gradients", 1, 0.5)],
    ids=["ten agents", "a hundred", "a thousand", "a thousand beside their gradients alone"],
)
def test_the_local_engine_beside_a_hand_written_loop(
    agents: int, beside: str, number: int, least: float, benchmark: BenchmarkFixture
) -> None:
    run = LocalRun(
        resolve(
            {
                "algorithm": "dpsgd",
                "dataset": "mnist",
                "data-path": str(MNIST),
                "partition": "iid",
                "num-agents": agents,
                "topology": "ring" if agents == 10 else "random-regular",
                "topology-degree": 4,
                "hidden": 100,
                "batch-size": 32,
                "attackers": 0,
                "num-rounds": 10**6,
                "evaluate-every": 10**6,
            }
        )
    )
    rounds, written = run.rounds(), HandWritten(run, number)

    def ours() -> None:
        assert len(list(islice(rounds, number))) == number

    measured = ratio(benchmark, ours, getattr(written, beside), repeats=9)
    benchmark.extra_info["rounds_per_second"] = round(number / benchmark.stats.stats.min, 1)
    assert measured >= least
