"""Whether weights by gains beat uniform ones: ``python -m ross_flwr.studies.gains``.

Six agents on a ring teach a pretrained transformer arithmetic by GRPO. Each has mostly problems with one operator, and
is tested on all. Rewards have the scales 1, 10 and 100. A liar sends the initial model and reports a gain of 10.
"""

from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor

from ross_flwr import graph
from ross_flwr.algorithms.algorithm import Algorithm
from ross_flwr.algorithms.fgrpo import FGRPO
from ross_flwr.algorithms.local_dsgd import LocalDSGD
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.rules import Mean
from ross_flwr.report.table import markdown, percent
from ross_flwr.runs.simulate import Result, simulate
from ross_flwr.tasks.arithmetic import Arithmetic
from ross_flwr.threats.adversary import Adversary
from ross_flwr.threats.attacks import Attack, View
from ross_flwr.threats.threats import Threats

__all__ = ["METHODS", "SCENARIOS", "main", "run"]

AGENTS = 6
ROUNDS = 20
COMMON: dict[str, Any] = {"learning_rate": 0.005, "local_steps": 2, "optimizer": "adam"}
METHODS: dict[str, Algorithm] = {
    "uniform (`local-dsgd`)": LocalDSGD(**COMMON),
    "`fgrpo`, reported": FGRPO(**COMMON),
    "`fgrpo`, measured": FGRPO(rewards="measured", **COMMON),
}
SCENARIOS: dict[str, tuple[tuple[float, ...], bool]] = {
    "1 : 10 : 100": ((1.0, 10.0, 100.0), False),
    "the same, and a liar": ((1.0, 10.0, 100.0), True),
}
"""The scales of rewards, and whether agent 0 lies."""


@dataclass(frozen=True)
class Boast(Attack):
    """Learn nothing, and report a gain of 10."""

    blind = True

    def lie(self, view: View) -> Tensor:
        """Return the gain, or the initial model."""
        return torch.tensor([10.0]) if view.name == "gain" else cast(ModuleObjective, view.objective).model.initial


def run(algorithm: Algorithm, scales: tuple[float, ...], liar: bool, seed: int, rounds: int = ROUNDS) -> Result:
    """Run a method in a scenario."""
    liars = frozenset({0} if liar else ())
    lies = Adversary(
        attack=Boast(), attackers=liars, num_agents=AGENTS, rule=Mean(), learning_rate=algorithm.learning_rate
    )
    return simulate(
        algorithm,
        graph.ring(AGENTS),
        partial(Arithmetic, scales=scales),
        rounds=rounds,
        evaluate_every=rounds,
        seed=seed,
        threats=Threats(attackers=liars, lies=[lies]),
    )


def main() -> None:
    """Print the honest agents' mean share of right answers, in each scenario at three seeds."""
    rows = [["", *METHODS]]
    for scenario, (scales, liar) in SCENARIOS.items():
        cells = []
        for method in METHODS.values():
            found = [run(method, scales, liar, seed).history[-1]["accuracy"]["mean"] for seed in range(3)]
            cells.append(f"{percent(fmean(found))} ({', '.join(map(percent, found))})")
        rows.append([scenario, *cells])
    print(markdown(rows))


if __name__ == "__main__":
    main()
