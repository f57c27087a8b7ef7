"""Signals as a task: windows of series are learned, dealt by person, and read from a file."""

import re

import numpy as np
import pytest
import torch

from ross_flwr import resolve
from ross_flwr.config import ConfigError
from ross_flwr.data.archive import read_ts
from ross_flwr.runs.assemble import read_task
from ross_flwr.runs.local import LocalRun

KEYS = {"task": "signals", "num-agents": 4, "topology": "complete", "attackers": 0, "validation-size": 24}


def test_activities_are_learned_from_windows():
    keys = {"algorithm": "ross-plus", "attackers": 1, "num-rounds": 12, "evaluate-every": 12, "test-size": 240}
    run = LocalRun(resolve({**KEYS, **keys}))
    *_, last = run.rounds()
    assert last["accuracy"]["min"] > 0.5  # of six


@pytest.mark.parametrize("shape", [(60, 2, 8), (60, 8)])
def test_a_file_of_series_is_standardised_and_dealt_by_its_owners(tmp_path, shape):
    draw = np.random.default_rng(0)
    series = draw.normal(5, 3, shape)
    owners = np.repeat(["ann", "bob", "cid"], 20)
    np.savez(tmp_path / "set.npz", series=series, labels=np.arange(60) % 2, owners=owners)
    keys = {"data-path": str(tmp_path / "set.npz"), "num-agents": 3, "partition": "natural-id", "batch-size": 2}
    task = read_task(resolve({**KEYS, **keys, "validation-size": 2, "model": "mlp"}))
    found = task.source
    assert found.train.inputs.shape[1:] == (shape[1] if len(shape) == 3 else 1, 8)
    torch.testing.assert_close(
        found.train.inputs.mean((0, 2)), torch.zeros(found.train.inputs.shape[1]), atol=1e-5, rtol=0
    )
    assert [len(set(found.owners[part].tolist())) for part in task.shares.parts] == [1, 1, 1]


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ({"series": np.zeros((9, 3, 4))}, "holds series: call them series and labels"),
        ({"series": np.zeros(9), "labels": np.zeros(9)}, "series of shape (9,) holds float64: it takes finite numbers"),
        ({"series": np.full((9, 4), np.nan), "labels": np.zeros(9)}, "it takes finite numbers, n × channels × length"),
        (
            {"series": np.zeros((9, 4)), "labels": np.zeros(8)},
            "labels has shape (8,): it takes one for each of 9 windows",
        ),
    ],
)
def test_a_file_that_cannot_be_learned_from_is_refused_in_one_sentence(tmp_path, arrays, error):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ConfigError, match=re.escape(error)):
        _ = read_task(resolve({**KEYS, "data-path": str(tmp_path / "set.npz")})).source


def test_series_of_the_archives_are_read_from_their_files_and_from_a_package_that_ships_them(tmp_path, monkeypatch):
    folder = tmp_path / "sktime/datasets/data/TwoSteps"
    folder.mkdir(parents=True)
    (tmp_path / "sktime/__init__.py").touch()
    lines = {"TRAIN": [f"{k},1,2:0,{k},1:{'up' if k % 2 else 'down'}" for k in range(40)], "TEST": ["5,5,5:1,2,3:up"]}
    for part, windows in lines.items():
        (folder / f"TwoSteps_{part}.ts").write_text("\n".join(["#by hand", "@problemName TwoSteps", "@data", *windows]))
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = KEYS | {"dataset": "aeon(problem=two-steps)", "num-agents": 2, "batch-size": 2, "validation-size": 4}
    source = read_task(resolve(keys)).source
    assert source.classes == ("down", "up")
    assert (source.train.inputs.shape, source.test.inputs.shape) == ((40, 2, 3), (1, 2, 3))
    assert source.train.targets[:3].tolist() == [0, 1, 0]
    assert source.train.inputs.mean((0, 2)).abs().max() < 1e-6
    file = read_task(resolve(keys | {"dataset": "file", "data-path": str(folder / "TwoSteps_TRAIN.ts")})).source
    assert torch.equal(file.test.inputs, source.test.inputs)
    with pytest.raises(ConfigError, match=r"problem = 'leaps' is not shipped: .*two-steps"):
        _ = read_task(resolve(keys | {"dataset": "aeon(problem=leaps)"})).source
    (folder / "TwoSteps_TRAIN.ts").write_text("@data\n1,2,3:up\n1,?,3:down\n")
    with pytest.raises(ConfigError, match=r"window 2 of .* has gaps or words"):
        read_ts(folder / "TwoSteps_TRAIN.ts")
