"""The question to the nodes before a run; with a clock that only it moves."""

import pytest
from flwr.app import ConfigRecord, Context, Error, RecordDict
from flwr.clientapp import ClientApp
from tables import Table

from ross_flwr import ConfigError
from ross_flwr.flower.protocol import Answer, Setup
from ross_flwr.flower.questions import ask


def content(message):
    node = message.metadata.dst_node_id
    return RecordDict({Answer.key: Answer(node, f"n{node}", f"127.0.0.1:{9000 + node}").to_record()})


def asked(table, at=None):
    """Ask four nodes who they are; at the times in `at`, what answers they give changes."""
    sleep = table.sleep

    def change(seconds):
        sleep(seconds)
        for when, answers in (at or {}).items():
            if when <= table.now < when + seconds + 1e-6:
                table.answers.update(answers)

    table.post._sleep = change
    return sorted(ask(table.post, [0, 1, 2, 3], Setup("r", {}, {}), ConfigRecord(), direct=True))


def test_a_node_that_is_killed_at_the_start_is_asked_again_when_it_is_back():
    table = Table(content, n0=1.0, n1=1.0, n2=1.0, n3=-10.0)
    connected = table.get_node_ids
    table.get_node_ids = lambda: [node for node in connected() if node != 3 or not 10 <= table.now < 100]
    assert asked(table, {99.0: {3: 2.0}}) == [0, 1, 2, 3]
    assert 100 <= table.now < 105
    assert table.dropped == {"error": 1}


def test_a_node_that_died_unnoticed_with_the_question_is_asked_again_after_a_minute():
    table = Table(content, n0=1.0, n1=1.0, n2=None, n3=1.0)
    assert asked(table, {30.0: {2: 2.0}}) == [0, 1, 2, 3]
    assert 60 <= table.now < 66


def test_no_question_is_left_to_a_slow_node_that_was_asked_twice():
    """A simulated node that answers while it is set up would lose the set-up."""
    table = Table(content, n0=1.0, n1=1.0, n2=70.0, n3=1.0)
    assert asked(table, {50.0: {2: 11.0}}) == [0, 1, 2, 3]
    assert max(due for due, _ in table.due.values()) <= table.now < 75


def test_a_run_begins_without_a_node_that_does_not_come_back_and_says_why(caplog):
    table = Table(content, n0=1.0, n1=1.0, n2=1.0, n3=None)
    assert asked(table) == [0, 1, 2]
    assert 600 <= table.now < 610
    assert (
        "node 3 cannot take part, and its agents are absent until it can: it has not answered within 600 s"
        in caplog.text
    )


def test_a_node_whose_app_is_broken_is_given_up_at_once_with_what_it_says(caplog):
    table = Table(content, n0=1.0, n1=1.0, n2=1.0, n3=-1.0)
    assert asked(table) == [0, 1, 2]
    assert table.now < 10
    assert "node 3 cannot take part, and its agents are absent until it can: it failed: broken" in caplog.text
    with pytest.raises(ConfigError, match=r"2 of 4 nodes .* half: node 2 .* broken"):
        asked(Table(content, n0=1.0, n1=1.0, n2=-1.0, n3=-1.0))


def test_nodes_whose_client_app_hosts_no_agents_are_told_what_to_call():
    def fail(message):
        with pytest.raises(ValueError, match="who") as failure:
            ClientApp()(message, Context(1, 1, {}, RecordDict(), {}))
        return Error(code=1, reason=str(failure.value))

    with pytest.raises(ConfigError, match=r"its ClientApp hosts no agents: call peer_app\(app=app, …\)"):
        asked(Table(fail, n0=1.0, n1=1.0, n2=1.0, n3=1.0))


def test_a_node_with_certificates_of_another_authority_takes_no_part_and_is_told_so(caplog):
    def of_two_authorities(message):
        node = message.metadata.dst_node_id
        answer = Answer(node, f"n{node}", f"127.0.0.1:{9000 + node}", authority="b" if node == 3 else "a")
        return RecordDict({Answer.key: answer.to_record()})

    assert asked(Table(of_two_authorities, n0=1.0, n1=1.0, n2=1.0, n3=0.1)) == [0, 1, 2]
    assert "node 3 cannot take part" in caplog.text
    assert "its certificates are of another authority (ca.pem) than those of most nodes" in caplog.text
