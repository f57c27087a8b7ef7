"""The lines of a run and what follows from them."""

import json
from math import inf, isnan, nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ross_flwr.engine.events import AgentReport, Round
from ross_flwr.runs.history import History, consensus_distance


def report(agent, accuracy=0.5, loss=1.0, **fields):
    return AgentReport(agent, loss=loss, accuracy=accuracy, **fields)


def read(file):
    """The lines of a file, strictly as JSON has it."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in file.read_text().splitlines()]


def test_statistics_are_over_honest_agents_and_sums_over_all():
    history = History(4, attackers=[2])
    accuracies, losses = [0.5, 0.75, 0.0, 1.0], [1.0, 2.0, 1000.0, 6.0]
    reports = [
        report(
            i,
            accuracies[i],
            losses[i],
            gradients=i + 1,
            utilities=10 * i,
            work=i / 2,
            sent={(i + 1) % 4: {"model": 8 * i}},
        )
        for i in range(4)
    ]
    line = history.add(Round(1, reports, 0.25))
    assert line["accuracy"] == {"mean": 0.75, "min": 0.5, "max": 1.0}
    assert line["loss"] == {"mean": 3.0, "min": 1.0, "max": 6.0}
    assert line["agents"] == {"0": 0.5, "1": 0.75, "2": 0.0, "3": 1.0}
    assert (line["gradients"], line["utilities"], line["work"], line["bytes"]) == (1 + 2 + 3 + 4, 60, 3, 8 * 6)
    assert line["sent"] == {"0>1": {"model": 0}, "1>2": {"model": 8}, "2>3": {"model": 16}, "3>0": {"model": 24}}
    assert line["seconds"] == 0.25
    assert history.honest == [0, 1, 3]


def test_agents_with_bad_data_are_honest_but_triggers_are_tried_on_those_with_clean_data():
    history = History(4, attackers=[0], corrupted=[1])
    reports = [
        report(i, accuracy, attack_success=success)
        for i, (accuracy, success) in enumerate([(0.0, None), (0.25, 1.0), (0.5, 0.25), (1.0, 0.75)])
    ]
    line = history.add(Round(1, reports, 0.1))
    assert line["accuracy"] == {"mean": 1.75 / 3, "min": 0.25, "max": 1.0}
    assert line["clean-accuracy"] == {"mean": 0.75, "min": 0.5, "max": 1.0}
    assert line["attack-success"] == {"mean": 0.5, "min": 0.25, "max": 0.75}
    assert (history.summary()["corrupted"], history.honest) == ([1], [1, 2, 3])


def test_a_round_without_a_test_has_no_statistics():
    line = History(2).add(Round(1, [AgentReport(0, gradients=1), AgentReport(1, gradients=1)], 0.1))
    assert (line["accuracy"], line["loss"], line["consensus-distance"], line["agents"]) == (None, None, None, {})
    assert line["gradients"] == 2


def test_who_was_missing_and_who_was_absent_is_told():
    line = History(4).add(Round(1, [report(0, missing=[1, 3]), report(2)], 0.1))
    assert line["missing"] == [[0, 1], [0, 3]]
    assert line["absent"] == [1, 3]
    assert line["accuracy"]["mean"] == 0.5


def test_an_absent_agent_counts_in_no_statistic_and_the_summary_says_how_often():
    history, models = History(3), {i: torch.tensor([float(i**2)]) for i in range(3)}
    history.add(Round(1, [report(0), report(1)], 0.1, models))
    history.add(Round(2, [], 0.1, models))
    assert history.lines[0]["consensus-distance"] == 0.25
    assert history.lines[1]["consensus-distance"] is None
    assert history.summary()["absent"] == {"0": 1, "1": 1, "2": 2}


def test_the_time_of_a_round_is_the_sum_over_agents():
    times = {"gradients": 0.25, "exchange": 0.5}, {"gradients": 0.5, "utilities": 1.0}
    line = History(2).add(Round(1, [report(i, time=time) for i, time in enumerate(times)], 2.0))
    assert line["time"] == {"gradients": 0.75, "utilities": 1.0, "exchange": 0.5}


def test_weights_are_told_by_agent_and_neighbour():
    line = History(3).add(Round(1, [report(0, weights={0: 0.25, 1: 0.75}), report(1), report(2)], 0.1))
    assert line["weights"] == {"0": {"0": 0.25, "1": 0.75}}


@given(
    num_agents=st.integers(1, 12),
    attackers=st.sets(st.integers(0, 11)),
    seed=st.integers(0, 99),
    spread=st.sampled_from([0.0, 1e-3, 1.0]),
)
def test_the_consensus_distance_is_the_mean_squared_distance_to_the_honest_mean(num_agents, attackers, seed, spread):
    honest = [i for i in range(num_agents) if i not in attackers]
    if not honest:
        return
    generator = torch.Generator().manual_seed(seed)
    models = torch.randn(50, generator=generator) + spread * torch.randn(num_agents, 50, generator=generator)
    kept = models[honest].double().numpy()
    pairs = [((x - y) ** 2).sum() for x in kept for y in kept]
    expected = sum(pairs) / (2 * len(kept) ** 2)  # the mean over all pairs is twice the distance to the mean
    history = History(num_agents, [i for i in attackers if i < num_agents])
    line = history.add(Round(1, [report(i) for i in range(num_agents)], 0.1, dict(enumerate(models))))
    assert line["consensus-distance"] == pytest.approx(expected, rel=1e-3, abs=1e-9)
    assert consensus_distance(list(models[honest])) == line["consensus-distance"]


def test_what_is_no_number_becomes_null_in_the_file(tmp_path):
    file = tmp_path / "history.jsonl"
    history = History(2, file=file)
    models = {0: torch.tensor([1.0]), 1: torch.tensor([inf])}
    line = history.add(Round(1, [report(0, loss=nan), report(1, loss=inf)], 0.1, models))
    assert isnan(line["loss"]["mean"])
    (written,) = read(file)
    assert written["loss"] == {"mean": None, "min": None, "max": None}
    assert written["consensus-distance"] is None
    assert written["accuracy"] == {"mean": 0.5, "min": 0.5, "max": 0.5}


@pytest.mark.parametrize("losses", [(nan, 1.0, 2.0), (1.0, nan, 2.0), (1.0, 2.0, nan)])
def test_one_diverged_agent_shows_wherever_it_stands(losses):
    line = History(3).add(Round(1, [report(i, loss=loss) for i, loss in enumerate(losses)], 0.1))
    assert all(map(isnan, line["loss"].values()))


def test_the_summary_of_a_diverged_run_is_the_same_after_a_restore(tmp_path):
    history = History(2, file=tmp_path / "history.jsonl")
    for number, value in enumerate([1.0, nan], start=1):
        models = {0: torch.tensor([value]), 1: torch.zeros(1)}
        history.add(Round(number, [report(0, loss=value), report(1)], 0.1, models))
    again = History(2, file=history.file)
    again.restore(2)
    assert isnan(history.summary()["consensus-distance"])
    assert again.summary()["consensus-distance"] is None
    assert again.summary()["loss"] == {"mean": None, "min": None, "max": None}


def rounds(count):
    kinds = {"model": 4, "gradient": 2}
    return [
        Round(
            number,
            [
                AgentReport(0, gradients=2, utilities=8, work=1.5, sent={1: kinds}),
                AgentReport(1, gradients=1, sent={0: {"model": number}, 2: {"model": 1}}),
                AgentReport(2, sent={}, loss=0.5 / number, accuracy=number / 10)
                if number % 2
                else AgentReport(2, sent={}),
            ],
            0.125,
            {i: torch.tensor([float(number * i)]) for i in range(3)} if number % 2 else None,
        )
        for number in range(1, count + 1)
    ]


def test_the_file_holds_the_lines(tmp_path):
    history = History(3, file=tmp_path / "history.jsonl")
    lines = [history.add(each) for each in rounds(4)]
    assert read(history.file) == lines == history.lines
    assert [line["round"] for line in lines] == [1, 2, 3, 4]


def test_the_summary_totals_rounds_and_tells_the_last_test():
    history = History(3, attackers=[1])
    for each in rounds(4):
        history.add(each)
    distance = np.var([0.0, 6.0])  # of agents 0 and 2 in round 3
    assert history.summary() == {
        "rounds": 4,
        "accuracy": {"mean": 0.3, "min": 0.3, "max": 0.3},
        "loss": {"mean": 0.5 / 3, "min": 0.5 / 3, "max": 0.5 / 3},
        "consensus-distance": pytest.approx(distance),
        "bytes": 4 * 6 + (1 + 2 + 3 + 4) + 4,
        "gradients": 12,
        "utilities": 32,
        "work": 6,
        "seconds": 0.5,
        "sent": {"0>1": {"model": 16, "gradient": 8}, "1>0": {"model": 10}, "1>2": {"model": 4}},
        "clean-accuracy": None,
        "attack-success": None,
        "metrics": {},
        "tested": {"agents": 1, "of": 2},
        "attackers": [1],
        "corrupted": [],
        "absent": {},
    }
    assert history.lines[0]["sent"] == {"0>1": {"model": 4, "gradient": 2}, "1>0": {"model": 1}, "1>2": {"model": 1}}


def test_the_summary_of_nothing_is_nothing():
    summary = History(3).summary()
    assert (summary["rounds"], summary["bytes"], summary["accuracy"], summary["sent"]) == (0, 0, None, {})


@pytest.mark.parametrize("last", range(6))
@pytest.mark.parametrize("torn", ["", '{"round":6,"sec'])
def test_restoring_forgets_the_rounds_after_the_checkpoint(tmp_path, last, torn):
    file = tmp_path / "history.jsonl"
    history = History(3, file=file)
    for each in rounds(5):
        history.add(each)
    with file.open("a") as out:
        out.write(torn)
    again = History(3, file=file)
    again.restore(last)
    again.rewrite()
    assert again.lines == history.lines[:last] == read(file)
    for each in rounds(5)[last:]:
        again.add(each)
    assert again.lines == history.lines == read(file)
    assert again.summary() == history.summary()
