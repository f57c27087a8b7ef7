"""How long the ServerApp waits for the nodes of a segment, and whom it tells again; with a clock that only it moves."""

import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from tables import Table

from ross_flwr import resolve
from ross_flwr.flower.direct import Segments
from ross_flwr.flower.placement import Placement
from ross_flwr.flower.protocol import Answer, Report
from ross_flwr.flower.run import Drops, Run
from ross_flwr.runs.assemble import assemble

NAMED = {i: Answer(i, f"n{i}", f"127.0.0.1:{9000 + i}") for i in range(4)}


def content(message):
    """What a sound node answers."""
    record = Report([]) if message.metadata.message_type == "train.segment" else Answer()
    return RecordDict({record.key: record.to_record()})


@pytest.fixture(scope="module")
def assembly():
    return assemble(resolve({"num-agents": 4, "topology": "ring", "attackers": 0, "algorithm": "dpsgd"}))


def segment(table, assembly, timeout=30.0):
    """Let four nodes run a segment; return those that reported."""
    placement = Placement({i: (i,) for i in range(4)}, NAMED)
    segments = Segments(Run("r", assembly, {}, placement, table.post, Drops(), timeout, timeout))
    for _ in segments.exchanges(1, 20):
        reports = segments.exchange(segments.messages(ArrayRecord(), ConfigRecord()))
    assert not table.post.waiting
    return sorted(report.metadata.src_node_id for report in reports)


def told(table, node):
    """How often a node was told to run the segment."""
    return [reply.metadata.message_type for _, reply in table.due.values() if reply.metadata.src_node_id == node].count(
        "train.segment"
    )


def test_the_slowest_node_ends_the_segment(assembly):
    table = Table(content, n0=3.0, n1=5.0, n2=400.0, n3=4.0)
    assert segment(table, assembly, timeout=600.0) == [0, 1, 2, 3]
    assert 400 <= table.now < 405


def test_a_node_that_never_reports_is_waited_for_from_the_last_report_on(assembly):
    table = Table(content, n0=3.0, n1=20.0, n2=None, n3=4.0)
    assert segment(table, assembly, timeout=30.0) == [0, 1, 3]
    assert 50 <= table.now < 52


def test_nodes_that_flower_does_not_reach_are_not_waited_for(assembly):
    table = Table(content, n0=3.0, n1=4.0, n3=4.0)
    assert segment(table, assembly) == [0, 1, 3]
    assert table.now < 5
    assert table.dropped == {"unreachable": 1}


def test_a_node_that_fails_and_is_there_is_told_again(assembly):
    """It fails for ten seconds, and then works."""
    table = Table(content, n0=60.0, n1=60.0, n2=-1.0, n3=60.0)
    sleep = table.sleep

    def grow_well(seconds):
        sleep(seconds)
        if table.now > 10:
            table.answers[2] = 2.0

    table.post._sleep = grow_well
    assert segment(table, assembly, timeout=100.0) == [0, 1, 2, 3]
    assert told(table, 2) == 2
    assert 60 <= table.now < 62


def test_a_node_whose_death_nobody_noticed_is_asked_after_a_minute_and_told_again(assembly):
    table = Table(content, n0=100.0, n1=100.0, n2=None, n3=100.0)
    sleep = table.sleep

    def come_back(seconds):
        sleep(seconds)
        if table.now > 20:
            table.answers[2] = 5.0

    table.post._sleep = come_back
    assert segment(table, assembly) == [0, 1, 2, 3]
    assert told(table, 2) == 2
    assert 100 <= table.now < 102
