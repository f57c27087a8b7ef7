"""Fine-tuning a small transformer on sources that no two agents mix alike: DECA beside decentralized Adam.

``python tests/benchmarks/fine_tuning.py`` trains a model on half of the packages of Python's standard library, deals
all of them to eight agents on a ring (Dirichlet 0.1 by package), lets each method go on for as many tokens, and prints
bits per byte on text of all packages.
"""

import sys
from math import log
from typing import Any

import networkx as nx
import torch

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import resolve
from ross_flwr.runs.assemble import assemble, limit_threads
from ross_flwr.runs.simulate import simulate

SETTING = {
    "task": "language-model",
    "model": "transformer(layers=2,width=64,heads=4,context=64)",
    "num-agents": 8,
    "topology": "ring",
    "partition-alpha": 0.1,
    "too-few": "top-up",
    "batch-size": 8,
    "validation-size": 0,
    "algorithm": "dadam",
    "attackers": 0,
}
PRETRAINING, PASSES, RATE = 400, 160, 1e-3
DISPLACEMENTS = ("none", "paper", "negated", "by-rate", "as-gradient")


def pretrained(task: Any) -> torch.Tensor:
    """Return a model that Adam has trained on the first half of the sources, shape [P]."""
    task.model.bind(task.model.initial.clone())
    module, rows = task.model.module.train(), task.source.train
    known = (rows.labels < task.source.num_classes // 2).nonzero().flatten()
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(PRETRAINING):
        batch = task.part(known).batch(torch.randint(len(known), (32,), generator=generator))
        optimizer.zero_grad()
        torch.autograd.backward(task.loss(module(batch.inputs), batch.targets))
        optimizer.step()
    return torch.Tensor(task.model.read())


def main(seeds: list[int]) -> None:
    """Print a line for each method and seed."""
    limit_threads()
    for seed in seeds:
        task: Any = assemble(resolve(SETTING | {"seed": seed})).task
        task.model.initial = pretrained(task)
        start = task.objective(0).test(task.model.initial)["loss"] / log(2)
        print(f"seed {seed}: {task.model.size:,} parameters, {start:.3f} bits per byte before", flush=True)
        methods = {
            "dadam": ALGORITHMS["dadam"](learning_rate=RATE),
            "dadam, moments at home": ALGORITHMS["dadam"](learning_rate=RATE, mix_momentum=False),
            **{
                f"deca, displacement={each}": ALGORITHMS["deca"](learning_rate=RATE, displacement=each)
                for each in DISPLACEMENTS
            },
        }
        for name, method in methods.items():
            result = simulate(method, nx.cycle_graph(8), task, rounds=PASSES, evaluate_every=PASSES, seed=seed)
            last = result.history[-1]
            own, mean = last["loss"]["mean"] / log(2), task.objective(0).test(result.consensus)["loss"] / log(2)
            sent = sum(line["bytes"] for line in result.history) / 8 / PASSES
            print(f"| {name:32} | {own:.3f} | {mean:.3f} | {sent / 1e3:.1f} kB per agent and pass |", flush=True)


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]] or [0])
