"""An attacker defends itself nowhere: what it shares is what its poison makes of it, whatever the method."""

from functools import cache

import pytest
import torch
from quadratics import normal, objective_of

from ross_flwr.algorithms import ALGORITHMS, MessageTransform
from ross_flwr.config import resolve
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.rules import Mean, Median
from ross_flwr.runs.assemble import assemble

OURS = [name for name, cls in ALGORITHMS.items() if cls.__module__.startswith("ross_flwr.")]
SETTING = {
    "num-agents": 6,
    "num-rounds": 3,
    "topology": "random-regular",
    "topology-degree": 4,
    "too-few": "top-up",
    "batch-size": 16,
    "validation-size": 30,
    "test-size": 100,
    "hidden": 8,
    "attackers": 2,
}
OF_METHOD = {
    "cgsv-server": {"topology": "star"},
    "d2": {"mixing": "lazy-metropolis"},
    "dadam": {"optimizer": "sgd"},  # Adam's steps are as long as it makes them, whatever attackers make of gradients
    "sgp": {"mixing": "push"},
    "single-merge": {"topology": "complete", "merge-passes": 1, "gossip-every": 1},
    **{name: {"dp-clip": 1e4, "dp-noise": 1e-9} for name in OURS if ALGORITHMS[name].private},
}
SHARE_NOTHING = {"centralized", "isolated", "isolated-with-validation", "validation-only"}
SHARED = {"model", "update"}
"""What others make their models of: the server of `cgsv-server` hears updates."""

TOLERANCE = 0.9
"""`bristle` shares the output layer alone, and poison moves other layers a little more."""


class Spy(MessageTransform):
    """Keeps what each agent told others last to mix with."""

    def __init__(self):
        self.told = {}

    def send(self, agent, outbox, exchange):
        for message in outbox.values():
            for name in message.keys() & SHARED:
                self.told[agent.index] = message[name]
        return outbox


def host_of(method, **options):
    assembly = assemble(resolve(SETTING | OF_METHOD.get(method, {}) | {"algorithm": method} | options))
    return assembly.host("run"), assembly.threats.attackers


def run_pass(host, number):
    for step in range(len(host.algorithm.steps)):
        host.activate(number, step)
    host.end_pass()


def distances(method, liars, **options):
    """How far from the mean of the other agents' models lies what `liars` tell, in each of two passes."""
    host, _ = host_of(method, **options)
    spy, found = Spy(), []
    host.mailroom.transforms = [*host.mailroom.transforms, spy]
    for number in range(2):
        run_pass(host, number)
        told = torch.stack([spy.told[i] for i in sorted(spy.told)])
        attack = torch.tensor([i in liars for i in sorted(spy.told)])
        found.append(float((told[attack] - told[~attack].mean(0)).norm(dim=1).mean()))
    return found


@cache
def harm(method):
    """How many times farther off poison takes attackers, where it first does so."""
    liars = host_of(method)[1]
    poisoned, clean = distances(method, liars), distances(method, liars, attackers=0)
    return next((p / c for p, c in zip(poisoned, clean, strict=True) if p != c), 0.0)


@pytest.mark.parametrize("method", [name for name in OURS if name not in SHARE_NOTHING | {"deca"}])  # it shares blocks
def test_no_methods_attackers_share_milder_models_than_those_of_dpsgd(method):
    assert harm(method) > TOLERANCE * harm("dpsgd")


@pytest.mark.parametrize("method", sorted(SHARE_NOTHING))
def test_a_reference_that_shares_nothing_is_left_out(method):
    host, _ = host_of(method)
    assert not any(host.algorithm.forms(step, host.agents[0]) for step in host.algorithm.steps)


def test_an_attacker_mixes_by_the_mean_whatever_the_rule():
    agent = Agent(0, objective_of(0, size=4), {0: 0.4, 1: 0.3, 2: 0.3}, 0, 2, Median())
    vectors = {j: normal(j, 4) for j in range(3)}
    honest = agent.mix(vectors)
    agent.undefended_from = 0
    assert not torch.equal(agent.mix(vectors), honest)
    agent.rule = Mean()
    undefended = agent.mix(vectors)
    agent.undefended_from = 1
    assert torch.equal(agent.mix(vectors), undefended)


@pytest.mark.parametrize("method", ["bristle", "fgrpo", "pfedgame", "sybilwall"])
def test_an_attacker_takes_the_plain_mean_where_its_method_judges_models(method):
    host, attackers = host_of(method)
    host.activate(0, 0)
    attacker = host.agents[min(attackers)]
    told = {j: message["model"] for j, message in host.mailroom.waiting[attacker.index].items()}
    host.activate(0, 1)
    mixed = attacker["model"]
    if method == "bristle":
        mixed = mixed[attacker.objective.output_layer]
    torch.testing.assert_close(mixed, torch.stack([*told.values()]).mean(0))


def test_an_attacker_rewards_all_with_the_plain_mean():
    host, attackers = host_of("cgsv-reward")
    host.activate(0, 0)
    told = {j: message["model"] for j, message in host.mailroom.waiting[min(attackers)].items()}
    host.activate(0, 1)
    for j, model in told.items():
        reward = host.mailroom.waiting[j][min(attackers)]["reward"]
        torch.testing.assert_close(model + reward, torch.stack([*told.values()]).mean(0))


@pytest.mark.parametrize("method", ["cga", "cgsv", "ross", "ross-plus"])
def test_an_attacker_follows_its_own_gradient_alone_for_all_its_steps(method):
    host, attackers = host_of(method, **({"gradients-from": -1} if method == "ross-plus" else {}))
    for step in range(len(host.algorithm.steps)):
        host.activate(0, step)
    for index in attackers:
        assert host.agents[index].reported["weights"] == {index: 1.0}
        assert host.agents[index].counts["gradients"] == 5 + 4 * (method == "ross-plus")
        assert host.agents[index].counts["utilities"] == 0


def test_a_sleeper_defends_itself_until_its_time():
    options = {"attack-from": 2, "aggregator": "median"}
    host, honest = host_of("ross", **options)[0], host_of("ross", **options, attackers=0)[0]
    for number in range(2):
        run_pass(host, number)
        run_pass(honest, number)
        alike = {i for i in honest.agents if torch.equal(host.agents[i]["model"], honest.agents[i]["model"])}
        assert alike == (set(range(6)) if number == 0 else set())
