"""How close the local engine comes to a hand-written loop that trains transformers."""

from itertools import islice

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import ratio
from torch import Tensor
from torch.nn.functional import cross_entropy

from ross_flwr import resolve
from ross_flwr.runs.local import LocalRun

ROUNDS, AGENTS, BATCH, CONTEXT = 2, 8, 4, 128


def hand_written(run: LocalRun) -> list[Tensor]:
    """D-PSGD on a ring as one would write it for this case alone: the same text, batches, model and arithmetic."""
    task = run.assembly.task
    windows, n = task.source.train, AGENTS
    module = task.shape.build(0)
    parameters = list(module.parameters())
    sizes = [p.numel() for p in parameters]
    orders = [torch.randperm(len(part)) for part in task.shares.parts]
    models = [task.model.initial.clone() for _ in range(n)]
    for t in range(ROUNDS):
        mixed = [(models[i] + models[i - 1] + models[(i + 1) % n]).mul_(1 / 3) for i in range(n)]
        for i in range(n):
            for p, view in zip(parameters, models[i].split(sizes), strict=True):
                p.data = view.view(p.shape)
            rows = task.shares.parts[i][orders[i][t * BATCH : (t + 1) * BATCH]]
            scores = module(windows.inputs[rows].long())
            loss = cross_entropy(scores.flatten(0, 1), windows.targets[rows].long().flatten())
            gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])
            mixed[i].sub_(gradient, alpha=0.1)
        models = mixed
    return models


def test_a_million_parameters_learn_at_90_percent_of_a_hand_written_loop(benchmark: BenchmarkFixture) -> None:
    keys = {"task": "language-model", "model": f"transformer(layers=5,width=128,heads=4,context={CONTEXT})"}
    keys |= {"algorithm": "dpsgd", "num-agents": AGENTS, "topology": "ring", "batch-size": BATCH, "attackers": 0}
    run = LocalRun(resolve({**keys, "validation-size": 0, "num-rounds": 10**6, "evaluate-every": 10**6}))
    assert 1_000_000 < run.assembly.task.model.size < 1_100_000
    rounds = run.rounds()

    def ours() -> None:
        assert len(list(islice(rounds, ROUNDS))) == ROUNDS

    measured = ratio(benchmark, ours, lambda: hand_written(run), repeats=5)
    benchmark.extra_info["tokens_per_second"] = round(ROUNDS * AGENTS * BATCH * CONTEXT / benchmark.stats.stats.min)
    assert measured >= 0.90
