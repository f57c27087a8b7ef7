"""Rules in methods: each robust method is local steps and its rule, and each rule works in every method that mixes."""

import pytest
import torch
from quadratics import full_gradients, normal, objective_of, run_round, stack, started, team

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.algorithms.bridge import BRIDGE
from ross_flwr.algorithms.dpsgd import DPSGD
from ross_flwr.algorithms.messages import Inbox
from ross_flwr.algorithms.pfedgame import PFedGame
from ross_flwr.config import ConfigError, groups, option, resolve
from ross_flwr.graph import topology
from ross_flwr.learning import rules
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.rules import RULES, Rule, Stacked, register_rule
from ross_flwr.runs.assemble import assemble
from ross_flwr.runs.local import LocalRun

METHODS = ("bridge", "ubar", "clipped-gossip", "monna", "ios", "balance", "resilient-p2p", "flag", "pfedgame")
CTA = {"bridge", "ubar"}
SIZE = 6
SMALL = {
    "num-agents": 6,
    "topology": "random-regular",
    "topology-degree": 4,
    "num-rounds": 3,
    "evaluate-every": 3,
    "validation-size": 20,
    "hidden": 8,
}


@pytest.mark.parametrize("steps", [1, 3])
def test_a_robust_method_is_local_steps_and_its_rule(steps):
    graph = topology.build("complete", 7)
    for name in sorted(set(METHODS) - {"pfedgame", "clipped-gossip", "monna"}):
        method = ALGORITHMS[name](learning_rate=0.2, local_steps=steps)
        twins = team(graph, method)
        host, _ = started(graph, method)
        for number in range(2):
            models = stack(twins).float()
            trained = models
            for _ in range(steps):
                trained = trained - 0.2 * full_gradients(twins, trained.double()).float()
            sent = models if name in CTA else trained
            after = []
            for twin in twins:
                twin["model"], twin.pass_number = sent[twin.index], number
                mixed = twin.mix({j: sent[j] for j in range(7)})
                after.append(mixed + (trained - models)[twin.index] if name in CTA else mixed)
            for twin, model in zip(twins, after, strict=True):
                twin["model"] = model
            run_round(host, number)
            found = stack(list(host.agents.values())).float()
            torch.testing.assert_close(
                found, torch.stack(after), atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )


def test_momenta_of_robust_methods_go_on_through_local_steps():
    graph = topology.build("complete", 5)
    weights = torch.from_numpy(graph.mixing.copy())
    for name, scale, rule in (
        ("clipped-gossip", 1.0, rules.ClippedGossip(byzantine=0)),
        ("monna", 0.25, rules.NearestNeighbors(byzantine=0)),
    ):
        host, agents = started(graph, ALGORITHMS[name](learning_rate=0.2, momentum=0.75, local_steps=2, rule=rule))
        models, momentum = stack(agents), torch.zeros(5, SIZE).double()
        for number in range(3):
            run_round(host, number)
            for _ in range(2):
                momentum = 0.75 * momentum + scale * full_gradients(agents, models)
                models = models - 0.2 * momentum
            models = weights @ models if name == "clipped-gossip" else models.mean(0).expand_as(models)
            torch.testing.assert_close(stack(agents), models, atol=1e-5, rtol=1e-5)


def test_a_round_costs_one_model_a_neighbour_k_gradients_and_the_losses_it_is_said_to():
    graph = topology.build("random-regular", 9, degree=6)
    for name in METHODS:
        host, _ = started(graph, ALGORITHMS[name](learning_rate=0.1, local_steps=2))
        losses = {"ubar": 1 + 2, "resilient-p2p": 1 + 6, "pfedgame": 6 + 4}.get(name, 0)
        for number in range(2):
            for report in run_round(host, number):
                assert report.sent == {j: {"model": 4 * SIZE} for j in graph.neighbors(report.agent)}, name
                assert (report.gradients, report.utilities, report.missing) == (2, losses, []), name


def test_an_agent_that_hears_nobody_takes_its_own_step():
    for name in METHODS:
        method = ALGORITHMS[name](learning_rate=0.1)
        agent = started(topology.build("complete", 2), method)[1][0]
        before, size = stack([agent]), 0.01 if name == "monna" else 0.1
        expected = before - size * full_gradients([agent], before)
        own = method.share(agent, Inbox()).message
        method.mix(agent, Inbox({agent.index: own}))
        torch.testing.assert_close(stack([agent]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"own": 0.5, "peer": 0.5, "pair": 0.5}, 0.5),
        ({"own": 0.4, "peer": 0.6, "pair": 0.8}, 0.625),
        ({"own": 0.9, "peer": 0.1, "pair": 0.5}, 0.0),
        ({"own": 0.1, "peer": 0.9, "pair": 0.5}, 1.0),
        ({"own": 0.0, "peer": 0.0, "pair": 0.0}, 0.0),
    ],
)
def test_a_game_of_two_is_settled_by_accuracy_where_that_is_asked_for(values, expected):
    class Judge(Agent):
        def utility(self, vector, kind):
            assert kind == "accuracy"
            return values[{0.0: "own", 1.0: "peer"}.get(float(vector[0]), "pair")]

    agent = Judge(0, objective_of(3), {0: 0.5, 1: 0.5}, seed=0, batch_size=5)
    result = PFedGame(utility="accuracy").combine(agent, torch.zeros(SIZE), {1: torch.ones(SIZE)})
    torch.testing.assert_close(result, torch.full((SIZE,), expected))


def test_a_game_of_two_is_settled_by_the_likelihood_of_the_loss():
    agent = Agent(0, objective_of(3), dict.fromkeys(range(4), 0.25), seed=0, batch_size=5)
    own, others = normal(1, SIZE), {j: normal(j + 5, SIZE) for j in (1, 2, 3)}

    def value(x):
        return float(torch.exp(-0.5 * (x**2).sum()))

    z = own
    for x in sorted(others.values(), key=value, reverse=True)[:2]:
        half = value((z + x) / 2)
        phi_own, phi_peer = max(0, value(z) + half - value(x)), max(0, value(x) + half - value(z))
        z = (phi_own * z + phi_peer * x) / (phi_own + phi_peer)
    torch.testing.assert_close(PFedGame().combine(agent, own, others), z)


def test_nan_is_told_as_an_infinite_loss():
    class Broken(type(objective_of(3))):
        def loss(self, vector, batch):
            return float("nan")

        def utility(self, vector, kind, batch):
            return float("nan")

    agent = Agent(0, Broken(normal(0, 5, SIZE)), {0: 1.0}, seed=0, batch_size=5)
    assert agent.loss(torch.zeros(SIZE)) == agent.loss(torch.zeros(SIZE), "validation") == float("inf")
    assert agent.counts["utilities"] == 2


# Rules in runs


def test_every_rule_mixes_in_every_kind_of_method_and_survives_an_attacker():
    for name in [name for name, cls in RULES.items() if cls.__module__.startswith("ross_flwr")]:
        for method in ("ross", "dpsgd", "dmsgd"):
            keys = {"aggregator": name, "algorithm": method, "attackers": 1, "attack": "ipm", "learning-rate": 0.05}
            more = {"num-agents": 8, "topology-degree": 6} if name == "bulyan" else {}
            run = LocalRun(resolve(SMALL | keys | more))
            untrained = run.assembly.task.objective(0).test(run.assembly.task.model.initial)
            *_, line = run.rounds()
            assert line["loss"]["mean"] < 1.1 * untrained["loss"], (name, method)
            honest = [agent["model"] for i, agent in run.host.agents.items() if i not in run.assembly.threats.attackers]
            assert all(not torch.equal(model, run.assembly.task.model.initial) for model in honest), (name, method)


@pytest.mark.parametrize("name", [*METHODS, "dpsgd"])
def test_two_of_ten_who_climb_the_loss_are_survived_but_not_by_plain_mixing(name):
    config = {"algorithm": name, "num-rounds": 60, "evaluate-every": 60, "attackers": 2, "seed": 1}
    *_, line = LocalRun(resolve(config)).rounds()
    assert (line["accuracy"]["mean"] > 0.3) is (name != "dpsgd")


def test_the_median_saves_dpsgd_from_the_attack_that_ruins_it():
    keys = {"algorithm": "dpsgd", "attackers": 2, "topology": "complete", "num-rounds": 30}
    accuracy = {}
    for name in ("mean", "median"):
        *_, last = LocalRun(resolve({**keys, "partition": "iid", "aggregator": name, "evaluate-every": 30})).rounds()
        accuracy[name] = last["accuracy"]["mean"]
    assert accuracy["median"] > 0.8
    assert accuracy["mean"] < accuracy["median"] - 0.2


def test_the_keys_name_the_rule_and_its_parameters_and_a_method_may_have_one_of_its_own():
    def rule(**keys):
        return assemble(resolve({"algorithm": "dpsgd", **keys})).rule

    assert rule() == rules.Mean()
    keys = {"aggregator": "krum", "byzantine": 2, "pre-aggregation": "nnm"}
    assert rule(**keys) == rules.NNM(rule=rules.Krum(byzantine=2), byzantine=2)
    keys = {"aggregator": "balance", "similarity": 0.7, "pre-aggregation": "bucketing"}
    assert rule(**keys) == rules.Bucketing(rule=rules.BALANCE(similarity=0.7))
    keys = {"algorithm": "ubar", "aggregator": "median", "near-share": 0.7, "use-validation": True}
    assert rule(**keys) == rules.UBAR(near_share=0.7, use_validation=True)
    assert {agent.rule for agent in assemble(resolve(SMALL | keys)).agents()} == {rule(**keys)}


RING = {"algorithm": "dpsgd", "num-agents": 8, "topology": "ring", "attackers": 1, "num-rounds": 3}


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"aggregator": "krum"}, ["byzantine = 1", "agent 0", "2 neighbours", "2f + 3 = 5", "byzantine = 0 at most"]),
        ({"aggregator": "trimmed-mean", "byzantine": 2}, ["byzantine = 2", "2f + 1 = 5", "byzantine = 1 at most"]),
        ({"aggregator": "krum", "topology": "star"}, ["agent 1,", "1 neighbours", "another rule or a denser topology"]),
        ({"aggregator": "krum", "pre-aggregation": "bucketing"}, ["has 2 after bucketing"]),
        ({"algorithm": "bridge"}, ["bridge needs at least 2f + 2 = 4 vectors and has 3", "byzantine = 0 at most"]),
        ({"aggregator": "ubar", "use-validation": True, "validation-size": 0}, ["rule 'ubar' needs"]),
        ({"aggregator": "trimed-mean"}, ["trimed-mean", "did you mean 'trimmed-mean'?"]),
        ({"pre-aggregation": "nmn"}, ["nmn", "did you mean 'nnm'?"]),
        (
            {"algorithm": "d2", "mixing": "lazy-metropolis", "aggregator": "median"},
            ["break Σ_i", "aggregator = 'mean'"],
        ),
        ({"algorithm": "dsgt", "pre-aggregation": "bucketing"}, ["would break Σ_i", "pre-aggregation = 'none'"]),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence_before_it_starts(keys, parts):
    with pytest.raises(ConfigError) as caught:
        LocalRun(resolve({**RING, **keys}))
    assert all(part in str(caught.value) for part in parts), caught.value


# Rules from outside


@pytest.fixture
def largest(monkeypatch):
    """A rule that no file of the package knows."""
    monkeypatch.setattr(groups, "_owners", dict(groups._owners))
    monkeypatch.setitem(RULES, "largest", None)

    @register_rule("largest")
    class Largest(Stacked):
        """Take the largest value of every coordinate, times a factor."""

        factor: float = option(1.0, "what the largest value is multiplied by")

        def aggregate(self, vectors):
            return self.factor * vectors.max(dim=0).values

    return Largest


def test_a_rule_from_outside_is_used_by_its_name_in_a_configuration(largest):
    run = LocalRun(resolve(SMALL | {"algorithm": "dpsgd", "attackers": 0, "aggregator": "largest", "factor": 0.5}))
    assert run.assembly.rule == largest(factor=0.5)
    agent = run.host.agents[0]
    expected = {j: run.host.agents[j]["model"] for j in agent.mixing_row}
    mixed = agent.mix(expected)
    assert torch.equal(mixed, 0.5 * torch.stack([*expected.values()]).max(dim=0).values)
    assert len(list(run.rounds())) == 3


def test_a_rule_from_outside_is_used_as_an_object(largest):
    graph = topology.build("complete", 4)
    host, agents = started(graph, DPSGD(learning_rate=0.0, rule=largest()))
    before = stack(agents)
    run_round(host, 0)
    torch.testing.assert_close(stack(agents), before.max(dim=0).values.expand(4, -1))
    assert isinstance(BRIDGE().rule, Rule)
    assert BRIDGE(rule=rules.TrimmedNeighbors(byzantine=0)).rule.obstacle(2) == ""
