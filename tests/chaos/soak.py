"""Eight agents over `direct` with TLS, a process each, for many rounds: what memory, descriptors, threads and rate do.

    python tests/chaos/soak.py --rounds 20000

It prints a line for every thousand rounds, and exits with code 1 if the memory of an agent grows by 1 MB in 1,000
rounds, or descriptors grow, or threads by more than the one that gRPC adds to its pool when it is busy. The first
thousand rounds, in which memory settles, do not count.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
PATHS = [str(TESTS), str(TESTS / "benchmarks")]
sys.path[:0] = PATHS
os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])
os.environ["OMP_NUM_THREADS"] = "1"

from processes import Nodes, direct, issue  # noqa: E402
from usage import usage  # noqa: E402

KEYS = {"algorithm": "dpsgd", "num-agents": 8, "topology": "ring", "attackers": 0, "hidden": 32}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20_000)
    rounds, samples = parser.parse_args().rounds, []
    with tempfile.TemporaryDirectory() as folder, Nodes(direct, KEYS, issue(Path(folder), 8)) as nodes:
        nodes.run(100)
        for number in range(0, rounds, 1000):
            began = time.monotonic()
            nodes.run(min(1000, rounds - number))
            took = time.monotonic() - began
            samples.append(np.array([usage(process.pid) for process in nodes.processes]))
            memory, descriptors, threads = samples[-1].mean(0)
            line = f"{number + 1000:6d} rounds: {1000 / took:6.1f} rounds/s, {memory:7.2f} MB, "
            print(line + f"{descriptors:.1f} descriptors, {threads:.1f} threads", flush=True)
    memory, descriptors, threads = np.array(samples)[1:].transpose(2, 0, 1)
    slopes = np.polyfit(np.arange(len(memory)), memory, 1)[0]
    print(f"slope of memory by agent, MB per 1,000 rounds: {', '.join(f'{slope:+.3f}' for slope in slopes)}")
    flat = (descriptors[-1] <= descriptors[0]).all() and (threads[-1] <= threads[0] + 1).all()
    return 0 if slopes.max() < 1 and flat else 1


if __name__ == "__main__":
    sys.exit(main())
