"""A step declares what it sends, of any shape and type; the receiver checks it without sending itself anything."""

from dataclasses import replace

import pytest
import torch
from quadratics import team

from ross_flwr.algorithms import Algorithm, Form, step
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology

PAIR = topology.build("ring", 3)


class Surveyors(Algorithm):
    """Agents tell their neighbours, and not themselves, three numbers of their model and how often they were asked."""

    name = "surveyors"
    steps = ("tell", "listen")

    @step(sends={"corner": Form((3,)), "asked": Form((1, 2), torch.int64)})
    def tell(self, agent, inbox):
        asked = torch.tensor([[agent.pass_number, agent.index]])
        return {j: {"corner": agent["model"][:3].clone(), "asked": asked} for j in agent.neighbors}

    @step()
    def listen(self, agent, inbox):
        agent["heard"] = torch.cat([message["corner"] for message in inbox.values()] or [torch.zeros(0)])
        agent["sources"] = torch.tensor([int(message["asked"][0, 1]) for message in inbox.values()])


BAD = {
    "the length of the model": ("shape", lambda m: m | {"corner": torch.zeros(6)}),
    "another rank": ("shape", lambda m: m | {"asked": torch.zeros(2, dtype=torch.int64)}),
    "real numbers where whole ones belong": ("dtype", lambda m: m | {"asked": m["asked"].double()}),
    "other whole numbers": ("dtype", lambda m: m | {"asked": m["asked"].int()}),
    "a tensor too few": ("names", lambda m: {"corner": m["corner"]}),
    "a tensor too many": ("names", lambda m: m | {"model": torch.zeros(6)}),
    "nothing": ("names", lambda m: {}),
    "not a number": ("not-finite", lambda m: m | {"corner": m["corner"] * torch.nan}),
}


def hosts(attackers=()):
    algorithm = Surveyors()
    agents = team(PAIR, algorithm)
    return Host("run", algorithm, agents[:1], attackers=attackers), Host("run", algorithm, agents[1:])


def test_vectors_of_another_length_and_whole_numbers_arrive():
    here, there = hosts()
    here.activate(0, 0)
    arrived = [envelope for envelope in there.activate(0, 0) if envelope.destination == 0]
    here.activate(0, 1, arrived)
    assert here.agents[0]["sources"].tolist() == [1, 2]
    expected = torch.cat([there.agents[j]["model"][:3] for j in (1, 2)])
    assert torch.equal(here.agents[0]["heard"], expected)
    (report,) = here.end_round(evaluate=False)
    assert report.sent == {j: {"corner": 12, "asked": 16} for j in (1, 2)}


@pytest.mark.parametrize("fault", BAD)
def test_a_message_of_another_form_is_dropped_by_reason(fault):
    reason, change = BAD[fault]
    here, there = hosts()
    here.activate(0, 0)
    first, second = (envelope for envelope in there.activate(0, 0) if envelope.destination == 0)
    here.activate(0, 1, [first, replace(second, tensors=change(second.tensors))])
    assert here.dropped == {reason: 1}
    assert here.agents[0]["sources"].tolist() == [1]
    (report,) = here.end_round(evaluate=False)
    assert report.missing == [2]


@pytest.mark.parametrize(
    ("attackers", "told"),
    [([], ""), ([2], " (attacks, as configured)"), ([1], " (does not attack, but others do, as configured)")],
)
def test_the_log_tells_whether_the_sender_of_a_dropped_message_attacks(caplog, attackers, told):
    here, there = hosts(attackers)
    here.activate(0, 0)
    (bad,) = (each for each in there.activate(0, 0) if (each.source, each.destination) == (2, 0))
    here.activate(0, 1, [replace(bad, tensors={})])
    assert caplog.messages[0].startswith(f"dropped a message from agent 2{told} to agent 0: names, ")
