"""What `ross-flwr plan` says of three deployments on this machine, beside what they do.

Ten processes that talk directly, four, and four SuperNodes whose messages a SuperLink relays: run
`PYTHONPATH=tests python tests/benchmarks/plan.py`; it takes a few minutes. Where others use the processors too,
processes have only a share of them. So as many busy ones are timed before and after, and the planned time is divided by
the share that they got. Where it is known, the processor time itself is printed too.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from os import cpu_count
from pathlib import Path
from statistics import fmean
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from processes import Nodes, direct, issue
from test_direct_speed import seconds_of_rounds

from ross_flwr import resolve
from ross_flwr.plan.forecast import forecast

RING: dict[str, Any] = {"algorithm": "dpsgd", "topology": "ring", "attackers": 0, "evaluate-every": 10**6}
TEN = {**RING, "num-agents": 10, "hidden": 1100}
"""On the digits, 82,510 parameters."""

FOUR = {**RING, "algorithm": "ross-plus", "local-steps": 1, "model": "cnn", "num-agents": 4}

SPIN = """
from time import perf_counter, process_time
input()
began, before = perf_counter(), process_time()
while perf_counter() - began < 2:
    sum(range(1000))
print((process_time() - before) / 2)
"""


def processors(number: int) -> float:
    """Return how many processors so many busy processes get."""
    command = [sys.executable, "-S", "-c", SPIN]
    spinning = [Popen(command, stdin=PIPE, stdout=PIPE, text=True) for _ in range(number)]
    for each in spinning:
        each.stdin.write("\n")
        each.stdin.flush()
    return sum(float(each.communicate()[0]) for each in spinning)


def work(pids: Sequence[int | None]) -> float:
    """Return the seconds that processes have worked."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / 100


def directly(keys: dict[str, Any], rounds: int, carrier: Any = direct) -> tuple[float, float]:
    """Return seconds, and processor seconds of all nodes, of a round of nodes that talk directly with TLS."""
    with TemporaryDirectory() as folder, Nodes(carrier, keys, issue(Path(folder), keys["num-agents"])) as nodes:
        nodes.run(5)
        pids = [each.pid for each in nodes.processes]
        began, before = perf_counter(), work(pids)
        nodes.run(rounds)
        return (perf_counter() - began) / rounds, (work(pids) - before) / rounds


def relayed(keys: dict[str, Any], rounds: int) -> tuple[float, None]:
    """Return seconds of a round of four SuperNodes with TLS, after the first, in which processes start."""
    with TemporaryDirectory() as folder:
        return fmean(seconds_of_rounds(Path(folder), "relay", rounds, keys)[1:]), None


def tell(name: str, keys: dict[str, Any], run: Callable[[], tuple[float, float | None]]) -> None:
    """Print a forecast beside a deployment."""
    config, share = resolve(keys), [processors(keys["num-agents"])]
    said = [forecast(config)]
    seconds, worked = run()
    said.append(forecast(config))
    share.append(processors(keys["num-agents"]))
    full = min(cpu_count() or 1, keys["num-agents"])
    alone = fmean(each.seconds for each in said) * full / fmean(share)
    print(
        f"{name}: {seconds:.4f} s a round; planned {alone:.4f}, of which that is {seconds / alone:.2f} times; "
        f"{share[0]:.2f} processors to be had before, {share[1]:.2f} after",
        flush=True,
    )
    if worked:
        computed = fmean(each.nodes * (each.computing + each.handling) for each in said)
        print(
            f"  {worked:.4f} s of processor time a round; planned {computed:.4f}, {worked / computed:.2f} times",
            flush=True,
        )


if __name__ == "__main__":
    tell("ten processes", {**TEN, "transport": "direct"}, partial(directly, TEN, 40))
    tell("four processes", {**FOUR, "transport": "direct"}, partial(directly, FOUR, 40))
    tell("four SuperNodes, relay", {**FOUR, "transport": "relay"}, partial(relayed, FOUR, 4))
