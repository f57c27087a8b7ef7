"""Watch a process and those that it starts, and print what memory and time they take.

    python3 deploy/memory.py PID        prints when the process ends

Sizes are resident sets in MB. What processes share is counted in each of them. Of processes that QEMU emulates, the
emulator's own memory is told apart: its heap, its program, and the code that it has translated.
"""

import os
import re
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

AREA = re.compile(r"^[0-9a-f]+-[0-9a-f]+ (?P<rights>\S+) \S+ \S+ \S+ *(?P<file>.*)$")


class Use(NamedTuple):
    """MB without the emulator, MB of the emulator, and seconds of the processor so far."""

    memory: float
    emulator: float
    seconds: float


def below(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in below(int(child)))]


def name(pid: int) -> str:
    """Return which of the commands of Flower and ross_flwr a process runs, or which program at all."""
    words = [Path(word).name for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0")]
    return next((word for word in words if word.startswith(("flower-", "flwr-", "ross-"))), words[0])


def use(pid: int) -> Use:
    """Return what a process uses."""
    total = emulator = 0
    emulated = Path(f"/proc/{pid}/exe").readlink().name.startswith("qemu-")
    own = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if area := AREA.match(line):
            own = emulated and ("x" in area["rights"] or "[heap]" in area["file"] or "qemu-" in area["file"])
        elif line.startswith("Rss:"):
            size = int(line.split()[1])
            total += size
            emulator += own * size
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return Use((total - emulator) / 1e3, emulator / 1e3, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))


def main(pid: int) -> None:
    """Sample every two seconds until the process ends."""
    began = time.monotonic()
    uses: dict[str, list[Use]] = defaultdict(list)
    first: dict[str, float] = {}
    together: dict[int, list[float]] = defaultdict(list)
    while Path(f"/proc/{pid}/exe").exists():
        now: dict[str, Use] = {}
        with suppress(OSError):  # one of them has ended
            for each in below(pid):
                now[name(each)] = use(each)
        for what, used in now.items():
            first.setdefault(what, time.monotonic() - began)
            uses[what].append(used)
        together[len(now)].append(sum(used.memory for used in now.values()))
        time.sleep(2)
    for what, all_ in uses.items():
        memory, emulator, seconds = map(max, zip(*all_, strict=True))
        beside = f", the emulator {emulator:.0f} MB beside it" if emulator else ""
        print(
            f"{what:<18} after {first[what]:.0f} s, {memory:.0f} MB at most{beside}; {seconds:.0f} s of the processor"
        )
    for count, sums in sorted(together.items()):
        if count:
            print(f"{count} together: {median(sums):.0f} MB, {max(sums):.0f} MB at most")


if __name__ == "__main__":
    main(int(sys.argv[1]))
