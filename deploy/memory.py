"""Watch a process and those that it starts, and print what memory and time they take.

    python3 deploy/memory.py PID        prints when the process ends

Sizes are resident sets in MB. Files that processes share, their programs and libraries, are counted in each of them,
and once in what they take together. Of processes that QEMU emulates, the emulator's own memory is told apart: its heap,
its program, and the code that it has translated.
"""

import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

AREA = re.compile(r"^[0-9a-f]+-[0-9a-f]+ (?P<rights>\S+) \S+ \S+ \S+ *(?P<file>.*)$")


class Use(NamedTuple):
    """What a process uses: MB without the emulator, MB of the emulator, and seconds of the processor so far.

    Of the first, `own` is what belongs to no file, and `files` what belongs to each.
    """

    memory: float
    emulator: float
    seconds: float
    own: float
    files: dict[str, float]


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
    total = emulator = anonymous = 0
    files: dict[str, float] = defaultdict(float)
    emulated = Path(f"/proc/{pid}/exe").readlink().name.startswith("qemu-")
    own, size, file = False, 0, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if area := AREA.match(line):
            file = area["file"]
            own = emulated and ("x" in area["rights"] or "[heap]" in file or "qemu-" in file)
        elif line.startswith("Rss:"):
            size = int(line.split()[1])
            total += size
            emulator += own * size
        elif line.startswith("Pss:") and not own and not file.startswith("/"):  # forked processes share even this
            anonymous += int(line.split()[1])
        elif line.startswith("Anonymous:") and not own and file.startswith("/"):
            anonymous += int(line.split()[1])
            files[file] += (size - int(line.split()[1])) / 1e3
    sizes = [each / 1e3 for each in (total - emulator, emulator, anonymous)]
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return Use(*sizes[:2], sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), sizes[2], files)


def sum_of(uses: Collection[Use]) -> float:
    """Return the MB of processes, with each file counted once, at its largest."""
    files = {file for used in uses for file in used.files}
    return sum(used.own for used in uses) + sum(max(used.files.get(file, 0.0) for used in uses) for file in files)


def main(pid: int) -> None:
    """Sample every two seconds until the process ends."""
    began = time.monotonic()
    uses: dict[str, list[Use]] = defaultdict(list)
    first: dict[str, float] = {}
    together: dict[int, list[float]] = defaultdict(list)
    while Path(f"/proc/{pid}/exe").exists():
        now: list[Use] = []
        with suppress(OSError):  # one of them has ended
            for each in below(pid):
                what = name(each)
                now.append(use(each))
                first.setdefault(what, time.monotonic() - began)
                uses[what].append(now[-1])
        together[len(now)].append(sum_of(now))
        time.sleep(2)
    for what, all_ in uses.items():
        memory, emulator, seconds = (max(used[k] for used in all_) for k in range(3))
        beside = f", the emulator {emulator:.0f} MB beside it" if emulator else ""
        print(
            f"{what:<18} after {first[what]:.0f} s, {memory:.0f} MB at most{beside}; {seconds:.0f} s of the processor"
        )
    for count, sums in sorted(together.items()):
        if count:
            print(f"{count} together: {median(sums):.0f} MB, {max(sums):.0f} MB at most")


if __name__ == "__main__":
    main(int(sys.argv[1]))
