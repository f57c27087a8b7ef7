"""The polling loop, over a grid that is a table and with a clock that only it moves."""

import pytest
from flwr.app import Message, RecordDict
from tables import Table

from ross_flwr.flower.grid import pause


def exchange(table, *nodes, timeout=10.0, ahead=()):
    """Do an exchange; a reply of the nodes in `ahead` makes their next message possible."""
    message = lambda node: Message(RecordDict(), node, "train.mix")  # noqa: E731
    onward = lambda reply: [message(node) for node in {reply.metadata.src_node_id} & {*ahead}]  # noqa: E731
    replies = table.post.exchange(map(message, nodes), timeout, onward)
    return [(reply.node, reply.message is not None, reply.late) for reply in replies]


SOUND, FAILED, LATE = (True, False), (False, False), (True, True)


def test_replies_come_in_the_order_of_their_arrival_and_end_the_exchange():
    table = Table(n1=3.0, n2=1.0)
    assert exchange(table, 1, 2) == [(2, *SOUND), (1, *SOUND)]
    assert 3.0 <= table.now < 3.2
    assert not table.post.waiting


def test_an_error_is_a_reply_and_an_unreachable_node_is_not_waited_for():
    table = Table(n1=-1.0)
    assert exchange(table, 1, 7) == [(1, *FAILED)]
    assert table.dropped == {"error": 1, "unreachable": 1}
    assert exchange(table, 7) == []
    assert table.now < 1.1


def test_a_late_node_gets_no_message_until_it_has_answered():
    table = Table(n1=1.0, n2=12.5)
    assert exchange(table, 1, 2) == [(1, *SOUND)]
    assert table.now == pytest.approx(10.0, abs=0.2)
    assert table.post.busy == {2}
    assert exchange(table, 1, 2) == [(1, *SOUND)]
    assert len(table.due) == 3  # two at first, one now
    assert exchange(table, 2) == [(2, *LATE)]
    assert table.dropped == {"late": 1}
    assert exchange(table, 1, 2, timeout=20.0) == [(1, *SOUND), (2, *SOUND)]


def test_when_every_node_is_late_the_exchange_waits_for_one_of_them():
    table = Table(n1=0.5)
    assert exchange(table, 1, timeout=0.1) == []
    assert exchange(table, timeout=5.0) == [(1, *LATE)]
    assert table.now == pytest.approx(0.5, abs=0.05)


def test_a_node_that_never_answers_costs_the_timeout_of_each_exchange_and_no_more():
    table = Table(n1=None)
    assert exchange(table, 1, timeout=2.0) == []
    assert exchange(table, 1, timeout=2.0) == []
    assert table.now == pytest.approx(4.0, abs=0.3)


def test_what_a_reply_makes_possible_is_sent_at_once_and_belongs_to_the_next_exchange():
    table = Table(n1=1.0, n2=5.0, n3=1.0)
    assert exchange(table, 1, 2, 3, ahead=(1, 3)) == [(1, *SOUND), (3, *SOUND), (2, *SOUND)]
    assert [node for node, _ in table.pushed] == [1, 2, 3, 1, 3]
    assert table.post.ahead == {1, 3}
    assert table.now == pytest.approx(5.0, abs=0.2)
    assert exchange(table, 2) == [(1, *SOUND), (3, *SOUND), (2, *SOUND)], "two have answered already"
    assert table.now == pytest.approx(10.0, abs=0.4)
    assert table.post.ahead == table.post.busy == set()
    assert not table.dropped


def test_nodes_that_others_are_ahead_of_spend_nothing_for_it():
    """Three nodes are an exchange ahead when the others get their message, one of which is slow, the other is not."""
    table, ahead = Table(n1=30.0, n2=30.0, n3=30.0, n4=30.0, n5=50.0), ()
    for _ in range(30):
        sent, ahead = table.answers.keys() - {*ahead}, () if ahead else (1, 2, 3)
        assert len(exchange(table, *sorted(sent), timeout=60.0, ahead=ahead)) == 5
    assert all(table.post.patience.left(node) == 6 for node in table.answers)
    assert not table.dropped


def test_sending_ahead_is_no_reason_to_look_more_seldom():
    table = Table(n1=1.0, n2=1.0, n3=5.0)
    push = table.push_messages

    def slowly(messages):
        table.now += 1.0
        return push(messages)

    table.push_messages = slowly
    exchange(table, 1, 2, 3, ahead=(1, 2))
    assert table.now == pytest.approx(8.0, abs=0.2)  # node 3 was asked last, after 3 s


STALLS = {
    "replies at the last moment": 9.9,
    "is a little late": 2.9,
    "is just too late": 10.1,
    "never replies": None,
    "fails at the last moment": -9.9,
}


@pytest.mark.parametrize("stall", STALLS)
def test_a_node_that_keeps_all_others_waiting_does_so_for_a_while_only(stall):
    """They take a second. The rate is that from twenty times the timeout on."""
    table, lasted = Table(n1=1.0, n2=1.0, n3=1.0, n4=STALLS[stall]), []
    while table.now < 300:
        began = table.now
        assert sum(sound for _, sound, late in exchange(table, 1, 2, 3, 4) if not late) >= 3
        lasted += [table.now - began] * (began > 200)
    assert len(lasted) >= 0.5 * 100
    assert (table.dropped["overdue"] > 0) == (stall != "never replies")


def test_a_node_that_was_slow_is_waited_for_again_when_it_is_not():
    table = Table(n1=1.0, n2=1.0, n3=5.0)
    while not table.dropped["overdue"]:
        exchange(table, 1, 2, 3)
    table.answers[3] = 1.0
    while table.now < 600:
        exchange(table, 1, 2, 3)
    table.answers[3] = 9.0
    assert exchange(table, 1, 2, 3)[2] == (3, *SOUND)


@pytest.mark.parametrize(
    "answers", [{"n1": 1.0, "n2": 1.6, "n3": 2.6}, {f"n{k}": k for k in range(1, 10)}, {"n1": 1.0, "n2": 9.0}]
)
def test_nodes_that_work_in_turn_or_no_more_slowly_than_is_allowed_and_pairs_spend_nothing(answers):
    table = Table(**answers)
    for _ in range(20):
        exchange(table, *table.answers)
    assert all(table.post.patience.left(node) == 6 for node in table.answers)


def test_looks_are_close_at_first_and_seldom_in_a_long_wait():
    table = Table(n1=60.0)
    exchange(table, 1, timeout=100.0)
    assert table.looks[1] == 0.002
    assert len([look for look in table.looks if look < 1.0]) > 40
    assert len(table.looks) < 400
    assert [pause(seconds) for seconds in (0.0, 1.0, 2.0, 10.0, 60.0, 3600.0)] == [0.002, 0.05, 0.1, 0.1, 0.6, 1.0]


def test_a_look_that_takes_long_is_followed_by_a_longer_pause():
    """With many nodes in a deployment, looking all the time would keep the SuperLink busy."""
    table = Table(**{f"n{node}": 30.0 for node in range(100)})
    pull = table.pull_messages

    def slowly(numbers):
        table.now += 0.01
        return pull(numbers)

    table.pull_messages = slowly
    exchange(table, *range(100), timeout=100.0)
    assert 9 <= len(table.looks) / 100 <= 13
