"""The folder of a run: what stands in it, and that a file is complete or absent."""

import json
import math
import tomllib

import pytest
import torch
from safetensors.torch import load_file

from ross_flwr.config import ConfigError, resolve
from ross_flwr.files import new_folder
from ross_flwr.runs import folder as module
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.local import LocalRun

NAMES = ["checkpoint.safetensors", "config.toml", "history.jsonl", "model.safetensors", "summary.json"]


def files(path):
    return sorted(file.name for file in path.iterdir())


@pytest.fixture
def folder(tmp_path):
    """A folder with all that a run leaves."""
    folder = RunFolder(tmp_path / "results" / "run")
    folder.begin(resolve({"seed": 7}))
    folder.history.write_text('{"round":1}\n')
    folder.write_summary({"rounds": 1})
    folder.write_model({"layer.weight": torch.ones(2, 3)})
    folder.write_checkpoint(1, {"agent.0.model": torch.arange(3.0)}, {"state": {"0": {"model": "agent.0.model"}}})
    return folder


def test_a_run_leaves_five_files_and_nothing_half_written(folder):
    assert files(folder.path) == NAMES


def test_to_look_at_a_folder_does_not_make_it(tmp_path):
    folder = RunFolder(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"absent holds no run: there is no config\.toml in it"):
        folder.read_config()
    assert folder.read_checkpoint() is None
    assert files(tmp_path) == []


def test_the_configuration_holds_every_key_as_resolved(folder):
    config = resolve({"seed": 7})
    assert tomllib.loads(folder.config.read_text(encoding="utf-8")) == config.values
    assert folder.read_config() == config


def test_a_configuration_that_is_none_any_more_is_refused(folder):
    folder.config.write_text("seed = \n")
    with pytest.raises(ConfigError, match=r"config\.toml is not TOML: "):
        folder.read_config()
    folder.config.write_text("sed = 1\n")
    with pytest.raises(ConfigError, match="did you mean seed"):
        folder.read_config()


def test_a_new_run_begins_with_an_empty_history_and_none_of_the_old_results(folder):
    folder.begin(resolve({}))
    assert files(folder.path) == ["config.toml", "history.jsonl"]
    assert folder.history.read_text() == ""
    assert folder.read_config() == resolve({})


def test_the_model_is_kept_under_its_parameter_names_and_any_layout(folder):
    matrix = torch.arange(6.0).view(2, 3)
    folder.write_model({"layer.weight": matrix.T, "layer.bias": torch.zeros(2)})
    model = load_file(folder.path / "model.safetensors")
    assert sorted(model) == ["layer.bias", "layer.weight"]
    assert torch.equal(model["layer.weight"], matrix.T)


def test_the_summary_is_json_even_of_a_run_that_diverged(folder):
    folder.write_summary({"loss": {"mean": math.nan}, "consensus-distance": math.inf, "rounds": 3})
    text = (folder.path / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "loss": {"mean": None},
        "consensus-distance": None,
        "rounds": 3,
    }


def test_a_checkpoint_comes_back_as_it_was(folder):
    last, tensors, rest = folder.read_checkpoint()
    assert last == 1
    assert torch.equal(tensors["agent.0.model"], torch.arange(3.0))
    assert rest == {"state": {"0": {"model": "agent.0.model"}}}


@pytest.mark.parametrize("content", [b"", b"no tensors", None], ids=["empty", "text", "a model"])
def test_a_file_that_is_no_checkpoint_is_refused(folder, content):
    file = folder.path / "checkpoint.safetensors"
    file.write_bytes((folder.path / "model.safetensors").read_bytes() if content is None else content)
    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors is not a checkpoint of a run"):
        folder.read_checkpoint()


def test_a_write_that_fails_leaves_the_file_before_it(folder, monkeypatch):
    def cut_short(tensors, path, metadata):
        path.write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    before = (folder.path / "checkpoint.safetensors").read_bytes()
    monkeypatch.setattr(module, "save_file", cut_short)
    with pytest.raises(ConfigError, match=r"cannot take checkpoint\.safetensors: No space left on device"):
        folder.write_checkpoint(2, {"agent.0.model": torch.zeros(3)}, {})
    assert (folder.path / "checkpoint.safetensors").read_bytes() == before
    assert folder.read_checkpoint()[0] == 1


def test_a_path_that_can_be_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"cannot take config\.toml: "):
            RunFolder(path).begin(resolve({}))


def test_of_two_runs_with_one_folder_the_second_is_refused_and_the_first_keeps_its_files(tmp_path):
    """Both were assembled while the folder was empty, as two commands of the same second are."""
    keys = {"algorithm": "dpsgd", "num-agents": 4, "num-rounds": 1, "topology": "ring", "attackers": 0}
    first, second = (LocalRun(resolve({**keys, "seed": seed}), tmp_path / "out") for seed in (0, 1))
    first.begin()
    with pytest.raises(ConfigError, match="out holds a run already"):
        second.begin()
    list(first.rounds())
    assert first.folder.read_config().values["seed"] == 0
    assert len(first.folder.read_history()) == 1


def test_runs_of_the_same_second_have_folders_of_their_own_and_an_empty_one_does_not_stay(tmp_path):
    with new_folder(tmp_path, "20250131-120000-ross") as first, new_folder(tmp_path, first.name) as second:
        (second / "config.toml").write_text("")
    assert second.name == "20250131-120000-ross-2"
    assert list(tmp_path.iterdir()) == [second]
