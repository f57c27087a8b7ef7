"""FGRPO: models weigh by gains, reported or measured."""

from math import exp

import pytest
import torch
from quadratics import normal, objective_of, run_round, stack, started

from ross_flwr.algorithms.fgrpo import FGRPO
from ross_flwr.algorithms.local_dsgd import LocalDSGD
from ross_flwr.algorithms.messages import Inbox
from ross_flwr.graph import topology
from ross_flwr.learning.agent import Agent

SIZE = 6
ROW = {0: 0.5, 1: 0.3, 2: 0.2}


def reward(model):
    return -0.5 * float(model.square().sum())


@pytest.mark.parametrize("rewards", ["reported", "measured"])
def test_models_weigh_by_gains_over_the_own_past_and_the_past_fades(rewards):
    method = FGRPO(rewards=rewards, gain_temperature=0.5, learning_rate=0.1)
    agent = Agent(0, objective_of(0, size=SIZE), ROW, seed=0, batch_size=5)
    agent["model"] = normal(7, SIZE)
    past = reward(agent["model"])
    own = method.share(agent, Inbox()).message
    gained = (reward(own["model"]) - past) / -past
    assert float(own["gain"]) == pytest.approx(gained, rel=1e-4)
    heard = {j: {"model": normal(j, SIZE), "gain": torch.tensor([told])} for j, told in {1: 0.4, 2: -0.3}.items()}
    method.mix(agent, Inbox({0: own, **heard}))
    gains = {0: gained, 1: 0.4, 2: -0.3}
    if rewards == "measured":
        gains |= {j: (reward(heard[j]["model"]) - past) / -past for j in heard}
    weights = torch.tensor([ROW[j] * exp(gains[j] / 0.5) for j in range(3)])
    models = torch.stack([own["model"], heard[1]["model"], heard[2]["model"]])
    torch.testing.assert_close(agent["model"], weights / weights.sum() @ models, atol=1e-4, rtol=1e-4)
    assert float(agent["baseline"]) == pytest.approx(0.9 * past + 0.1 * reward(own["model"]), rel=1e-5)


def test_with_equal_gains_it_is_local_dsgd():
    graph = topology.build("star", 5)
    options = {"learning_rate": 0.2, "local_steps": 2}
    weighted, plain = (
        started(graph, method) for method in (FGRPO(gain_temperature=1e9, **options), LocalDSGD(**options))
    )
    for number in range(3):
        run_round(weighted[0], number)
        run_round(plain[0], number)
    torch.testing.assert_close(stack(weighted[1]), stack(plain[1]))


@pytest.mark.parametrize(("rewards", "believed"), [("reported", 1.0), ("measured", 0.0)])
def test_a_boast_is_believed_unless_it_is_measured(rewards, believed):
    method = FGRPO(rewards=rewards)
    agent = Agent(0, objective_of(0, size=SIZE), {0: 0.5, 1: 0.5}, seed=0, batch_size=5)
    agent["model"] = normal(7, SIZE)
    boast = {"model": torch.full((SIZE,), 3e19), "gain": torch.tensor([3e38])}
    method.mix(agent, Inbox({0: method.share(agent, Inbox()).message, 1: boast}))
    assert agent.reported["weights"][1] == believed
    assert agent["model"].isfinite().all()
