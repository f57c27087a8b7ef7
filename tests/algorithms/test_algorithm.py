"""What a method is made of, and how anybody adds one."""

import dataclasses

import pytest
import torch
from quadratics import full_gradients, normal, stack, team

from ross_flwr import config
from ross_flwr.algorithms import ALGORITHMS, Algorithm, Inbox, Outbox, broadcast, register, step
from ross_flwr.config import ConfigError, keys, option, resolve
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology
from ross_flwr.learning.agent import Agent
from ross_flwr.runs.local import LocalRun


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """Forget the methods that a test registers."""
    monkeypatch.setattr(config.groups, "_owners", dict(config.groups._owners))
    before = dict(ALGORITHMS)
    yield
    ALGORITHMS.clear()
    ALGORITHMS.update(before)


def sign_gossip():
    """Register a method of three steps that is nobody's but this test's."""

    @register("sign-gossip")
    class SignGossip(Algorithm):
        """Average twice, and step along the sign of the gradient."""

        shrink: float = option(0.5, "factor on the step", minimum=0.0, maximum=1.0)

        @step(sends=("model",))
        def tell(self, agent: Agent, inbox: Inbox) -> Outbox:
            return broadcast(model=agent["model"])

        @step(sends=("average",))
        def again(self, agent: Agent, inbox: Inbox) -> Outbox:
            return broadcast(average=agent.mix(inbox.gather("model")))

        @step()
        def descend(self, agent: Agent, inbox: Inbox) -> None:
            length = self.shrink * self.learning_rate
            agent["model"] = agent.mix(inbox.gather("average")) - length * agent.gradient(agent["model"]).sign()

        def helper(self):
            """No step."""

    return SignGossip


def test_steps_are_in_the_order_of_definition_and_nothing_else_is_one():
    assert sign_gossip().steps == ("tell", "again", "descend")
    assert ALGORITHMS["ross"].steps == ("share", "cross_gradients", "descend", "mix")
    assert ALGORITHMS["dpsgd"].steps == ("share", "mix")


def test_registering_makes_options_into_configuration_keys():
    with pytest.raises(ConfigError, match=r"key shrink .* is not known"):
        resolve({"shrink": 0.25})
    sign_gossip()
    key = next(key for key in keys() if key.name == "shrink")
    assert (key.kind, key.default, key.minimum, key.maximum, key.owners) == (float, 0.5, 0.0, 1.0, ("sign-gossip",))
    assert resolve({}).values["shrink"] == 0.5
    resolved = resolve({"algorithm": "sign-gossip", "shrink": 0.25, "learning-rate": 0.75})
    made = resolved.part(ALGORITHMS["sign-gossip"])
    assert (made.name, made.shrink, made.learning_rate) == ("sign-gossip", 0.25, 0.75)
    with pytest.raises(ConfigError, match=r"shrink = 1.5 is not allowed: it takes a number from 0 to 1"):
        resolve({"shrink": 1.5})


def test_a_key_that_owners_share_is_listed_once():
    sign_gossip()
    names = [key.name for key in keys()]
    assert names.count("learning-rate") == 1
    assert len(set(names)) == len(names)


def test_hyper_parameters_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve({}).part(ALGORITHMS["dpsgd"]).learning_rate = 1.0


def test_a_class_without_steps_is_refused():
    class Idle(Algorithm):
        patience: float = option(1.0, "how idle")

        def share(self, agent, inbox):
            return broadcast(model=agent["model"])

    with pytest.raises(ConfigError, match="'idle' has no steps: decorate its message handlers with @step"):
        register("idle")(Idle)
    assert "idle" not in ALGORITHMS
    assert "patience" not in resolve({}).values


def with_option(name, declared):
    """Register a method of one step with the option `declared` under ``strength``."""
    body = {"__annotations__": {"strength": type(declared.default)}, "strength": declared, "__module__": __name__}
    return register(name)(type(name, (Algorithm,), body | {"only": step()(lambda self, agent, inbox: None)}))


DIFFERENT = {
    "meaning": lambda: option(0.5, "how weak", minimum=0.0),
    "range": lambda: option(0.5, "how strong", minimum=0.25),
    "type": lambda: option(1, "how strong", minimum=0.0),
}


@pytest.mark.parametrize("difference", DIFFERENT)
def test_two_owners_cannot_declare_one_key_differently(difference):
    with_option("first", option(0.5, "how strong", minimum=0.0))
    with pytest.raises(ConfigError, match="key strength of second is already declared differently by first"):
        with_option("second", DIFFERENT[difference]())
    assert "second" not in ALGORITHMS
    assert resolve({"strength": 0.75}).part(ALGORITHMS["first"]).strength == 0.75


def test_two_owners_can_share_a_key():
    for name in ("first", "second"):
        with_option(name, option(0.5, "how strong", minimum=0.0))
    resolved = resolve({"strength": 0.75})
    assert [resolved.part(ALGORITHMS[name]).strength for name in ("first", "second")] == [0.75, 0.75]


def test_owners_that_share_a_key_may_differ_in_its_default():
    with_option("first", option(0.5, "how strong", minimum=0.0))
    with_option("second", option(0.25, "how strong", minimum=0.0))

    def strengths(raw):
        return [resolve(raw).part(ALGORITHMS[name]).strength for name in ("first", "second")]

    assert strengths({}) == strengths({"strength": ""}) == [0.5, 0.25]
    assert strengths({"strength": 0.75}) == [0.75, 0.75]


def test_a_method_cannot_redefine_a_key_of_the_run():
    with pytest.raises(ConfigError, match="key seed of greedy is already declared differently by every run"):
        register("greedy")(
            type(
                "Greedy",
                (Algorithm,),
                {
                    "__annotations__": {"seed": int},
                    "seed": option(3, "mine", minimum=0),
                    "__module__": __name__,
                    "only": step()(lambda self, agent, inbox: None),
                },
            )
        )


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"algorithm = 'dspgd' is not known.*did you mean 'dpsgd'"):
        LocalRun(resolve({"algorithm": "dspgd"}))


def test_an_inbox_is_gathered_by_source():
    vectors = normal(0, 3, 2)
    inbox = Inbox({1: {"model": vectors[0], "momentum": vectors[1]}, 4: {"model": vectors[2], "momentum": vectors[0]}})
    gathered = inbox.gather("model")
    assert list(gathered) == [1, 4]
    assert torch.equal(gathered[1], vectors[0])
    assert torch.equal(gathered[4], vectors[2])


def test_a_method_of_ones_own_computes_what_its_steps_say():
    graph = topology.build("ring", 5)
    algorithm = sign_gossip()(learning_rate=0.2, shrink=0.25)
    agents = team(graph, algorithm)
    models, weights = stack(agents), torch.from_numpy(graph.mixing.copy())
    host = Host("run", algorithm, agents)
    for round in range(3):
        for number in range(3):
            host.activate(round, number)
        models = weights @ (weights @ models) - 0.05 * full_gradients(agents, models).sign()
    torch.testing.assert_close(stack(agents), models, atol=1e-6, rtol=1e-6)


def test_a_method_of_ones_own_runs_from_a_configuration():
    sign_gossip()
    options = {"algorithm": "sign-gossip", "num-agents": 4, "topology": "ring", "hidden": 8, "validation-size": 20}
    options |= {"num-rounds": 20, "attackers": 0, "batch-size": 16, "partition": "iid", "learning-rate": 0.04}
    lines = list(LocalRun(resolve(options)).rounds())
    assert lines[-1]["accuracy"]["mean"] > lines[0]["accuracy"]["mean"] + 0.2
    run = LocalRun(resolve(options | {"shrink": 0.0}))
    initial = run.assembly.task.model.initial
    lines = list(run.rounds())
    assert all(torch.allclose(agent["model"], initial) for agent in run.host.agents.values())
    assert [line["gradients"] for line in lines] == [4] * 20
    assert set(lines[0]["sent"]["0>1"]) == {"model", "average"}
