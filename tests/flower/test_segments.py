"""How long the ServerApp waits for the nodes of a segment, and whom it tells again; with a clock that only it moves."""

import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from tables import Table

from ross_flwr import ConfigError, resolve
from ross_flwr.flower.direct import Segments
from ross_flwr.flower.placement import Placement
from ross_flwr.flower.protocol import Answer, Report, RoundReport, Segment
from ross_flwr.flower.run import Drops, Run
from ross_flwr.runs.assemble import assemble

NAMED = {i: Answer(i, f"n{i}", f"127.0.0.1:{9000 + i}") for i in range(4)}


def content(message):
    """What a sound node answers."""
    node = message.metadata.dst_node_id
    if message.metadata.message_type == "train.segment":
        record = Report([RoundReport(Segment.of(message.content).last, 0.0, [])])
    else:
        record = NAMED[node]
    return RecordDict({record.key: record.to_record()})


@pytest.fixture(scope="module")
def assembly():
    return assemble(resolve({"num-agents": 4, "topology": "ring", "attackers": 0, "algorithm": "dpsgd"}))


def segments_of(table, assembly, timeout=30.0):
    """The segments of a run on four nodes."""
    drops = Drops()
    table.post.drop = lambda reason, node, text: (table.dropped.update([reason]), drops.add(reason, node, text))
    placement = Placement({i: (i,) for i in range(4)}, dict(NAMED))
    return Segments(Run("r", assembly, {}, placement, table.post, drops, timeout, timeout))


def play(segments, first=1, last=20):
    """Let the nodes run a segment; return those that reported."""
    for _ in segments.exchanges(first, last):
        reports = segments.exchange(segments.messages(ArrayRecord(), ConfigRecord()))
    return sorted(report.metadata.src_node_id for report in reports)


def segment(table, assembly, timeout=30.0):
    return play(segments_of(table, assembly, timeout))


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


def fails_at_work(table, nodes=(0, 1, 2, 3)):
    """Let the app of these nodes raise an error in every segment, and answer questions."""
    push = table.push_messages

    def push_messages(messages):
        (message,) = messages
        node, before = message.metadata.dst_node_id, dict(table.answers)
        if node in nodes and message.metadata.message_type == "train.segment":
            table.answers[node] = -1.0
        numbers = push(messages)
        table.answers = before
        return numbers

    table.push_messages, table.code = push_messages, 2


def test_a_run_whose_app_fails_on_every_node_stops_with_what_it_says(assembly):
    table = Table(content, n0=1.0, n1=1.0, n2=1.0, n3=1.0)
    fails_at_work(table)
    with pytest.raises(ConfigError, match="no node can work, and the run stops: node 0 fails: broken"):
        segment(table, assembly)
    assert table.now < 20
    assert [told(table, node) for node in range(4)] == [3, 3, 3, 3]


def test_a_node_whose_app_fails_time_and_again_is_told_ever_more_seldom(assembly):
    table = Table(content, n0=600.0, n1=600.0, n2=600.0, n3=1.0)
    fails_at_work(table, nodes=(3,))
    assert segment(table, assembly, timeout=600.0) == [0, 1, 2]
    assert 10 <= told(table, 3) <= 15


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


def test_a_node_that_reports_early_ends_the_segment_for_nobody(assembly):
    """It began two and a half timeouts before the others, and ran all rounds without them."""
    table = Table(content, n0=36.0, n1=105.0, n2=106.0, n3=107.0)
    assert segment(table, assembly, timeout=30.0) == [0, 1, 2, 3]
    assert 107 <= table.now < 109


@pytest.mark.parametrize("said", [Report([]), None], ids=["nothing happened", "nothing at all"])
def test_an_empty_reply_at_once_ends_the_segment_for_nobody(assembly, said):
    def says_nothing(message):
        if message.metadata.dst_node_id == 0 and message.metadata.message_type == "train.segment":
            return RecordDict({Report.key: said.to_record()} if said else {})
        return content(message)

    table = Table(says_nothing, n0=0.1, n1=500.0, n2=501.0, n3=560.0)
    assert segment(table, assembly, timeout=30.0) == ([0, 1, 2, 3] if said else [1, 2, 3])
    assert told(table, 0) == 1


def test_once_most_have_reported_the_others_get_as_long_as_those_took(assembly):
    table = Table(content, n0=100.0, n1=101.0, n2=102.0, n3=190.0)
    assert segment(table, assembly, timeout=1.0) == [0, 1, 2, 3]
    table = Table(content, n0=100.0, n1=101.0, n2=102.0, n3=None)
    assert segment(table, assembly, timeout=1.0) == [0, 1, 2]
    assert 203 <= table.now < 206


@pytest.mark.parametrize("late", [39.0, None])
def test_a_node_that_keeps_the_others_waiting_in_every_segment_does_so_for_a_while_only(assembly, late):
    """They take ten seconds. Without a budget each segment would take as long as it likes, up to forty."""
    table = Table(content, n0=10.0, n1=10.0, n2=10.0, n3=late)
    segments, lasted = segments_of(table, assembly, timeout=30.0), []
    for number in range(60):
        began = table.now
        assert play(segments, 20 * number + 1, 20 * number + 20)[:3] == [0, 1, 2]
        lasted.append(table.now - began)
    assert lasted[0] > 18
    assert sum(lasted[30:]) <= 2 * 10 * 30
    assert table.dropped["overdue"] > 0


def test_a_late_node_gets_no_second_segment_before_it_has_answered_the_first(assembly):
    """It answers in the third segment, is told that one, and learns how far the others may be ahead."""
    table = Table(content, n0=10.0, n1=10.0, n2=105.0, n3=10.0)
    segments = segments_of(table, assembly, timeout=30.0)
    assert play(segments) == [0, 1, 3]
    assert play(segments, 21, 40) == [0, 1, 3]
    assert told(table, 2) == 1
    table.answers.update({0: 60.0, 1: 60.0, 2: 20.0, 3: 60.0})
    assert play(segments, 41, 60) == [0, 1, 2, 3]
    assert told(table, 2) == 2
    assert table.dropped["late"] == 1
    (behind_by,) = {call.behind_by for call in table.segments(2)[1:]}
    assert 20 < behind_by < 40


def test_a_node_that_has_not_said_who_it_is_is_told_the_segment_when_it_does(assembly):
    table = Table(content, n0=60.0, n1=60.0, n2=5.0, n3=60.0)
    segments = segments_of(table, assembly)
    del segments.run.placement.answers[2]
    assert play(segments) == [0, 1, 2, 3]
    assert 60 <= table.now < 62
    assert segments.run.placement.answers[2] == NAMED[2]
    assert [len(call.neighbors) for call in table.segments(1)] == [1], (
        "it is not told to its neighbours before it comes"
    )
    play(segments, 21, 40)
    assert [len(call.neighbors) for call in table.segments(1)] == [1, 2]
