"""Typed records on Flower's wire: what is sound comes back, what is not raises one error."""

import json
from contextlib import suppress
from math import nan

import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from ross_flwr.engine.events import AgentReport
from ross_flwr.flower.protocol import Answer, Call, Report, RoundReport, Segment, Setup
from ross_flwr.typed_json import MalformedError

PLACE = ({0: 0.5, 1: 0.5}, {0: 0.5})
AGENT = AgentReport(3, 1, 2, 48.5, {4: {"model": 8}}, [5], {4: 0.5}, {"gradients": 0.1}, loss=1.5, metrics={"f1": 0.25})
SOUND = [
    Setup("run", {"algorithm": "ross", "seed": 1, "learning-rate": 0.5, "download": False}, {0: PLACE}),
    Call(3, 1, 60),
    Segment(1, 20, "abc", {0: [PLACE, PLACE]}, [("n1", "127.0.0.1:1", [1, 2])], 30.0),
    Report([RoundReport(1, None, [AGENT]), RoundReport(2, 0.5, [])], {"shape": 2}),
    Answer(2, "n0", "127.0.0.1:1"),
    Answer(problem="no certificate"),
]


@pytest.mark.parametrize("record", SOUND, ids=lambda record: record.key)
def test_a_record_comes_back_as_it_was(record):
    content = RecordDict({record.key: record.to_record()})
    assert type(record).of(content) == record


ROUND = {"number": 1, "seconds": None, "agents": []}
MALFORMED = {
    "[": (Report, "is not JSON"),
    "5": (Report, "5 is a int: it should be a dict"),
    '{"rounds": 5}': (Report, "rounds: 5 is a int: it should be a list"),
    "{}": (Report, "Report lacks rounds"),
    json.dumps({"rounds": [{"number": 1, "seconds": None}]}): (Report, "RoundReport lacks agents"),
    json.dumps({"rounds": [ROUND | {"number": True}]}): (Report, "number: True is a bool: it should be a int"),
    json.dumps({"rounds": [ROUND | {"agents": [{"agent": 0, "gradients": "many"}]}]}): (Report, "gradients: 'many'"),
    json.dumps({"rounds": [ROUND | {"agents": [{"agent": 0, "sent": {"x": {}}}]}]}): (Report, "invalid literal"),
    json.dumps({"rounds": [ROUND | {"agents": [{"agent": 0, "loss": "low"}]}]}): (
        Report,
        "should be float or NoneType",
    ),
    json.dumps({"pass_number": 1, "step": 0, "end": 2, "color": 1}): (Call, "Call has no field color"),
    json.dumps({"run": "r", "options": {"seed": None}, "places": {}}): (Setup, "None is a NoneType"),
    json.dumps({"run": "r", "options": {}, "places": {"0": [{}]}}): (Setup, "has 1 entries: it should have 2"),
    "[" * 10_000: (Report, "is not JSON"),
}


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: text[:40])
def test_a_malformed_record_is_told_in_one_error(text):
    kind, sentence = MALFORMED[text]
    with pytest.raises(MalformedError, match=sentence):
        kind.from_record(ConfigRecord({"json": text}))


@pytest.mark.parametrize("content", [{}, {"report": ConfigRecord()}, {"report": ConfigRecord({"json": 5})}], ids=str)
def test_a_reply_without_the_record_is_malformed(content):
    with pytest.raises(MalformedError):
        Report.of(RecordDict(content))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["rounds", "number", "seconds", "agents", "agent", "sent", "0"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.sampled_from([Setup, Call, Segment, Report, Answer]), JSON)
def test_whatever_json_comes_nothing_but_that_error_is_raised(kind, value):
    with suppress(MalformedError):
        kind.from_text(json.dumps(value))


def test_a_loss_that_is_not_a_number_crosses_the_wire():
    report = Report([RoundReport(1, None, [AgentReport(0, loss=nan, accuracy=0.0)])])
    (back,) = Report.from_record(report.to_record()).rounds[0].agents
    assert back.loss != back.loss


AGENTS = st.integers(0, 2**16)
COUNTS = st.integers(0, 2**40)
REALS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
REPORTS = st.builds(
    AgentReport,
    AGENTS,
    gradients=COUNTS,
    utilities=COUNTS,
    work=st.floats(0, 2**40),
    sent=st.dictionaries(AGENTS, st.dictionaries(st.text(), COUNTS)),
    missing=st.lists(AGENTS),
    weights=st.dictionaries(AGENTS, st.floats(0, 1)),
    time=st.dictionaries(st.text(), st.floats(0, 1)),
    loss=REALS,
    accuracy=REALS,
)


@settings(max_examples=40)
@given(st.lists(REPORTS, max_size=2))
def test_whatever_agents_report_crosses_the_wire(agents):
    report = Report([RoundReport(1, None, agents)])
    assert Report.from_record(report.to_record()) == report


def test_a_number_that_no_float_holds_is_malformed():
    with pytest.raises(MalformedError):
        Report.from_text('{"rounds": [{"number": 1, "seconds": 1%s, "agents": []}]}' % ("0" * 400))
