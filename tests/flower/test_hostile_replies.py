"""One node replies what it likes: that reply is refused and counted, and nobody else's report or model is another."""

import json
from collections import Counter
from functools import cache

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from scripted import Scripted, failing, saying

from ross_flwr import ConfigError, PeerDirect, PeerRelay
from ross_flwr.flower.placement import Placement
from ross_flwr.flower.records import record_of
from ross_flwr.flower.replies import models_of

SMALL = {"algorithm": "dpsgd", "num_agents": 4, "topology": "ring", "hidden": 8, "test_size": 50}
DIRECT = {"segment_rounds": 2, "return_model": "final"}
LIAR = 3


def play(kind="", twist=lambda message, content: content):
    """Run four scripted nodes, of which that of agent 3 replies what `twist` makes of its reply to messages `kind`."""
    relayed = kind.startswith("train.") and kind != "train.segment"
    strategy = PeerRelay(**SMALL) if relayed else PeerDirect(**SMALL, **DIRECT)
    grid = Scripted(strategy, kind=kind, twist=twist)
    strategy.start(grid, grid.model, 4)
    return strategy


def told(strategy):
    """All that a run tells, but for the time it took: lines, and models by agent."""
    lines = [{**line, "seconds": None} for line in strategy.history.lines]
    return lines, {i: {name: array.data for name, array in model.items()} for i, model in strategy.models.items()}


@cache
def without(kind):
    """What is told by a run in which the node fails instead."""
    return told(play(kind, failing))


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Nodes are asked again at once, and soon no more."""
    for name, value in {"LOOK_AGAIN": 0.0, "NODE_TIMEOUT": 0.05}.items():
        monkeypatch.setattr(f"ross_flwr.flower.questions.{name}", value)


def test_sound_replies_are_all_believed():
    for kind in ("train.segment", "train.mix"):
        strategy = play(kind)
        assert [line["absent"] for line in strategy.history.lines] == [[]] * 4
        assert sorted(strategy.models) == [0, 1, 2, 3]
        assert not strategy.dropped


def saying_of_report(change):
    """A twist that changes the JSON of a report."""

    def twist(message, content):
        report = json.loads(content["report"]["json"])
        report = change(report) or report
        return RecordDict({**content, "report": ConfigRecord({"json": json.dumps(report)})})

    return twist


def of_round(**changes):
    return saying_of_report(lambda report: report["rounds"][-1].update(changes))


def of_agent(**changes):
    return saying_of_report(lambda report: report["rounds"][-1]["agents"][0].update(changes))


def text(value):
    return saying(report=ConfigRecord({"json": value}))


def twice(report):
    report["rounds"].append(report["rounds"][-1])


def agent_twice(report):
    report["rounds"][-1]["agents"] *= 2


def untested(report):
    report["rounds"][-1]["agents"][0].update(loss=None, accuracy=None)


MALFORMED, NOT_HOSTED = "malformed", "not-hosted"
REPORTS = {
    "no report": (saying(report=None), MALFORMED),
    "arrays for a report": (saying(report=ArrayRecord()), MALFORMED),
    "metrics for a report": (saying(report=MetricRecord()), MALFORMED),
    "an empty record": (saying(report=ConfigRecord()), MALFORMED),
    "a number for a text": (text(5), MALFORMED),
    "null": (text("null"), MALFORMED),
    "a list": (text("[]"), MALFORMED),
    "no JSON": (text("{"), MALFORMED),
    "deep JSON": (text("[" * 100_000), MALFORMED),
    "endless JSON": (text('{"rounds": [' + " " * 2**20 + "]}"), MALFORMED),
    "an unknown field": (saying_of_report(lambda report: report | {"color": 1}), MALFORMED),
    "rounds that are null": (saying_of_report(lambda report: report | {"rounds": None}), MALFORMED),
    "a round that is null": (saying_of_report(lambda report: report | {"rounds": [None]}), MALFORMED),
    "a round after the segment": (of_round(number=5), MALFORMED),
    "round 0": (of_round(number=0), MALFORMED),
    "a round before all": (of_round(number=-1), MALFORMED),
    "a round of many digits": (of_round(number=10**4000), MALFORMED),
    "a round that is a fraction": (of_round(number=1.5), MALFORMED),
    "a round twice": (saying_of_report(twice), MALFORMED),
    "seconds below zero": (of_round(seconds=-1.0), MALFORMED),
    "more seconds than there were": (of_round(seconds=1e6), MALFORMED),
    "seconds without end": (of_round(seconds=float("inf")), MALFORMED),
    "seconds that are no number": (of_round(seconds=float("nan")), MALFORMED),
    "seconds in words": (of_round(seconds="long"), MALFORMED),
    "agents that are null": (of_round(agents=None), MALFORMED),
    "another's agent": (of_agent(agent=0), NOT_HOSTED),
    "an agent that nobody is": (of_agent(agent=-1), NOT_HOSTED),
    "an agent of many digits": (of_agent(agent=10**4000), NOT_HOSTED),
    "an agent in words": (of_agent(agent="x"), MALFORMED),
    "an agent that is null": (of_agent(agent=None), MALFORMED),
    "an agent twice": (saying_of_report(agent_twice), MALFORMED),
    "gradients below zero": (of_agent(gradients=-5), MALFORMED),
    "gradients of many digits": (of_agent(gradients=10**4000), MALFORMED),
    "utilities that are a fraction": (of_agent(utilities=0.5), MALFORMED),
    "work below zero": (of_agent(work=-1.0), MALFORMED),
    "work without end": (of_agent(work=float("inf")), MALFORMED),
    "work that is no number": (of_agent(work=float("nan")), MALFORMED),
    "time in words": (of_agent(time={"gradients": "long"}), MALFORMED),
    "time below zero": (of_agent(time={"gradients": -1e9}), MALFORMED),
    "time that is no number": (of_agent(time={"exchange": float("nan")}), MALFORMED),
    "bytes to nobody": (of_agent(sent={"7": {"model": 1}}), MALFORMED),
    "bytes to itself": (of_agent(sent={"3": {"model": 1}}), MALFORMED),
    "bytes to a word": (of_agent(sent={"x": {"model": 1}}), MALFORMED),
    "bytes below zero": (of_agent(sent={"0": {"model": -(10**12)}}), MALFORMED),
    "bytes of many digits": (of_agent(sent={"0": {"model": 10**4000}}), MALFORMED),
    "bytes of which the sum has too many": (of_agent(sent={"0": {str(k): 2**43 for k in range(4)}}), MALFORMED),
    "gradients of which the sum has too many": (of_agent(gradients=2**53 - 1), MALFORMED),
    "no ε can be so large": (of_agent(spent=float("inf")), MALFORMED),
    "no ε can be so small": (of_agent(spent=5e-324), MALFORMED),
    "nobody is missing": (of_agent(missing=[9]), MALFORMED),
    "a neighbour is missing twice": (of_agent(missing=[0, 0]), MALFORMED),
    "weights of nobody": (of_agent(weights={"9": 1.0}), MALFORMED),
    "an accuracy in words": (of_agent(accuracy="high"), MALFORMED),
    "an accuracy above one": (of_agent(accuracy=1e9), MALFORMED),
    "an accuracy below zero": (of_agent(accuracy=-0.5), MALFORMED),
    "a test without a loss": (of_agent(loss=None), MALFORMED),
    "no test where all test": (saying_of_report(untested), MALFORMED),
    "a deception above one": (of_agent(attack_success=2.0), MALFORMED),
    "a metric called loss": (of_agent(metrics={"loss": 0.0}), MALFORMED),
    "a metric in words": (of_agent(metrics={"f1": "good"}), MALFORMED),
    "counts below zero": (saying_of_report(lambda report: report | {"dropped": {"malformed": -9}}), MALFORMED),
    "counts in words": (saying_of_report(lambda report: report | {"dropped": {"malformed": "few"}}), MALFORMED),
    "endless reasons": (saying_of_report(lambda r: r | {"dropped": {str(k): 1 for k in range(100)}}), MALFORMED),
    "a reason that is no word": (saying_of_report(lambda report: report | {"dropped": {"\x1b[2J": 1}}), MALFORMED),
    "a long reason": (saying_of_report(lambda report: report | {"dropped": {"x" * 1000: 1}}), MALFORMED),
}


@pytest.mark.parametrize("kind", ["train.segment", "train.mix"])
@pytest.mark.parametrize("wrong", REPORTS)
def test_a_false_report_costs_that_reply_only(wrong, kind):
    twist, reason = REPORTS[wrong]
    strategy = play(kind, twist)
    lines, models = told(strategy)
    expected_lines, expected_models = without(kind)
    assert lines == expected_lines
    assert {i: models[i] for i in range(LIAR)} == {i: expected_models[i] for i in range(LIAR)}
    assert strategy.dropped[reason] >= 2
    assert strategy.dropped.total() == strategy.dropped[reason]


def test_a_test_where_nobody_tests_is_not_taken_for_the_result_of_all():
    """Else a summary, which tells of the last test, would tell of the liar alone."""

    def early(report):
        report["rounds"] = report["rounds"][:1]
        report["rounds"][0]["agents"][0].update(loss=0.0, accuracy=1.0)

    strategy = PeerDirect(**SMALL, **DIRECT, evaluate_every=4)
    grid = Scripted(strategy, kind="train.segment", twist=saying_of_report(early))
    strategy.start(grid, grid.model, 4)
    assert [line["accuracy"] is None for line in strategy.history.lines] == [True, True, True, False]
    assert [line["absent"] for line in strategy.history.lines] == [[LIAR]] * 4
    assert strategy.dropped == {MALFORMED: 2}


def changed(model, **changes):
    """A copy of a model, some arrays of which are others, or none."""
    arrays = {**model, **changes}
    return ArrayRecord({name: array for name, array in arrays.items() if array is not None})


def model_of(change):
    """A twist that changes the model in a reply."""

    def twist(message, content):
        key = f"agent.{LIAR}"
        return RecordDict({**content, key: changed(content[key], **change(content[key]))})

    return twist


def filled(value, dtype=torch.float32):
    def change(model):
        name = next(iter(model))
        return {name: record_of({name: torch.full(model[name].shape, value, dtype=dtype)})[name]}

    return model_of(change)


def named(name, record=None):
    return lambda message, content: RecordDict({**content, name: record or content[f"agent.{LIAR}"]})


def first(**changes):
    """A twist that changes what the first array of the model says."""

    def change(model):
        name, array = next(iter(model.items()))
        said = {"dtype": array.dtype, "shape": array.shape, "stype": array.stype, "data": array.data} | changes
        return {name: Array(**said)}

    return model_of(change)


MODELS = {
    "a name that is no number": (named("agent.x"), NOT_HOSTED),
    "a name below zero": (named("agent.-1"), NOT_HOSTED),
    "a name that is empty": (named("agent."), NOT_HOSTED),
    "a name with zeros": (named("agent.03"), NOT_HOSTED),
    "a name of many digits": (named("agent." + "9" * 5000), NOT_HOSTED),
    "another's model": (named("agent.0"), NOT_HOSTED),
    "nobody's model": (named("agent.4"), NOT_HOSTED),
    "metrics for a model": (named(f"agent.{LIAR}", MetricRecord({"loss": 0.0})), MALFORMED),
    "no arrays": (saying(**{f"agent.{LIAR}": ArrayRecord()}), MALFORMED),
    "a short model": (model_of(lambda model: {next(iter(model)): None}), MALFORMED),
    "an array too many": (model_of(lambda model: {"more": next(iter(model.values()))}), MALFORMED),
    "another shape": (model_of(lambda model: {next(iter(model)): Array(torch.zeros(3).numpy())}), MALFORMED),
    "integers": (filled(1, torch.int64), MALFORMED),
    "NaN": (filled(float("nan")), "not-finite"),
    "infinity": (filled(float("-inf")), "not-finite"),
    "a shape of 10^15": (first(shape=(10**15,)), MALFORMED),
    "half a type": (first(dtype="(1,2"), MALFORMED),
    "data that looks like an archive": (first(data=b"PK\x03\x04" + bytes(100)), MALFORMED),
    "no data": (first(data=b""), MALFORMED),
    "another way to write": (first(stype="pickle"), MALFORMED),
}


@pytest.mark.parametrize("kind", ["train.segment", "query.models"])
@pytest.mark.parametrize("wrong", MODELS)
def test_a_false_model_costs_that_reply_only(wrong, kind):
    """Models come with the last report of a segment, or are asked for at the end of a relayed run."""
    twist, reason = MODELS[wrong]

    def at_the_end(message, content):
        return twist(message, content) if f"agent.{LIAR}" in content else content

    if kind == "query.models":
        strategy = PeerRelay(**SMALL)
        grid = Scripted(strategy, kind=kind, twist=at_the_end)
        strategy.start(grid, grid.model, 4)
    else:
        strategy = play(kind, at_the_end)
    lines, models = told(strategy)
    expected_lines, expected_models = told(play("train.segment" if kind == "train.segment" else "train.mix"))
    assert lines == expected_lines
    assert models == {i: model for i, model in expected_models.items() if i != LIAR}
    assert strategy.dropped == {reason: 1}
    weight = next(iter(strategy._outcome.result.arrays.values())).numpy()
    assert weight.flat[0] == pytest.approx(1.0), "the mean of 0, 1 and 2"


def test_a_model_that_has_diverged_leaves_the_others_of_its_node():
    sound, lost = (record_of({"x": torch.full((2,), value)}) for value in (1.0, float("nan")))
    reply, drops = Message(RecordDict({"agent.0": sound, "agent.1": lost}), 7, "train"), Counter()
    reply.metadata._src_node_id = 7
    found = models_of([reply], sound, Placement({7: (0, 1)}, {}), lambda reason, node, text: drops.update([reason]))
    assert (list(found), drops) == ([0], {"not-finite": 1})


def answer(**changes):
    def twist(message, content):
        said = json.loads(content["answer"]["json"]) | changes
        return RecordDict({"answer": ConfigRecord({"json": json.dumps(said)})})

    return twist


ANSWERS = {
    "nothing": saying(answer=None),
    "arrays": saying(answer=ArrayRecord()),
    "a number": saying(answer=ConfigRecord({"json": 5})),
    "null": saying(answer=ConfigRecord({"json": "null"})),
    "no JSON": saying(answer=ConfigRecord({"json": "{"})),
    "an unknown field": answer(color=1),
    "a part in words": answer(partition="last"),
    "a name that is null": answer(name=None),
    "no name": answer(name=""),
    "a name of two lines": answer(name="n3\n[ROUND 4/4]"),
    "a name that TLS takes for another's": answer(name="N0"),
    "an endless name": answer(name="x" * 10**6),
    "a million agents": answer(held={str(agent): 1 for agent in range(10**6)}),
    "another's name": answer(name="n0"),
    "an address without a port": answer(address="127.0.0.1"),
    "a port that is none": answer(address="127.0.0.1:99999"),
    "a port of many digits": answer(address="127.0.0.1:" + "9" * 5000),
    "a port in other digits": answer(address="127.0.0.1:²"),
    "a failure": failing,
    "a problem": answer(problem="it does not want to"),
}


@pytest.mark.parametrize("wrong", ANSWERS)
def test_a_node_that_does_not_say_who_it_is_is_absent_and_the_others_run(wrong):
    strategy = play("query.who", ANSWERS[wrong])
    lines, models = told(strategy)
    expected_lines, expected_models = without("train.segment")
    assert lines == expected_lines
    assert models == {i: expected_models[i] for i in range(LIAR)}
    assert strategy.dropped.total() >= (wrong != "a problem")


def test_a_run_of_which_half_the_nodes_cannot_take_part_does_not_begin():
    strategy = PeerDirect(**SMALL, **DIRECT)
    grid = Scripted(strategy, kind="query.who", twist=answer(problem="it lacks certificates"), liars=(12, 13))
    half = "2 of 4 nodes can take part, which is not more than half: node 12 cannot take part: it lacks certificates"
    with pytest.raises(ConfigError, match=half):
        strategy.start(grid, grid.model, 4)


ROUTES = {
    "metrics for a route": (saying(route=MetricRecord()), MALFORMED),
    "an empty route": (saying(route=ConfigRecord()), MALFORMED),
    "another's agent": ({"source": [0, 3]}, NOT_HOSTED),
    "no edge": ({"destination": [1, 0]}, "no-edge"),
    "an agent that nobody is": ({"destination": [10**9, 0]}, "no-edge"),
    "the same twice": ({"destination": [0, 0]}, "duplicate"),
    "a record that is not there": ({"record": ["message.9", "message.0"]}, MALFORMED),
    "columns of different lengths": ({"source": [3]}, MALFORMED),
    "agents in words": ({"source": ["3", "3"]}, MALFORMED),
    "a run that is a number": ({"run": 5}, MALFORMED),
    "a pass in words": ({"pass": "first"}, MALFORMED),
    "another run": ({"run": "another"}, "other-run"),
    "another pass": ({"pass": 2**40}, "other-step"),
    "another step": ({"step": "mix"}, "other-step"),
}


def route(columns):
    if callable(columns):
        return columns
    return lambda message, content: RecordDict({**content, "route": ConfigRecord({**content["route"], **columns})})


@pytest.mark.parametrize("wrong", ROUTES)
def test_a_false_message_to_an_agent_is_refused_and_the_run_is_as_it_was(wrong):
    twist, reason = ROUTES[wrong]
    strategy = play("train.share", route(twist))
    assert told(strategy) == told(play("train.mix"))
    assert set(strategy.dropped) == {reason}


def test_a_message_that_is_far_larger_than_a_model_is_not_carried():
    large = record_of({"model": torch.zeros(200_000)})
    strategy = play("train.share", saying(**{"message.0": large}))
    assert told(strategy) == told(play("train.mix"))
    assert strategy.dropped == {"oversize": 2}


def test_what_flower_cannot_read_and_what_comes_in_anothers_name_costs_that_reply_only():
    class Unreadable(Scripted):
        def pull_messages(self, numbers):
            for number in numbers:
                for reply in self.replies.get(number, ()):
                    if (reply.metadata.src_node_id, reply.metadata.message_type) == (13, "train.segment"):
                        del self.replies[number]
                        raise KeyError("object")
            return super().pull_messages(numbers)

    class Posing(Scripted):
        def pull_messages(self, numbers):
            replies = super().pull_messages(numbers)
            for reply in replies:
                if (reply.metadata.src_node_id, reply.metadata.message_type) == (13, "train.segment"):
                    reply.metadata.__dict__["_src_node_id"] = 10
            return replies

    for grid_of, reason in ((Unreadable, "malformed"), (Posing, "stranger")):
        strategy = PeerDirect(**SMALL, **DIRECT)
        grid = grid_of(strategy)
        strategy.start(grid, grid.model, 4)
        assert told(strategy) == without("train.segment")
        assert strategy.dropped == {reason: 2}


def test_a_node_that_lies_in_every_reply_and_in_every_word_has_one_line_in_the_log_for_each_reason(caplog):
    columns = {"source": [3] * 5000, "destination": [1] * 5000, "record": ["message.0"] * 5000}
    strategy = play("train.share", route(columns))
    assert strategy.dropped == {"no-edge": 5000}
    play("train.mix", of_agent(agent=0))
    said = [record.getMessage() for record in caplog.records if "node 13" in record.getMessage()]
    assert said == [
        "\t├──> node 13, agents [3], 'message.0' from agent 3 to agent 1: no-edge, they are not neighbours",
        "\t├──> node 13, agents [3], it reports of agent 0: not-hosted, that agent is not on this node",
    ]


def test_what_a_node_says_of_its_problem_is_one_short_line_that_no_terminal_obeys(caplog):
    play("query.who", answer(problem="no\x1b[2J data\n[ROUND 4/4]\ud800" + "x" * 10**5))
    (line,) = (record.getMessage() for record in caplog.records if "node 13" in record.getMessage())
    assert ": no [2J data [ROUND 4/4] xxx" in line
    assert len(line) < 600


def test_what_one_node_alone_measures_or_counts_fills_neither_log_nor_summary(caplog):
    def more(report):
        report["dropped"] = {f"{report['rounds'][0]['number']}-{k}": 1 for k in range(64)}
        report["rounds"][-1]["agents"][0]["metrics"] = {f"{k}" * 50: 1.0 for k in range(100)}

    with caplog.at_level("INFO", logger="flwr"):
        strategy = play("train.mix", saying_of_report(more))
    assert told(strategy) == told(play("train.mix"))
    assert strategy.dropped["lone-metric"] == 4 * 100
    assert strategy.dropped["other"] == 3 * 64
    assert len("".join(caplog.messages)) < 10_000
