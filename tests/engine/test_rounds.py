"""A run in one process: it repeats bit for bit, and so does one that was stopped and resumed."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ross_flwr.config import ConfigError, resolve
from ross_flwr.runs.local import LocalRun, resume
from ross_flwr.runs.options import RunOptions

SMALL = {
    "algorithm": "dpsgd",
    "num-agents": 5,
    "topology": "ring",
    "num-rounds": 6,
    "hidden": 8,
    "batch-size": 16,
    "validation-size": 20,
    "test-size": 50,
    "attackers": 1,
    "checkpoint-every": 2,
}
METHODS = ["dpsgd", "ross"]


def config_of(**changes):
    return resolve(SMALL | {name.replace("_", "-"): value for name, value in changes.items()})


def without_seconds(lines):
    return [{name: value for name, value in line.items() if name not in ("seconds", "time")} for line in lines]


def outcome(run):
    """Everything a run gives, to the bit, but how long it took."""
    states = {
        i: {name: vector.numpy().tobytes() for name, vector in agent.state.items()}
        for i, agent in run.host.agents.items()
    }
    return states, without_seconds(run.history.lines), run.host.dropped


def finished(config, path=None):
    run = LocalRun(config, path)
    for _ in run.rounds():
        pass
    return run


def of_file(path):
    return without_seconds(map(json.loads, (path / "history.jsonl").read_text().splitlines()))


def test_a_line_tells_where_the_time_of_its_round_went():
    for line in finished(config_of(algorithm="ross")).history.lines:
        assert min(line["time"].values()) > 0
        assert sum(line["time"].values()) < line["seconds"]
    assert {line["time"]["utilities"] for line in finished(config_of(algorithm="dpsgd")).history.lines} == {0}


@pytest.mark.parametrize("changes", [{}, {"algorithm": "ross"}, {"model": "cnn", "attackers": 0}], ids=str)
def test_two_runs_are_the_same_bit_for_bit(changes, tmp_path):
    config = config_of(**changes)
    torch.manual_seed(1)
    first = finished(config, tmp_path / "first")
    torch.manual_seed(2)
    second = finished(config, tmp_path / "second")
    assert outcome(second) == outcome(first)
    assert of_file(tmp_path / "first") == of_file(tmp_path / "second") == outcome(first)[1]
    models = [load_file(tmp_path / name / "model.safetensors") for name in ("first", "second")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0] | models[1])


def test_seeds_differ():
    first, second = (finished(config_of(seed=seed, num_rounds=2)) for seed in (0, 1))
    assert outcome(first)[0] != outcome(second)[0]
    assert first.history.lines[-1]["loss"] != second.history.lines[-1]["loss"]


def stop_after(run, rounds):
    """Let the caller lose interest after so many rounds."""
    running = run.rounds()
    for _ in range(rounds):
        next(running)
    running.close()


def interrupt(run, gradients):
    """Press Ctrl-C while an agent computes gradient number `gradients`."""
    batches, calls = run.host.agents[2].batches, iter(range(gradients))
    take = batches.take

    def taken(number):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return take(number)

    batches.take = taken
    with pytest.raises(KeyboardInterrupt):
        for _ in run.rounds():
            pass


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("every", [0, 1, 2])
@given(data=st.data())
@settings(max_examples=6)
def test_a_run_stopped_anywhere_and_resumed_is_the_uninterrupted_one(name, every, tmp_path_factory, data):
    config = config_of(algorithm=name, checkpoint_every=every, evaluate_every=2)
    expected, folder = outcome(finished(config)), tmp_path_factory.mktemp("run")
    run = LocalRun(config, folder)
    per_round = {"dpsgd": 1, "ross": 3}[name]
    for _ in range(data.draw(st.integers(1, 2), label="stops")):
        left = config.part(RunOptions).num_rounds - len(run.history.lines)
        if left and data.draw(st.booleans(), label="in the middle of a round"):
            interrupt(run, data.draw(st.integers(0, left * per_round - 1), label="gradients"))
        else:
            stop_after(run, data.draw(st.integers(min(1, left), left), label="rounds"))
        (run,) = resume(folder)
    for _ in run.rounds():
        pass
    assert outcome(run) == expected
    assert of_file(folder) == expected[1]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["bytes"] == sum(line["bytes"] for line in expected[1])


def test_a_finished_run_can_be_resumed_and_has_nothing_left_to_do(tmp_path):
    expected = outcome(finished(config_of(), tmp_path))
    (tmp_path / "summary.json").unlink()
    (run,) = resume(tmp_path)
    assert list(run.rounds()) == []
    assert outcome(run) == expected
    assert json.loads((tmp_path / "summary.json").read_text())["rounds"] == 6


def test_a_line_that_was_cut_short_does_not_stand_in_the_way(tmp_path):
    stop_after(LocalRun(config_of(), tmp_path), 3)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"round":4,"seco')
    (run,) = resume(tmp_path)
    for _ in run.rounds():
        pass
    assert outcome(run) == outcome(finished(config_of()))
    assert of_file(tmp_path) == outcome(run)[1]


def test_a_new_run_in_a_used_folder_starts_from_nothing(tmp_path):
    finished(config_of(seed=1), tmp_path)
    run = finished(config_of(seed=2, num_rounds=3), tmp_path)
    assert of_file(tmp_path) == outcome(run)[1]
    assert outcome(resume(tmp_path)[0]) == outcome(run)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("passes", [2, 3])
def test_a_round_of_several_passes_is_as_many_rounds_of_one(name, passes):
    single = finished(config_of(algorithm=name, num_rounds=6))
    several = finished(config_of(algorithm=name, num_rounds=6 // passes, batches_per_round=passes))
    assert outcome(several)[0] == outcome(single)[0]
    for count in ("bytes", "gradients", "utilities", "work"):
        assert several.summary()[count] == pytest.approx(single.summary()[count])  # of work, thirds are summed
    for number, line in enumerate(several.history.lines, start=1):
        assert line["accuracy"] == single.history.lines[number * passes - 1]["accuracy"]


def test_agents_are_tested_every_so_many_rounds_and_in_the_last():
    lines = finished(config_of(num_rounds=7, evaluate_every=3)).history.lines
    assert [line["round"] for line in lines if line["accuracy"]] == [3, 6, 7]
    assert [line["round"] for line in lines if line["consensus-distance"] is not None] == [3, 6, 7]
    assert [len(line["agents"]) for line in lines] == [0, 0, 5, 0, 0, 5, 5]


def test_rounds_that_are_named_are_tested_too():
    lines = finished(config_of(num_rounds=7, evaluate_every=3, evaluate_at="2,6,9")).history.lines
    assert [line["round"] for line in lines if line["accuracy"]] == [2, 3, 6, 7]
    with pytest.raises(ConfigError, match="evaluate-at = '2;6' is not allowed: it takes rounds with commas"):
        finished(config_of(evaluate_at="2;6"))


def test_the_model_of_a_run_is_the_mean_of_the_honest_ones(tmp_path):
    run = finished(config_of(num_rounds=2), tmp_path)
    honest = [run.host.agents[i]["model"].double() for i in range(5) if i not in run.assembly.threats.attackers]
    assert len(honest) == 4
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    vector = torch.cat([saved[name].reshape(-1) for name in ("1.weight", "1.bias", "3.weight", "3.bias")])
    torch.testing.assert_close(vector.double(), sum(honest) / 4, atol=1e-6, rtol=1e-6)


def test_a_run_that_diverges_ends_in_files_that_can_be_read(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    run = finished(config_of(learning_rate=1e30, num_rounds=4), tmp_path)
    lines = [json.loads(line, parse_constant=refuse) for line in (tmp_path / "history.jsonl").open()]
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert run.host.dropped["not-finite"] > 0
    assert lines[-1]["loss"]["mean"] is None
    assert summary["loss"]["mean"] is None
