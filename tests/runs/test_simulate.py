"""The Python API: a run from objects is the run that a configuration names."""

import json

import networkx as nx
import pytest
import torch
from safetensors.torch import load_file

from ross_flwr import DPSGD, ROSS, ConfigError, ROSSPlus, Threats, graph, resolve, simulate, tasks
from ross_flwr.config import values_of
from ross_flwr.engine.engines import Loop
from ross_flwr.runs.local import LocalRun

TINY = {"hidden": 8, "batch_size": 16, "validation_size": 20, "test_size": 50}


@pytest.mark.parametrize("algorithm", [DPSGD(learning_rate=0.2), ROSS(weighting="softmax"), ROSSPlus(local_steps=2)])
def test_objects_give_the_numbers_that_the_configuration_gives(algorithm):
    result = simulate(algorithm, graph.ring(5), tasks.images("digits", **TINY), rounds=2, passes=2, seed=3)
    keys = {name.replace("_", "-"): value for name, value in TINY.items()}
    options = values_of(algorithm)
    run = LocalRun(
        resolve(
            keys
            | options
            | {"algorithm": algorithm.name, "topology": "ring", "num-agents": 5, "attackers": 0}
            | {"num-rounds": 2, "batches-per-round": 2, "seed": 3}
        )
    )
    lines = list(run.rounds())
    for index, model in result.models.items():
        assert torch.equal(model, run.host.agents[index]["model"])
    assert [line["accuracy"] for line in result.history] == [line["accuracy"] for line in lines]
    assert {**result.summary, "seconds": 0, "topology": ""} == {**run.summary(), "seconds": 0, "topology": ""}


def test_a_folder_holds_what_a_run_of_the_command_leaves_and_without_one_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    setting = {"rounds": 2, "engine": Loop(), "on_round": seen.append}
    task = tasks.images("digits", **TINY)
    simulate(DPSGD(), nx.path_graph(3), task, **setting)
    assert list(tmp_path.iterdir()) == []
    result = simulate(DPSGD(), nx.path_graph(3), task, folder=tmp_path / "out", **setting)
    assert [line["round"] for line in seen] == [1, 2, 1, 2]
    lines = (tmp_path / "out/history.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2]
    assert json.loads((tmp_path / "out/summary.json").read_text())["rounds"] == 2
    written = load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in result.state_dict().items())


def test_a_folder_that_holds_a_finished_run_is_refused_and_stays_as_it_is(tmp_path):
    task = tasks.images("digits", **TINY)
    simulate(DPSGD(), nx.path_graph(3), task, rounds=1, folder=tmp_path)
    with pytest.raises(ConfigError, match="holds a run already"):
        simulate(DPSGD(), nx.path_graph(3), task, rounds=2, folder=tmp_path)
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_threats_are_objects_too():
    def flip(gradient, agent, request):
        return -3 * gradient

    threats = Threats(attackers=frozenset({1}), poisons=[flip])
    clean, poisoned = (
        simulate(DPSGD(learning_rate=0.5), graph.complete(4), tasks.images("digits", **TINY), rounds=8, threats=given)
        for given in (None, threats)
    )
    assert poisoned.summary["attackers"] == [1]
    assert clean.summary["loss"]["mean"] < poisoned.summary["loss"]["mean"]


def test_parts_that_do_not_fit_are_refused_in_one_sentence():
    with pytest.raises(ConfigError, match="sends gradients back to where the models came from"):
        simulate(ROSS(), graph.of_graph(graph.directed_ring(4), "push"), tasks.images("digits", **TINY))
    for name, parts in {
        "algorithm": ("ross", graph.ring(4), tasks.images("digits")),
        "topology": (ROSS(), "ring", tasks.images("digits")),
        "task": (ROSS(), graph.ring(4), "digits"),
    }.items():
        with pytest.raises(ConfigError, match=f"{name} = '.*' is not an object that simulate takes: use .*, say"):
            simulate(*parts)
