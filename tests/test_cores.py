"""A process uses no more cores than it is given, by whatever means."""

import pytest

from ross_flwr.cores import given_cores

VERSION_2 = {"proc/self/cgroup": "0::/system.slice/node.service\n"}
VERSION_1 = {"proc/self/cgroup": "4:memory:/docker/1f2e\n3:cpu,cpuacct:/docker/1f2e\n0::/\n"}
LIMITS = {
    "no groups": ({}, 8),
    "no quota": (VERSION_2 | {"sys/fs/cgroup/system.slice/node.service/cpu.max": "max 100000\n"}, 8),
    "two cores": (VERSION_2 | {"sys/fs/cgroup/system.slice/node.service/cpu.max": "200000 100000\n"}, 2),
    "one and a half": (VERSION_2 | {"sys/fs/cgroup/system.slice/node.service/cpu.max": "150000 100000\n"}, 2),
    "a third": (VERSION_2 | {"sys/fs/cgroup/system.slice/node.service/cpu.max": "33000 100000\n"}, 1),
    "of the slice": (VERSION_2 | {"sys/fs/cgroup/system.slice/cpu.max": "300000 100000\n"}, 3),
    "in a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 10000\n"}, 5),
    "more than there are": (VERSION_2 | {"sys/fs/cgroup/system.slice/cpu.max": "9900000 100000\n"}, 8),
    "version 1": (
        VERSION_1
        | {
            "sys/fs/cgroup/cpu/docker/1f2e/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu/docker/1f2e/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "version 1, in a container": (
        VERSION_1
        | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
        1,
    ),
}
"""What stands under /proc and /sys, and how many of eight cores it leaves."""


@pytest.mark.parametrize("name", LIMITS)
def test_quotas_of_control_groups_count(name, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    files, left = LIMITS[name]
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert given_cores(tmp_path) == left


def test_the_affinity_of_the_process_counts(monkeypatch, tmp_path):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3}, raising=False)
    assert given_cores(tmp_path) == 1


def test_a_system_without_affinities_has_the_cores_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert given_cores(tmp_path) == 5
