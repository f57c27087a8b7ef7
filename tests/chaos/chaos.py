"""Faults on real nodes: a process each, over `direct` with TLS.

    python tests/chaos/chaos.py --faults 500 --seed 0

It exits with code 1 at the first schedule of faults that a run does not survive. README.md says what is checked.
"""

import argparse
import random
import socket
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from cluster import NODES, PACE, PATIENCE, SURVIVORS, Run, until
from faults import FAULTS, OUTAGES
from usage import usage

EXPECTED = "expired on"
"""The only error with which a node may end: a slow machine starts it after its certificate of a few seconds."""

AT_ONCE = 40
"""Faults in one run."""
MORE = {"MB": 30, "descriptors": 8, "threads": 8}
"""By how much more of them a survivor may use in the end than at first."""


def schedule(number, seed):
    """Return steps of up to three faults at a time, with who and how long; every kind occurs before any does again."""
    draw, steps, bag = random.Random(seed), [], []
    while number:
        step, victims = [], draw.sample(range(len(SURVIVORS), NODES), NODES - len(SURVIVORS))
        for who in victims[: min(number, draw.randint(1, 3))]:
            bag = bag or draw.sample(sorted(FAULTS), len(FAULTS))
            kind = bag.pop()
            other = draw.choice([k for k in range(NODES) if k != who])
            step.append((kind, who, draw.choice([(who, other), (other, who)])))
        number -= len(step)
        steps.append((step, draw.uniform(2.5, 3.5) * PATIENCE))
    return steps


def survive(number, seed):
    """Inject so many faults into one run, check that it survives them, and return what happened."""
    steps = schedule(number, seed)
    expire = "certificate expires"
    seconds = sum(length + PATIENCE + 5 * any(kind == expire for kind, *_ in step) for step, length in steps)
    outages = []
    with Run(int((seconds + 12) / PACE)) as run:
        until(lambda: min(node.round for node in run.nodes) >= 40, "the run does not start")
        before = {k: usage(run.nodes[k].process.pid) for k in SURVIVORS}
        for step, length in steps:
            first = run.round
            with ExitStack() as stack:
                for kind, who, way in step:
                    print(f"  round {first}: {kind}, node {who}, way {way}", flush=True)
                    stack.enter_context(FAULTS[kind](run, who, way))
                time.sleep(length)
            outages += [(kind, who, first, run.round) for kind, who, _ in step if kind in OUTAGES]
            time.sleep(PATIENCE)
        assert run.round < run.num_rounds - 20, "the run was over before the faults were"
        for node in run.nodes:
            node.shared[2] = 5
        until(lambda: run.round > run.num_rounds - 10, "the run stands still", 120)
        after = {k: usage(run.nodes[k].process.pid) for k in SURVIVORS}
        until(lambda: all(node.outcome for node in run.nodes), "not all nodes finish", 60)
    check(run, outages, before, after)
    return run, before, after


def check(run, outages, before, after):
    for node in run.nodes:
        assert all(EXPECTED in error for error in node.errors), node.errors
        report, sound = node.outcome
        assert sound, f"the model of {node.name} is not finite"
        assert report.rounds[-1].number == run.num_rounds, f"{node.name} ends in {report.rounds[-1].number}"
        assert report.rounds[-1].agents[0].accuracy > 0.7, f"{node.name} has learned nothing"
        for pid in node.pids:
            assert not Path(f"/proc/{pid}").exists(), f"process {pid} is left"
        assert all(not each.agents[0].missing for each in report.rounds[-10:-3]), f"{node.name} is not in step again"
    for kind, who, first, last in outages:
        told = [
            each
            for k in SURVIVORS
            for each in run.nodes[k].outcome[0].rounds
            if first <= each.number <= last + 5 and who in each.agents[0].missing
        ]
        assert told or last < first + 3, f"nobody tells of node {who}: {kind} in rounds {first} to {last}"
    for k in SURVIVORS:
        assert run.nodes[k].starts == 1, run.nodes[k].errors
        for name, most, then, now in zip(
            ("MB", "descriptors", "threads"), (30, 8, 8), before[k], after[k], strict=True
        ):
            assert now <= then + most, f"n{k}: {name} grew from {then} to {now}"
    for address in run.addresses:
        host, port = address.split(":")
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind((host, int(port)))
            again.listen()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    survived, dropped, seed, began = Counter(), Counter(), options.seed, time.monotonic()
    while survived.total() < options.faults:
        number = min(AT_ONCE, options.faults - survived.total())
        run, before, after = survive(number, seed)
        kinds = Counter(kind for step, _ in schedule(number, seed) for kind, *_ in step)
        survived += kinds
        reports = [node.outcome[0] for node in run.nodes]
        missing = sum(len(each.agents[0].missing) for report in reports for each in report.rounds)
        for report in reports:
            dropped.update(report.dropped)
        grown = ", ".join(f"n{k} {now[0] - before[k][0]:+.1f} MB" for k, now in after.items())
        took = time.monotonic() - began
        print(f"{took:5.0f} s, seed {seed}: {survived.total()} faults survived; {missing} missing; {grown}", flush=True)
        seed += 1
    for kind, count in sorted(survived.items()):
        print(f"{count:5d}  {kind}")
    print("counted by the nodes:", dict(dropped))


if __name__ == "__main__":
    main()
