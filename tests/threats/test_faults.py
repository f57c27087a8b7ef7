"""Agents that are away and messages that get lost."""

from types import SimpleNamespace

import pytest
from quadratics import stack, started

from ross_flwr.algorithms import MessageTransform
from ross_flwr.algorithms.dpsgd import DPSGD
from ross_flwr.algorithms.messages import Exchange, Refused
from ross_flwr.algorithms.ross import ROSS
from ross_flwr.config import ConfigError, resolve
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology
from ross_flwr.runs.assemble import assemble
from ross_flwr.runs.local import LocalRun, resume
from ross_flwr.threats.faults import Attendance, Dropout, Loss, Slow, Stopped

RUN = {"seed": 3, "num_agents": 10, "num_rounds": 200}
RING = topology.build("ring", 6)


def is_lost(source, destination, pass_number, number, loss=Loss(0.25), seed=3):  # noqa: B008 (frozen)
    """Whether a message gets lost."""
    exchange = Exchange(pass_number=pass_number, number=number, step="share")
    try:
        loss.receive(SimpleNamespace(index=destination, seed=seed), source, {}, exchange)
    except Refused as error:
        return error.reason == "lost"
    return False


def away(absence, rounds=200):
    attendance = Attendance([absence], **RUN)
    return {i: [t for t in range(rounds) if attendance.absent(i, t)] for i in range(10)}


def test_an_agent_misses_the_part_of_the_rounds_asked_for_and_no_two_miss_the_same():
    missed = away(Dropout(0.3))
    assert sum(map(len, missed.values())) == pytest.approx(600, abs=75)  # 4 deviations
    assert len(set(map(tuple, missed.values()))) == 10


def test_an_outage_lasts_as_long_as_configured():
    for rounds in away(Dropout(0.3, rounds=5)).values():
        assert {t // 5 * 5 + k for t in rounds for k in range(5)} == set(rounds)


def test_those_who_stop_never_come_back_and_were_there_before():
    missed = away(Stopped(3))
    stopped = {i: rounds for i, rounds in missed.items() if rounds}
    assert len(stopped) == 3
    assert all(rounds == list(range(rounds[0], 200)) and rounds[0] >= 1 for rounds in stopped.values())
    assert len({rounds[0] for rounds in stopped.values()}) > 1


def test_a_slow_agent_takes_part_in_every_third_round():
    missed = away(Slow(2, rounds=3), 30)
    slow = {i: sorted(set(range(30)) - set(rounds)) for i, rounds in missed.items() if rounds}
    assert len(slow) == 2
    assert all(there == list(range(there[0], 30, 3)) for there in slow.values())


def test_absences_add_up():
    reasons = [Dropout(0.3), Stopped(3), Slow(2)]
    attendance = Attendance(reasons, **RUN)
    missed = {i: [t for t in range(200) if attendance.absent(i, t)] for i in range(10)}
    each = [away(reason) for reason in reasons]
    assert missed == {i: sorted(set().union(*(rounds[i] for rounds in each))) for i in range(10)}


def test_a_round_of_several_passes_is_missed_as_a_whole():
    one, three = Attendance([Dropout(0.4)], **RUN), Attendance([Dropout(0.4)], **RUN, passes=3)
    assert [three.absent(2, t) for t in range(90)] == [one.absent(2, t // 3) for t in range(90)]


def test_messages_get_lost_at_the_rate_asked_for_and_each_by_itself():
    lost = {
        (i, j, t, s) for i in range(5) for j in range(5) for t in range(20) for s in range(2) if is_lost(i, j, t, s)
    }
    assert len(lost) == pytest.approx(250, abs=55)  # 4 deviations
    assert {(j, i, t, s) for i, j, t, s in lost} != lost


class Cut(MessageTransform):
    """In pass 2 whatever agent 0 sends to agent 1 gets lost."""

    def receive(self, agent, source, message, exchange):
        if (source, agent.index, exchange.pass_number) == (0, 1, 2):
            raise Refused("lost")
        return message


def away_in_pass_1(agent, pass_number):
    return (agent, pass_number) == (2, 1)


def hosts(algorithm, members):
    _, agents = started(RING, algorithm)
    return [
        Host("run", algorithm, [agents[i] for i in block], transforms=[Cut()], absent=away_in_pass_1)
        for block in members
    ]


@pytest.mark.parametrize("algorithm", [DPSGD(), ROSS()], ids=["dpsgd", "ross"])
@pytest.mark.parametrize("members", [[range(6)], [range(3), range(3, 6)]], ids=["one host", "two"])
def test_an_absent_agent_is_missing_to_its_neighbours_and_stays_as_it_was(algorithm, members):
    blocks = hosts(algorithm, members)
    agents = {i: agent for host in blocks for i, agent in host.agents.items()}
    seen = []
    for round in range(3):
        before = agents[2]["model"]
        leaving = []
        for number in range(len(algorithm.steps)):
            arrived, leaving = leaving, []
            for host in blocks:
                leaving += host.activate(round, number, [each for each in arrived if each.destination in host.agents])
        reports = {}
        for host in blocks:
            host.end_pass()
            reports |= {report.agent: report for report in host.end_round(evaluate=False)}
        seen.append({i: report.missing for i, report in reports.items() if report.missing})
        assert (agents[2]["model"] is before) == (round == 1)
        assert (2 in reports) == (round != 1)
    no_model_no_gradient = {0: [1]} if len(algorithm.steps) > 2 else {}
    assert seen == [{}, {1: [2], 3: [2]}, {1: [0], **no_model_no_gradient}]
    assert sum(host.dropped["lost"] for host in blocks) == len(algorithm.steps) - 1


def test_the_history_says_who_was_absent_and_whose_messages_were_missing():
    config = {"algorithm": "dpsgd", "num-rounds": 12, "attackers": 0, "stopped": 2, "message-loss": 0.1}
    run = LocalRun(resolve(config))
    lines = list(run.rounds())
    absent_in, (loss,) = run.assembly.threats.absent, run.assembly.threats.losses
    for line in lines:
        absent = [i for i in range(10) if absent_in(i, line["round"] - 1)]
        assert line["absent"] == absent
        graph = run.assembly.topology
        expected = {(i, j) for j in absent for i in graph.neighbors(j) if i not in absent}
        lost = {(i, j) for i in range(10) for j in graph.neighbors(i) if is_lost(j, i, line["round"] - 1, 0, loss, 0)}
        expected |= {(i, j) for i, j in lost if i not in absent}
        assert set(map(tuple, line["missing"])) == expected
    assert lines[-1]["absent"]


def test_a_resumed_run_has_the_same_faults(tmp_path):
    options = {"num-rounds": 6, "checkpoint-every": 2, "dropout": 0.3, "message-loss": 0.2, "slow": 2}
    config = resolve(options | {"topology-every": 2})
    whole = LocalRun(config, tmp_path / "whole")
    list(whole.rounds())
    half = LocalRun(config, tmp_path / "half")
    for line in half.rounds():
        if line["round"] == 3:
            break
    (rest,) = resume(tmp_path / "half")
    list(rest.rounds())
    same = [stack(run.host.agents.values()) for run in (whole, rest)]
    assert (same[0] == same[1]).all()


@pytest.mark.parametrize("key", ["stopped", "slow"])
def test_somebody_has_to_be_left(key):
    with pytest.raises(ConfigError, match=f"{key} = 10 leaves nobody"):
        assemble(resolve({key: 10})).check()
