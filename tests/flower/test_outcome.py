"""What the ServerApp believes of what nodes tell it: a node speaks for its own agents, and in sound records."""

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from ross_flwr.engine.events import AgentReport
from ross_flwr.flower.outcome import consensus, models_of, rounds_of
from ross_flwr.flower.placement import Placement
from ross_flwr.flower.protocol import Report, RoundReport, model_key
from ross_flwr.flower.records import record_of
from ross_flwr.flower.run import Drops

PLACEMENT = Placement({10 + i: (i,) for i in range(4)}, {})
LAYOUT = record_of({"weight": torch.zeros(2, 3), "count": torch.zeros((), dtype=torch.int64)})


def reply_from(node, **records):
    reply = Message(RecordDict(records), reply_to=Message(RecordDict(), node, "train.mix"))
    reply.metadata.__dict__["_src_node_id"] = node
    return reply


def report(*rounds, **dropped):
    return Report([RoundReport(number, seconds, agents) for number, seconds, agents in rounds], dropped).to_record()


@pytest.mark.parametrize(
    "wrong",
    [ConfigRecord({"json": '{"rounds": [5]}'}), ConfigRecord(), report((3, None, [AgentReport(0, gradients=5)]))],
    ids=["not a round", "empty", "a round that was not asked for"],
)
def test_a_malformed_report_costs_that_reply_only(wrong):
    drops = Drops()
    sound = report((1, None, [AgentReport(1, gradients=3)]), (2, 0.5, []))
    replies = [reply_from(10, report=wrong), reply_from(11, report=sound), reply_from(12)]
    told = rounds_of(replies, range(1, 3), PLACEMENT, drops)
    assert [each.agents for each in told[1]] == [[AgentReport(1, gradients=3)]]
    assert [each.seconds for each in told[2]] == [0.5]
    assert drops.counts == {"malformed": 1}


def test_a_node_reports_of_its_own_agents_only_and_what_it_refused_is_counted():
    drops = Drops()
    lying = report((1, None, [AgentReport(0), AgentReport(1)]), shape=2)
    told = rounds_of([reply_from(10, report=lying)], range(1, 2), PLACEMENT, drops)
    assert [each.agents for each in told[1]] == [[AgentReport(0)]]
    assert drops.counts == {"not-hosted": 1, "shape": 2}


def test_a_model_that_does_not_fit_or_is_of_anothers_agent_is_dropped():
    drops = Drops()
    garbled = record_of({"weight": torch.ones(2, 3)})
    garbled["weight"].data = b"no array"
    replies = [
        reply_from(10, **{model_key(0): record_of({"weight": torch.ones(2, 3)})}),
        reply_from(11, **{model_key(0): record_of({"weight": torch.zeros(2, 3)})}),
        reply_from(12, **{model_key(2): record_of({"weight": torch.ones(3, 2)})}),
        reply_from(13, **{model_key(3): garbled, "agent.x": ArrayRecord(), "message.0": ArrayRecord()}),
    ]
    models = models_of(replies, LAYOUT, PLACEMENT, drops)
    assert list(models) == [0]
    assert drops.counts == {"not-hosted": 1, "malformed": 2}


def test_the_consensus_is_the_mean_of_what_agents_learn_and_leaves_the_rest():
    models = [record_of({"weight": torch.full((2, 3), float(value))}) for value in (1, 3)]
    mean = consensus(models, LAYOUT)
    assert (mean["weight"].numpy() == 2).all()
    assert list(mean) == ["weight", "count"]
    assert mean["count"].data == LAYOUT["count"].data
