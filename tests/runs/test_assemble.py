"""From a configuration to data: validation sets, top-ups, and what the summary says of them."""

import logging

import numpy as np
import pytest
import torch

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import ConfigError, resolve
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.runs.assemble import assemble, read_task
from ross_flwr.runs.local import LocalRun, holdings

OURS = [name for name, cls in ALGORITHMS.items() if cls.__module__.startswith("ross_flwr.")]


def config_of(**options):
    return resolve({key.replace("_", "-"): value for key, value in options.items()})


def images(**options):
    return read_task(config_of(**options))


def classes_of(made, indices):
    return made.source.train.labels[indices].bincount(minlength=10).numpy()


@pytest.mark.parametrize("validation", ["balanced", "own-mix", "few-classes"])
@pytest.mark.parametrize("size", [1, 30, 100])
def test_a_validation_set_has_its_size_and_mix_and_nobody_trains_on_it(validation, size):
    made = images(validation=validation, validation_size=size, classes_per_agent=3)
    trained = set(torch.cat(made.shares.parts).tolist())
    for agent in range(10):
        chosen = made.shares.validation(agent)
        counts = classes_of(made, chosen)
        assert len(chosen) == size
        assert not trained & set(chosen.tolist())
        assert torch.equal(chosen, made.shares.validation(agent))
        if validation == "balanced":
            assert counts.max() - counts.min() <= 1
        elif validation == "few-classes":
            assert (counts > 0).sum() == min(3, size)
        else:
            own = classes_of(made, made.shares.parts[agent])
            assert np.abs(counts - own / own.sum() * size).max() < 1
    assert made.describe()["validation"].startswith(f"{size} examples an agent, ")
    assert "training examples of digits that no agent trains on" in made.describe()["validation"]


def test_a_share_of_the_validation_labels_can_be_wrong():
    right, wrong = (images(validation_noise=share).objective(0).validation for share in (0.0, 0.25))
    assert torch.equal(right.inputs, wrong.inputs)
    assert (right.targets != wrong.targets).sum() == 25
    assert "25% of their labels wrong" in images(validation_noise=0.25).describe()["validation"]


@pytest.mark.parametrize("name", OURS)
def test_without_a_validation_set_a_method_is_refused_or_never_asks_for_one(name, monkeypatch):
    def asked(*_):
        raise AssertionError(f"{name} asks for a utility: it needs_validation")

    monkeypatch.setattr(ModuleObjective, "utility", asked)
    graph = "star" if name == "cgsv-server" else "complete"
    options = {"algorithm": name, "topology": graph, "mixing": "lazy-metropolis", "num-rounds": 8}
    config = resolve(options | {"attackers": 0, "validation-size": 0, "merge-passes": 7})
    algorithm = assemble(config).algorithm
    if algorithm.needs_validation or "validation" in algorithm.trains_on:
        with pytest.raises(ConfigError, match=f"validation-size = 0 .* algorithm = '{name}' needs: use .*'cgsv'"):
            LocalRun(config)
    else:
        assert len(list(LocalRun(config).rounds())) == 8
        with pytest.raises(ConfigError, match="validation-size = 0"):
            LocalRun(resolve(config.values | {"use-validation": True}))


def test_methods_with_losses_are_given_the_same_validation_set_as_ross():
    ross, ubar = (assemble(config_of(algorithm=name, use_validation=True)) for name in ("ross", "ubar"))
    assert (ross.algorithm.needs_validation, ubar.algorithm.needs_validation) == (True, True)
    assert not assemble(config_of(algorithm="ubar")).algorithm.needs_validation
    first, second = ross.agents()[4], ubar.agents()[4]
    assert -first.utility(first["model"], "loss") == second.loss(second["model"], "validation")


def test_who_holds_too_little_is_refused_or_topped_up_and_told(caplog):
    with pytest.raises(ConfigError, match=r"batch-size = 32 .* 'pow' leaves an agent .* too-few = 'top-up'"):
        _ = images(partition="pow").shares.parts
    made = images(partition="pow", too_few="top-up")
    with caplog.at_level(logging.INFO, "ross_flwr"):
        assert min(map(len, made.shares.parts)) == 32
    assert caplog.messages == ["topped up to batch-size = 32: agents [0]"]
    assert list(made.describe()["topped-up"]) == [0]


def test_holdings_count_what_every_agent_holds():
    counts = holdings(resolve({"partition": "iid", "num-agents": 4}))
    assert counts.shape == (4, 10)
    assert counts.sum() == 1437 - 143


@pytest.mark.parametrize(("topology", "seed"), [("ring", 0), ("ring", 3), ("complete", 0)])
def test_attackers_are_anywhere_or_side_by_side_and_the_same_number(topology, seed):
    drawn = {}
    for placed in ("random", "adjacent"):
        options = config_of(topology=topology, attackers=3, attackers_placed=placed, seed=seed)
        drawn[placed] = assemble(options).threats.attackers
    assert len(drawn["random"]) == len(drawn["adjacent"]) == 3
    if topology == "ring":
        assert any(drawn["adjacent"] == {(i + k) % 10 for k in range(3)} for i in range(10))
        assert drawn["random"] != drawn["adjacent"]


def test_corrupted_agents_are_not_those_who_attack_side_by_side():
    options = config_of(
        topology="ring", attackers=3, attackers_placed="adjacent", corruption="label-noise", corrupted=7
    )
    made = assemble(options)
    assert not made.threats.attackers & made.threats.corrupted
