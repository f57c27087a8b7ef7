"""Agents whose own gradients are poisoned."""

import pytest
import torch
from quadratics import normal, objective_of

from ross_flwr import tasks
from ross_flwr.config import ConfigError, resolve
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.classes import class_gradients
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.screen import screen
from ross_flwr.runs.assemble import assemble
from ross_flwr.threats.options import AttackOptions
from ross_flwr.threats.poisons import (
    FlippedLabels,
    GradientConstant,
    GradientNoise,
    GradientScaling,
    GradientZero,
    LongestClass,
    OneClass,
    Poisoning,
    ScreenAdaptive,
)

PLACE = {0: 0.5, 1: 0.5}


def agents(*chain):
    """An honest agent and one with this gradient chain."""
    parts = 0, objective_of(0, size=50), PLACE, 0, 2
    honest, poisoned = Agent(*parts), Agent(*parts)
    poisoned.gradient_chain = chain
    return honest, poisoned


def gradients(*chain, round=4):
    """An honest gradient and the poisoned one in its place."""
    found = []
    for agent in agents(*chain):
        agent["model"], agent.pass_number = normal(1, 50), round
        found.append(agent.gradient(agent["model"]))
        assert agent.counts["gradients"] == 1
    return found


def test_scaling_is_exact():
    honest, poisoned = gradients(GradientScaling())
    assert torch.equal(poisoned, honest * -3.0)


def test_noise_has_the_deviation_asked_for_and_is_drawn_anew_for_every_gradient():
    honest, poisoned = gradients(GradientNoise(2.0))
    assert float((poisoned - honest).std()) == pytest.approx(2.0, rel=0.4)
    assert torch.equal(poisoned, gradients(GradientNoise(2.0))[1])
    assert not torch.equal(poisoned - honest, gradients(GradientNoise(2.0), round=5)[1] - honest)
    _, agent = agents(GradientNoise())
    assert not torch.equal(agent.gradient(honest), agent.gradient(honest))


def test_a_constant_takes_the_place_of_the_gradient():
    assert gradients(GradientConstant(0.5))[1].tolist() == [0.5] * 50


def test_zeros_take_the_place_of_the_gradient():
    assert not gradients(GradientZero())[1].any()


@pytest.fixture(scope="module")
def task():
    return tasks.images("digits", hidden=8)(2, 0)


def digits_agent(task, index=0):
    agent = Agent(index, task.objective(index), PLACE, 0, 20)
    agent["model"] = task.model.initial
    return agent


def test_flipped_labels_are_those_of_the_same_mini_batch(task):
    agent = digits_agent(task)
    batch, model = agent.batches.take(3), agent["model"]
    agent.gradient_chain = [FlippedLabels()]
    wanted = agent.objective.gradient(model, Batch(batch.inputs, 9 - batch.targets))
    torch.testing.assert_close(agent.gradient(model, 3), wanted)


def test_all_attackers_tell_the_gradient_of_one_class(task):
    told = []
    for agent in (digits_agent(task, 0), digits_agent(task, 1)):
        classes = class_gradients(agent, agent["model"])
        for scale in (1.0, 4.0):
            agent.gradient_chain = [OneClass(scale)]
            gradient = agent.gradient(agent["model"], of="cross")
            told.append([torch.allclose(gradient, scale * each) for each in classes])
    assert told[0].count(True) == 1
    assert told.count(told[0]) == 4


def screened(agent, gradient):
    """Whether a victim with the attacker's data lets a gradient pass as it is, and how far it opposes descent."""
    model, validation = agent["model"], agent.objective.validation
    agent.gradient_chain = []
    stacked = torch.stack([agent.gradient(model), gradient])
    factors, passes = screen(stacked, class_gradients(agent, model), 0.35)
    descent = agent.objective.gradient(model, validation, training=False)
    return bool(passes[1] and factors[1] == 1), float(gradient @ descent)


def test_the_longest_class_gradient_goes_to_the_limit_of_the_screen_or_as_far_as_asked(task):
    agent = digits_agent(task)
    classes = class_gradients(agent, agent["model"])
    longest = classes[classes.norm(dim=1).argmax()]
    for poison, factor in ((LongestClass(5.0), 5.0), (LongestClass(), None)):
        agent.gradient_chain = [poison]
        gradient = agent.gradient(agent["model"])
        found = float(gradient.norm() / longest.norm())
        torch.testing.assert_close(gradient, found * longest)
        if factor:
            assert found == pytest.approx(factor)
        else:
            assert [screened(agent, share * gradient)[0] for share in (0.99, 1.1)] == [True, False]


def test_an_adaptive_attacker_opposes_descent_more_than_any_class_and_passes_the_screen(task):
    agent = digits_agent(task)
    classes = class_gradients(agent, agent["model"])
    agent.gradient_chain = [ScreenAdaptive()]
    passes, product = screened(agent, agent.gradient(agent["model"], of="cross"))
    assert passes
    assert product < min(0.0, *(screened(agent, each)[1] for each in classes))


def test_an_adaptive_attacker_takes_the_classes_of_the_mini_batch_that_it_looks_at(task):
    """Five examples of Q_i hold five of the ten classes."""
    agent = Agent(0, task.objective(0), PLACE, 0, 32, validation_batch=5)
    agent["model"] = task.model.initial
    assert len(class_gradients(agent, agent["model"])) == 5
    agent.gradient_chain = [ScreenAdaptive()]
    gradient = agent.gradient(agent["model"], of="cross")
    descent = agent.objective.gradient(agent["model"], agent.validation, training=False)
    assert float(gradient @ descent) < 0


def test_a_sleeper_computes_honest_gradients_until_its_time():
    for round, honest in [(0, True), (3, True), (4, False), (9, False)]:
        truth, given = gradients(Poisoning(GradientScaling(), since=4), round=round)
        assert torch.equal(given, truth) is honest


@pytest.mark.parametrize(
    ("options", "poison"),
    [
        ({"attack": "gradient-scaling"}, GradientScaling(-3.0)),
        ({"attack": "gradient-scaling", "attack-strength": 0.5}, GradientScaling(0.5)),
        ({"attack": "gradient-noise", "attack-strength": 2.0}, GradientNoise(2.0)),
        ({"attack": "gradient-zero"}, GradientZero()),
        ({"attack": "one-class", "attack-strength": 4.0}, OneClass(4.0)),
    ],
)
def test_a_poison_takes_its_number_from_the_configuration(options, poison):
    assert resolve(options).part(AttackOptions).chosen() == poison


@pytest.mark.parametrize(
    ("target", "own", "crossed"), [("all", True, True), ("model", True, False), ("gradients", False, True)]
)
def test_own_gradients_and_cross_gradients_can_be_poisoned_each_alone(target, own, crossed):
    options = {"algorithm": "ross", "num-agents": 5, "topology": "ring", "attackers": 1, "num-rounds": 1}
    sent = []
    for chosen in (options | {"attack-target": target}, options | {"attack": "none"}):
        assembly = assemble(resolve(chosen))
        host = assembly.host("run")
        for step in range(2):
            host.activate(0, step)
        sent.append(
            {(i, j): message["gradient"] for i, inbox in host.mailroom.waiting.items() for j, message in inbox.items()}
        )
    (liar,) = assemble(resolve(options)).threats.attackers
    spoilt = {edge for edge, gradient in sent[0].items() if not torch.equal(gradient, sent[1][edge])}
    expected = {(liar, liar)} if own else set()
    expected |= {(i, liar) for i in ((liar - 1) % 5, (liar + 1) % 5)} if crossed else set()
    assert spoilt == expected


def test_a_target_that_a_method_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="dpsgd sends none"):
        assemble(resolve({"algorithm": "dpsgd", "attackers": 3, "attack-target": "gradients"})).check()


@pytest.mark.parametrize(
    ("target", "spoilt"), [("all", {"own", "cross"}), ("model", {"own"}), ("gradients", {"cross"})]
)
def test_every_local_step_is_the_agents_own_gradient(target, spoilt):
    options = {"algorithm": "ross-plus", "num-agents": 5, "topology": "ring", "attackers": 1}
    options |= {"gradients-from": -1, "local-steps": 5}
    assembly = assemble(resolve(options | {"attack-target": target}))
    (liar,), host, seen = assembly.threats.attackers, assembly.host("run"), []
    poisoning, agent = *host.agents[liar].gradient_chain, host.agents[liar]

    def spy(gradient, agent, request):
        poisoned = poisoning(gradient, agent, request)
        seen.append((request.of, not torch.equal(gradient, poisoned)))
        return poisoned

    agent.gradient_chain = [spy]
    for step in range(4):
        host.activate(0, step)
    assert [of for of, _ in seen].count("cross") == 2
    assert [of for of, _ in seen].count("own") == 5
    assert {of for of, changed in seen if changed} == spoilt


def test_attackers_and_nobody_else_are_poisoned_from_the_round_asked_for():
    options = {"attack": "gradient-noise", "attack-from": 3, "batches-per-round": 4, "num-agents": 5}
    assembly = assemble(resolve(options | {"attackers": 2, "topology": "ring"}))
    poisoned = {agent.index: agent.gradient_chain for agent in assembly.agents() if agent.gradient_chain}
    assert poisoned.keys() == assembly.threats.attackers
    assert {poisoning.since for (poisoning,) in poisoned.values()} == {8}
    assert assembly.threats.lies == []
