"""What TensorBoard, MLflow and Weights & Biases are told of a run."""

import re
import sys
import tomllib
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest

from ross_flwr.config import ConfigError, resolve
from ross_flwr.report.trackers import TRACKERS, numbers, trackers

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

LINE = {
    "round": 3,
    "seconds": 0.5,
    "accuracy": {"mean": 0.5, "min": 0.25, "max": 0.75},
    "loss": {"mean": None, "min": 1.0, "max": float("nan")},
    "metrics": {"f1": {"mean": 0.125, "min": 0.0, "max": 0.25}},
    "clean-accuracy": None,
    "consensus-distance": float("inf"),
    "bytes": 24,
    "sent": {"0>1": {"model": 24}},
    "missing": [[1, 0]],
    "absent": [],
    "agents": {"0": 0.25, "1": 0.75},
    "weights": {"0": {"1": 0.5}},
    "time": {"gradients": 0.25},
}
NUMBERS = {
    "seconds": 0.5,
    "accuracy/mean": 0.5,
    "accuracy/min": 0.25,
    "accuracy/max": 0.75,
    "loss/min": 1.0,
    "metrics/f1/mean": 0.125,
    "metrics/f1/min": 0.0,
    "metrics/f1/max": 0.25,
    "bytes": 24,
    "missing": 1,
    "absent": 0,
    "agents/0": 0.25,
    "agents/1": 0.75,
    "time/gradients": 0.25,
}


def test_the_numbers_of_a_line_are_those_that_make_curves():
    assert numbers(LINE) == NUMBERS


def tell(name, folder, rounds=(1, 2)):
    """Log some rounds of a run."""
    (opener,) = trackers(name)
    with opener(folder, resolve({"seed": 7})) as told:
        for number in rounds:
            told({**NUMBERS, "bytes": 10 * number}, number)


def test_tensorboard_reads_back_what_it_was_told_and_a_resumed_run_replaces_it(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra 'tensorboard'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for rounds in ((1, 2), (1, 2, 3)):
        tell("tensorboard", tmp_path, rounds)
        found = EventAccumulator(str(tmp_path / "tensorboard" / "ross"))
        found.Reload()
        assert set(found.Tags()["scalars"]) == set(NUMBERS)
        assert [(each.step, each.value) for each in found.Scalars("bytes")] == [(step, 10 * step) for step in rounds]
        assert found.Scalars("accuracy/mean")[0].value == 0.5
        assert b"seed = 7" in found.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_mlflow_reads_back_what_it_was_told(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra 'mlflow'")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    tell("mlflow", tmp_path / "out")
    (run,) = mlflow.search_runs(experiment_names=["ross-flwr"], output_format="list")
    assert (run.info.run_name, run.info.status) == ("out/ross", "FINISHED")
    assert run.data.params["seed"] == "7"
    assert run.data.metrics == {**NUMBERS, "bytes": 20}
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "bytes")
    assert [(each.step, each.value) for each in history] == [(1, 10), (2, 20)]


def test_weights_and_biases_keeps_what_it_was_told_offline(tmp_path, monkeypatch, capfd):
    wandb = pytest.importorskip("wandb", reason="needs the extra 'wandb'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    (opener,) = trackers("wandb")
    with opener(tmp_path / "out", resolve({"seed": 7})) as told:
        for number in (1, 2):
            told({**NUMBERS, "bytes": 10 * number}, number)
        assert (wandb.run.name, wandb.run.project, wandb.run.config["seed"]) == ("out/ross", "ross-flwr", 7)
        assert {name: wandb.run.summary[name] for name in NUMBERS} == {**NUMBERS, "bytes": 10}  # of the step before
    assert re.search(r"bytes +20\n", capfd.readouterr().err)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_tracker_that_is_not_known_is_refused():
    with pytest.raises(ConfigError, match=r"--log = 'tensorbord' is not known: .* did you mean 'tensorboard'"):
        trackers("tensorbord")
    assert trackers("") == []


@pytest.mark.parametrize("name", TRACKERS)
def test_one_that_is_not_installed_is_named_with_the_extra_that_brings_it(name, monkeypatch):
    module, _ = TRACKERS[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f'is not installed: pip install "{name}>=.* brings it'):
        trackers(name)
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert name in extras


@pytest.mark.parametrize("fails", ["opening", "telling"])
def test_one_that_fails_ends_the_run_in_one_sentence(tmp_path, monkeypatch, fails):
    def refuse(*_arguments, **_options):
        raise RuntimeError("no server at 1.2.3.4\nand much more")

    broken = ModuleType("mlflow")
    broken.set_experiment = refuse if fails == "opening" else print
    monkeypatch.setitem(sys.modules, "mlflow", broken)
    if fails == "telling":
        broken.start_run = lambda run_name: nullcontext()
        broken.log_params, broken.log_metrics = print, refuse
    with pytest.raises(ConfigError, match=r"^--log mlflow failed: no server at 1\.2\.3\.4$"):
        tell("mlflow", tmp_path)
