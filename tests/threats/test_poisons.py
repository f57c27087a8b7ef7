"""Agents whose own gradients are poisoned."""

import pytest
import torch
from quadratics import normal, objective_of

from ross_flwr.config import ConfigError, resolve
from ross_flwr.engine.host import Host
from ross_flwr.learning.agent import Agent
from ross_flwr.runs.assemble import Experiment
from ross_flwr.threats.poisons import POISONS, PoisonedAgent

PLACE = {0: 0.5, 1: 0.5}


def agents(poison, *, scale=-3.0, since=0):
    parts = 0, objective_of(0, size=50), PLACE, 0, 2
    return Agent(*parts), PoisonedAgent(*parts, poison=poison, scale=scale, since=since)


def gradients(poison, round=4, **settings):
    """An honest gradient and the poisoned one in its place."""
    found = []
    for agent in agents(poison, **settings):
        agent["model"], agent.round = normal(1, 50), round
        found.append(agent.gradient(agent["model"]))
        assert agent.counts["gradients"] == 1
    return found


def test_scaling_is_exact():
    honest, poisoned = gradients("gradient-scaling")
    assert torch.equal(poisoned, honest * -3.0)


def test_noise_has_the_deviation_asked_for_and_is_drawn_anew_for_every_gradient():
    honest, poisoned = gradients("gradient-noise", scale=2.0)
    assert float((poisoned - honest).std()) == pytest.approx(2.0, rel=0.4)
    assert torch.equal(poisoned, gradients("gradient-noise", scale=2.0)[1])
    assert not torch.equal(poisoned - honest, gradients("gradient-noise", scale=2.0, round=5)[1] - honest)
    _, agent = agents("gradient-noise")
    assert not torch.equal(agent.gradient(honest), agent.gradient(honest))


def test_a_constant_takes_the_place_of_the_gradient():
    assert gradients("gradient-constant", scale=0.5)[1].tolist() == [0.5] * 50


@pytest.mark.parametrize("poison", POISONS)
def test_a_sleeper_computes_honest_gradients_until_its_time(poison):
    for round, honest in [(0, True), (3, True), (4, False), (9, False)]:
        truth, given = gradients(poison, round, since=4)
        assert torch.equal(given, truth) is honest


@pytest.mark.parametrize(
    ("target", "own", "crossed"), [("all", True, True), ("model", True, False), ("gradients", False, True)]
)
def test_own_gradients_and_cross_gradients_can_be_poisoned_each_alone(target, own, crossed):
    options = {"algorithm": "ross", "beside": "", "num-agents": 5, "topology": "ring", "attackers": 1, "num-rounds": 1}
    sent = []
    for chosen in (options | {"attack-target": target}, options | {"attack": "none"}):
        experiment = Experiment(resolve(chosen))
        host = Host("run", experiment.algorithm, experiment.agents())
        for step in range(2):
            host.activate(0, step)
        sent.append(
            {(i, j): message["gradient"] for i, inbox in host.mailboxes.items() for j, message in inbox.items()}
        )
    (liar,) = Experiment(resolve(options)).attackers
    spoilt = {edge for edge, gradient in sent[0].items() if not torch.equal(gradient, sent[1][edge])}
    expected = {(liar, liar)} if own else set()
    expected |= {(i, liar) for i in ((liar - 1) % 5, (liar + 1) % 5)} if crossed else set()
    assert spoilt == expected


def test_a_target_that_a_method_does_not_have_is_refused_and_its_own_gradients_are_all_there_is():
    with pytest.raises(ConfigError, match="dpsgd sends none"):
        Experiment(resolve({"algorithm": "dpsgd", "attack-target": "gradients"})).check()
    agents = Experiment(resolve({"algorithm": "local-dsgd", "attack-target": "model", "beside": ""})).agents()
    assert {agent.target for agent in agents if isinstance(agent, PoisonedAgent)} == {"all"}


def test_attackers_and_nobody_else_are_poisoned_from_the_round_asked_for():
    options = {"attack": "gradient-noise", "attack-from": 3, "batches-per-round": 4, "beside": "", "num-agents": 5}
    experiment = Experiment(resolve(options | {"attackers": 2, "topology": "ring"}))
    poisoned = {agent.index: agent for agent in experiment.agents() if isinstance(agent, PoisonedAgent)}
    assert poisoned.keys() == experiment.attackers
    assert {agent.since for agent in poisoned.values()} == {8}
    assert experiment.adversary is None
