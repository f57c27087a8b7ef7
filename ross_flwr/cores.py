"""How many cores this process is given."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["given_cores"]


def given_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use.

    These are the machine's, unless its affinity (`taskset`) or the quota of a control group (`docker run --cpus 2`,
    systemd's `CPUQuota`) leaves it fewer. Of a quota of 1.5, two cores make use.

    Parameters
    ----------
    root : Path
        Where `/proc` and `/sys` are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *_quotas(root)])


def _quotas(root: Path) -> Iterator[int]:
    """Yield the quotas, rounded up, of the control groups that this process is in, of version 1 and of version 2."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                yield from _limits(root / "sys/fs/cgroup", group, ("cpu.max",))
            elif "cpu" in controllers.split(","):
                yield from _limits(root / "sys/fs/cgroup/cpu", group, ("cpu.cfs_quota_us", "cpu.cfs_period_us"))


def _limits(mount: Path, group: str, files: tuple[str, ...]) -> Iterator[int]:
    """Yield the quota of a control group and of each one that it is in; a container sees the innermost as `mount`."""
    own = Path(group.lstrip("/"))
    for folder in (own, *own.parents):
        with suppress(OSError, ValueError):  # there is no such file, or the quota is "max"
            quota, period = (int(part) for file in files for part in (mount / folder / file).read_text().split())
            if quota > 0:
                yield -(-quota // period)
