"""The short form of the chaos suite: faults of every kind on real processes, in one run."""

import subprocess
import sys
from pathlib import Path

import pytest
from chaos import FAULTS, schedule


@pytest.mark.deployment
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and signals processes")
def test_a_run_survives_a_fault_of_every_kind():
    """In a process of its own, as the fork server of another test would be taken for the suite's, which sets clocks."""
    script = Path(__file__).with_name("chaos.py")
    command = [sys.executable, script, "--faults", str(len(FAULTS)), "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(FAULTS)} faults survived" in done.stdout


def test_a_schedule_follows_from_its_seed_and_holds_every_kind():
    kinds = [kind for step, _ in schedule(3 * len(FAULTS), 1) for kind, *_ in step]
    assert sorted(kinds) == sorted(3 * [*FAULTS])
    assert schedule(20, 1) == schedule(20, 1) != schedule(20, 2)
