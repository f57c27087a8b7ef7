"""Refusals are counted, every one, and logged so that nobody can flood the log."""

import logging

import pytest

from ross_flwr.engine.refusals import LONGEST, PAUSE, Refusals


@pytest.fixture
def refusals():
    """Some that were never logged, by a clock that the test moves."""
    made = Refusals(logging.getLogger("ross_flwr"), lambda: made.now)
    made.now = 1000.0
    return made


def test_a_reason_is_logged_once_a_minute_and_every_refusal_is_counted(refusals, caplog):
    for _ in range(10_000):
        refusals.add("stranger", "refused a message from 10.0.0.9")
        refusals.now += PAUSE / 10_001
    refusals.add("busy", "refused a message from 10.0.0.8", count=3)
    assert caplog.messages == ["refused a message from 10.0.0.9: stranger", "refused a message from 10.0.0.8: busy"]
    refusals.now += PAUSE
    refusals.add("stranger", "refused a message from 10.0.0.7")
    assert caplog.messages[2:] == ["refused a message from 10.0.0.7: stranger (9999 more since the last such line)"]
    assert refusals.counts == {"stranger": 10_001, "busy": 3}


def test_what_others_wrote_is_one_short_line(refusals, caplog):
    refusals.add("error", "it says: Traceback\r\n[ROUND 3/60]\n" + "x" * 10**6)
    assert len(caplog.messages[0].splitlines()) == 1
    assert len(caplog.messages[0]) < LONGEST + 20
    refusals.add("names", "\x1b]0;mine\x07\x9b2J\b\u202e\ud800")
    assert caplog.messages[1].encode().isascii()
    assert caplog.messages[1].isprintable()


def test_a_count_without_a_text_leaves_no_line(refusals, caplog):
    refusals.add("unreachable", count=5)
    assert (caplog.messages, refusals.counts) == ([], {"unreachable": 5})
