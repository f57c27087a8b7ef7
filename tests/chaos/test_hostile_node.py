"""The short form of `hostile.py`: a ring without a hostile node and two with one, at the same time."""

import sys

import pytest
from hostile import measure, missed


@pytest.mark.deployment
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_beside_a_hostile_neighbour_honest_nodes_learn_as_well_and_keep_their_pace():
    found = measure([None, "staller", "greeter that lies"])
    without = found.pop(None)
    assert [each for kind, told in found.items() for each in missed(kind, told, without)] == []
