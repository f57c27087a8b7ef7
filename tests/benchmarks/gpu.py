"""A round of ROSS with 100 agents on a GPU, or a CPU without one, beside what the device can do.

Run `python tests/benchmarks/gpu.py [key=value …]`; the keys are those of ``ross-flwr config``. It prints the seconds of
a round, its floating-point operations and how many the device makes in a large matrix product in that time, and the
bytes that have to move at least (each gradient and each average reads and writes whole vectors) beside a large copy.
"""

import sys
from itertools import islice
from statistics import median
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode

from ross_flwr import resolve
from ross_flwr.cli.keys import read
from ross_flwr.runs.local import LocalRun

SETTING = {
    "algorithm": "ross",
    "num-agents": 100,
    "topology": "random-regular",
    "topology-degree": 4,
    "partition": "iid",
    "too-few": "top-up",
    "batch-size": 8,
    "attackers": 0,
    "num-rounds": 10**6,
    "evaluate-every": 10**6,
}


def seconds(work, device: torch.device, repeats: int = 5) -> float:
    """Return the median of the seconds that some work takes on the device."""

    def timed() -> float:
        began = perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter() - began

    timed()
    return median(timed() for _ in range(repeats))


def main(entries: list[str]) -> None:
    """Measure a run with these keys."""
    run = LocalRun(resolve(SETTING | read(entries)))
    device, size = run.assembly.task.model.device, run.assembly.task.model.size
    rounds = run.rounds()
    next(rounds)
    with FlopCounterMode(display=False) as counter:
        line = next(rounds)
    flops = counter.get_total_flops()
    took = seconds(lambda: list(islice(rounds, 1)), device)
    side = 8192 if device.type == "cuda" else 1024
    square, long = torch.randn(side, side, device=device), torch.randn(2**24, device=device)
    rate = 2 * side**3 / seconds(lambda: square @ square, device)
    bandwidth = 8 * len(long) / seconds(long.clone, device)
    sent = line["bytes"]
    moved = 3 * 4 * size * line["gradients"] + 2 * sent
    print(f"{run.host.engine.name} engine on {device}: {took:.4f} s a round of {run.run.num_agents} agents")
    print(f"{line['gradients']} gradients, {line['utilities']} utilities, {size} parameters, {sent / 1e6:.1f} MB sent")
    for what, amount, limit in (("FLOP", flops, rate), ("bytes", moved, bandwidth)):
        print(f"{amount:.3g} {what}: {amount / took / limit:.1%} of the {limit:.3g} {what}/s that the device makes")


if __name__ == "__main__":
    main(sys.argv[1:])
