"""SybilWall: FoolsGold's scores against the listing, the gossip of histories, and what false ones can do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quadratics import normal, run_round, stack, started

from ross_flwr.algorithms import Inbox
from ross_flwr.algorithms.sybilwall import SybilWall, foolsgold, peers, record
from ross_flwr.graph import topology

SIZE = 6


def np_foolsgold(histories):
    """The published listing, with its cut at .99 instead of an exact logit of 1."""
    n = len(histories)
    cosines = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                cosines[i, j] = (
                    histories[i] @ histories[j] / np.linalg.norm(histories[i]) / np.linalg.norm(histories[j])
                )
    most = cosines.max(1) + 1e-5
    for i in range(n):
        for j in range(n):
            if most[i] < most[j]:
                cosines[i, j] *= most[i] / most[j]
    scores = np.clip(1 - cosines.max(1), 0, 1)
    scores = np.minimum(scores / scores.max(), 0.99)
    return np.array([min(1, max(0, math.log(s / (1 - s)) + 0.5)) if s > 0 else 0.0 for s in scores])


@given(n=st.integers(1, 9), seed=st.integers(0, 10**6), shared=st.floats(0, 2))
def test_scores_are_those_of_foolsgold(n, seed, shared):
    histories = normal(seed, n, SIZE) + shared * normal(seed + 1, SIZE)
    np.testing.assert_allclose(foolsgold(histories).numpy(), np_foolsgold(histories.double().numpy()), atol=1e-4)


def test_sybils_get_nothing_and_others_all():
    honest, sybil = torch.eye(SIZE)[:3], torch.ones(SIZE)
    scores = foolsgold(torch.stack([*honest, sybil, 3 * sybil]))
    assert scores.tolist() == [1, 1, 1, 0, 0]
    assert foolsgold(sybil.repeat(3, 1)).tolist() == [0, 0, 0]
    assert foolsgold(torch.stack([sybil, torch.zeros(SIZE)])).tolist() == [1, 1]


@pytest.mark.parametrize("graph", ["ring", "star", "complete"])
def test_rounds_follow_the_listing_with_what_each_agent_knows(graph):
    graph = topology.build(graph, 6)
    host, agents = started(graph, SybilWall(learning_rate=0.1), alike=True)
    for round in range(6):
        models = stack(agents)
        proposals = models - 0.1 * torch.stack([a.objective.gradient(a["model"], a.objective.batch(torch.arange(5)))
                                                for a in agents]).double()  # fmt: skip
        run_round(host, round)
        for i, agent in enumerate(agents):
            known = peers(agent)
            scores = np_foolsgold(np.array([agent[f"history.{p}"].double().numpy() for p in known]))
            near = [p for p in known if p in graph.neighbors(i)]
            assert near == list(graph.neighbors(i))
            weights = np.array([scores[known.index(p)] for p in near] + [1.0])  # neighbours' and the own one's alone
            expected = (weights / weights.sum()) @ proposals[[*near, i]].numpy()
            np.testing.assert_allclose(agent["model"].numpy(), expected, atol=1e-4)
            for p in near:
                torch.testing.assert_close(agent[f"history.{p}"].double(), proposals[p] - agent["origin"].double())


def test_histories_travel_one_hop_a_round_and_tell_how_far_they_came():
    graph = topology.build("path", 5)
    host, agents = started(graph, SybilWall(learning_rate=0.1))
    seen = []
    for round in range(20):
        run_round(host, round)
        seen.append(peers(agents[0]))
    assert seen[:2] == [[1], [1, 2]]
    assert seen[-1] == [1, 2, 3, 4]
    records = {p: agents[0][f"record.{p}"].tolist() for p in peers(agents[0])}
    for p, (hops, heard, source) in records.items():
        assert (hops, source) == (p, 1)
        assert heard <= 20 - p
    assert records[1][1] == 19


def test_a_neighbour_is_told_neither_of_itself_nor_of_oneself_nor_what_it_told():
    graph = topology.build("ring", 6)
    host, agents = started(graph, SybilWall(learning_rate=0.1))
    for round in range(8):
        run_round(host, round)
    for agent in agents:
        for j in graph.neighbors(agent.index):
            for agent.pass_number in range(20):
                told = SybilWall().gossip(agent, j)
                peer = int(told["record"][0])
                assert peer not in (agent.index, j)
                assert agent[f"record.{peer}"][2] != j
                assert torch.equal(told["history"], agent[f"history.{peer}"])
    assert SybilWall().gossip(agents[0], 0) == {}


def test_near_peers_are_told_more_often():
    _, (agent, *_) = started(topology.build("path", 3), SybilWall())
    for p, hops in [(5, 2), (6, 3), (7, 2000)]:
        agent[f"history.{p}"], agent[f"record.{p}"] = normal(p, SIZE), record(hops, 0, 9)
    told = []
    for agent.pass_number in range(500):
        told.append(int(SybilWall().gossip(agent, 1)["record"][0]))
    assert told.count(5) / told.count(6) == pytest.approx(math.exp(0.8), rel=0.3)
    assert 7 not in told
    del agent.state["history.5"], agent.state["history.6"]
    assert SybilWall().gossip(agent, 1)["record"].tolist() == [7, 2000, 0]


@pytest.mark.parametrize(
    ("told", "news"),
    [
        ([5, 1, 6], True),
        ([5, 3, 4], True),
        ([5, 1, 3], False),  # older than what is known
        ([5, 2, 6], False),  # too many hops for so short a time
        ([5, 1, 7], False),
        ([5, 0, 6], False),
        ([5, -9, 6], False),
        ([5, 2**31 - 1, 6], False),
        ([5, 2, -1], False),
        ([2, 1, 6], False),  # a neighbour speaks for itself
        ([0, 1, 6], False),
        ([-1, 0, 0], False),
    ],
)
def test_gossip_that_is_old_impossible_or_of_a_neighbour_is_no_news(told, news):
    _, (agent, *_) = started(topology.build("complete", 3), SybilWall())
    agent.pass_number = 7
    agent["history.5"], agent["record.5"] = torch.zeros(SIZE), record(2, 3, 1)
    message = {"model": normal(1, SIZE), "history": normal(2, SIZE), "record": record(*told)}
    SybilWall().note(agent, 1, message)
    assert peers(agent) == [1, 5]
    assert torch.equal(agent["history.5"], message["history"]) is news
    assert agent["record.5"].tolist() == ([told[1] + 1, told[2], 1] if news else [2, 3, 1])
    torch.testing.assert_close(agent["history.1"], message["model"] - agent["origin"])


def test_sybils_around_an_agent_do_not_move_it_beyond_the_honest():
    graph = topology.build("complete", 6)
    _, (agent, *_) = started(graph, SybilWall())
    honest = [agent["origin"] + normal(j, SIZE) for j in range(3)]
    sybil = agent["origin"] + 50
    messages = [{"model": model, **SybilWall().gossip(agent, 0)} for model in [*honest, sybil, sybil, sybil]]
    SybilWall().mix(agent, Inbox(enumerate(messages)))
    reach = max((model - honest[0]).norm() for model in honest)
    assert (agent["model"] - honest[0]).norm() <= reach
    assert (agent.mix({j: message["model"] for j, message in enumerate(messages)}) - honest[0]).norm() > 5 * reach


def test_a_round_costs_a_model_and_a_history_a_neighbour():
    graph = topology.build("random-regular", 9, degree=4)
    host, _ = started(graph, SybilWall())
    for round in range(3):
        for report in run_round(host, round):
            gossip = {"history": 4 * SIZE, "record": 12} if round else {}  # at first there is nothing to tell
            assert report.sent == {j: {"model": 4 * SIZE, **gossip} for j in graph.neighbors(report.agent)}
            assert (report.gradients, report.utilities, report.missing) == (1, 0, [])


def test_an_agent_that_hears_nobody_keeps_its_own_step():
    _, (agent, *_) = started(topology.build("ring", 4), SybilWall())
    own = normal(3, SIZE)
    assert torch.equal(SybilWall().combine(agent, own, {}), own)
