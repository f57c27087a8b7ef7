"""The short form of the chaos suite: faults of every kind on real processes, in one run."""

import sys

import pytest
from chaos import FAULTS, schedule, survive


@pytest.mark.deployment
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and signals processes")
def test_a_run_survives_a_fault_of_every_kind():
    survive(len(FAULTS), seed=0)


def test_a_schedule_follows_from_its_seed_and_holds_every_kind():
    kinds = [kind for step, _ in schedule(3 * len(FAULTS), 1) for kind, *_ in step]
    assert sorted(kinds) == sorted(3 * [*FAULTS])
    assert schedule(20, 1) == schedule(20, 1) != schedule(20, 2)
