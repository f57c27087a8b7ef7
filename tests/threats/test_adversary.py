"""Who lies, to whom, and knowing what: on quadratics, and in whole runs."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from quadratics import normal, stack, team

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.algorithms.messages import Exchange
from ross_flwr.config import ConfigError, option, resolve
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology
from ross_flwr.learning.rules import Mean
from ross_flwr.runs.assemble import assemble
from ross_flwr.runs.local import LocalRun, resume
from ross_flwr.threats.adversary import Adversary
from ross_flwr.threats.attacks import ATTACKS, Attack

RING = topology.build("ring", 6)
COMPLETE = topology.build("complete", 6)
INFORMED = [name for name, attack in ATTACKS.items() if not attack.blind and not attack.gradients_only]
"""Attacks on all messages that need to know honest vectors."""


def method(name, **options):
    return resolve({key.replace("_", "-"): value for key, value in options.items()}).part(ALGORITHMS[name])


def adversary(attack, attackers=(1, 4), **settings):
    settings = {"num_agents": 6, "rule": Mean(), "learning_rate": 0.1} | settings
    return Adversary(attack=ATTACKS[attack](), attackers=frozenset(attackers), **settings)


def host_with(liar, algorithm, graph=RING, **settings):
    return Host("run", algorithm, team(graph, algorithm, **settings), transforms=[liar] if liar else [])


def sent_after(attack, activations, *, name="dpsgd", graph=RING, **settings):
    """What lies in every agent's mailbox after so many activations, with and without the attack."""
    algorithm = method(name)
    boxes = []
    for liar in (None, adversary(attack, **settings)):
        host = host_with(liar, algorithm, graph)
        for number in range(activations):
            host.activate(*divmod(number, len(algorithm.steps)))
        boxes.append({(j, i): message for i, inbox in host.mailroom.waiting.items() for j, message in inbox.items()})
    return boxes


def changed(honest, attacked):
    """The (source, destination) pairs whose messages differ."""
    assert honest.keys() == attacked.keys()
    pairs = {pair: attacked[pair].items() for pair in honest}
    return {pair for pair, message in pairs.items() if any(not torch.equal(honest[pair][k], v) for k, v in message)}


@pytest.mark.parametrize(("name", "activations"), [("dpsgd", 1), ("ross", 2)])
def test_attackers_lie_to_honest_neighbours_and_to_nobody_else(name, activations):
    honest, attacked = sent_after(
        "sign-flip", activations, name=name, graph=COMPLETE, about=("cross",) if name == "ross" else ("own",)
    )
    assert changed(honest, attacked) == {(b, i) for b in (1, 4) for i in (0, 2, 3, 5)}


@pytest.mark.parametrize(
    ("about", "names"), [(["own", "cross"], {"model", "gradient"}), (["own"], {"model"}), (["cross"], {"gradient"})]
)
def test_lies_are_about_cross_gradients_or_all_else_or_both(about, names):
    algorithm = method("ross")
    host = host_with(adversary("zero", about=about), algorithm)
    found = set()
    for step in range(2):
        host.activate(0, step)
        found |= {
            name for inbox in host.mailroom.waiting.values() for m in inbox.values() for name in m if not m[name].any()
        }
    assert found == names


def test_equivocation_reaches_neighbours_differently():
    _, attacked = sent_after("equivocation", 1)
    first, second = attacked[1, 0]["model"], attacked[1, 2]["model"]
    own = attacked[1, 1]["model"]
    torch.testing.assert_close(first - own, own - second)
    assert float((first - own).norm()) > 0.1


def test_who_has_heard_nobody_tells_the_truth():
    for attack in INFORMED:
        assert changed(*sent_after(attack, 1)) == set(), attack
        assert changed(*sent_after(attack, 3)) >= {(1, 0), (1, 2), (4, 3), (4, 5)}, attack


@pytest.mark.parametrize("attack", ["sign-flip", "alie", "stale"])
def test_a_sleeper_tells_the_truth_until_its_time(attack):
    assert changed(*sent_after(attack, 2 * 3 - 1, since=3)) == set()
    if attack != "stale":  # which is true when it is new
        assert {j for j, _ in changed(*sent_after(attack, 2 * 3 + 1, since=3))} == {1, 4}


def lies_of(liar, perturb=0.0, step="share"):
    """What two attackers send in round 3, the honest messages of that step being larger by the part `perturb`."""
    algorithm = method("ross" if step == "cross_gradients" else "dpsgd")
    agents = {agent.index: agent for agent in team(COMPLETE, algorithm)}
    heard = {i: {j: {"model": normal(40 + j, 6), "gradient": normal(50 + j, 6)} for j in range(6)} for i in agents}
    name = "gradient" if step == "cross_gradients" else "model"
    outboxes = {}
    for j, agent in agents.items():
        agent.pass_number = 3
        factor = 1.0 if j in (1, 4) else 1.0 + perturb
        outboxes[j] = {i: {name: normal(60 + 6 * i + j, 6) * factor} for i in agents}
    exchange = Exchange(pass_number=3, number=0, step=step, agents=agents, inboxes=heard, outboxes=outboxes)
    lies = {b: liar.send(agents[b], outboxes[b], exchange) for b in (1, 4)}
    return torch.stack([lies[b][i][name] for b in (1, 4) for i in (0, 2, 3, 5)])


@pytest.mark.parametrize("step", ["share", "cross_gradients"])
def test_without_omniscience_nothing_of_this_steps_honest_messages_is_used(step):
    for attack in ATTACKS:
        assert torch.equal(lies_of(adversary(attack), 0.5, step), lies_of(adversary(attack), 0.0, step)), attack


def test_the_omniscient_know_what_is_being_sent():
    for attack in {*INFORMED} - {"noise-rider"}:
        known, moved = (lies_of(adversary(attack, omniscient=True), by) for by in (0.0, 0.5))
        assert not torch.allclose(known, moved, atol=1e-3), attack
        assert not torch.allclose(known, lies_of(adversary(attack)), atol=1e-3), attack


@pytest.mark.parametrize("graph", ["ring", "random-regular", "erdos-renyi"])
def test_dissensus_of_the_omniscient_gives_every_victim_back_its_own_model(graph):
    graph = topology.build(graph, 10, degree=4, probability=0.5, seed=1)
    host = host_with(
        adversary("dissensus", (1, 4, 7), num_agents=10, omniscient=True), method("dpsgd", learning_rate=0.0), graph
    )
    before = stack(host.agents.values())
    for step in range(2):
        host.activate(0, step)
    after = stack(host.agents.values())
    victims = [i for i in range(10) if i not in (1, 4, 7) and set(graph.neighbors(i)) & {1, 4, 7}]
    others = [i for i in range(10) if i not in victims]
    torch.testing.assert_close(after[victims], before[victims], rtol=0, atol=1e-5)
    assert not torch.isclose(after[others], before[others], atol=1e-2).all(1).any()


def test_omniscience_over_several_nodes_is_refused_in_one_sentence():
    options = {"attackers": 3, "attack": "alie", "omniscient": True}
    threats = assemble(resolve(options)).threats
    threats.check_nodes(1)
    with pytest.raises(ConfigError, match="omniscient = true takes all agents in one process, and they are on 3 nodes"):
        threats.check_nodes(3)
    assemble(resolve(options | {"omniscient": False})).threats.check_nodes(3)
    assemble(resolve(options | {"attackers": 0})).threats.check_nodes(3)


@pytest.mark.parametrize("options", [{"attack": "shapley-adaptive"}, {"attack": "zero", "attack-target": "gradients"}])
def test_lies_about_gradients_that_nobody_sends_are_refused(options):
    options = options | {"attackers": 3}
    with pytest.raises(ConfigError, match="dpsgd sends none"):
        LocalRun(resolve(options | {"algorithm": "dpsgd"}))
    LocalRun(resolve(options | {"algorithm": "cga"}))


@dataclass(frozen=True)
class Halfway(Attack):
    """Send a point between the own vector and the mean of the honest."""

    part: float = option(0.5, "how far", minimum=0.0)

    def lie(self, view):
        return torch.lerp(view.own, view.mean, self.part)


def test_an_attack_from_elsewhere_works_as_an_object_and_by_its_name(monkeypatch):
    monkeypatch.setitem(ATTACKS, "halfway", Halfway)
    (named,) = assemble(resolve({"attackers": 1, "attack": "halfway", "attack-strength": 0.25})).threats.lies
    assert named.attack == Halfway(0.25)
    honest, attacked = sent_after("halfway", 3)
    assert changed(honest, attacked) == {(1, 0), (1, 2), (4, 3), (4, 5)}
    heard = (normal(77, 6) + normal(79, 6)) / 2  # what agents 0 and 2 sent in the pass before
    torch.testing.assert_close(attacked[1, 0]["model"], (honest[1, 0]["model"] + heard) / 2)


def test_a_lie_has_the_form_of_the_truth_and_whole_numbers_are_not_lied_about():
    liar = adversary("ipm")
    agents = {agent.index: agent for agent in team(RING, method("dpsgd"))}
    square = normal(3, 2, 3).half()
    message = {"square": square, "count": torch.tensor([3])}
    inboxes = {1: {0: {"square": square * 2, "count": torch.tensor([9])}, 2: {"square": normal(4, 6)}}}
    exchange = Exchange(pass_number=0, number=0, step="share", agents=agents, inboxes=inboxes)
    told = liar.send(agents[1], {0: message, 2: message}, exchange)
    assert torch.equal(told[0]["square"], (square * 2) * -0.1)
    assert all(lie["count"] is message["count"] for lie in told.values())


SMALL = {
    "num-agents": 6,
    "attackers": 2,
    "topology": "complete",
    "partition": "iid",
    "num-rounds": 3,
    "evaluate-every": 3,
    "validation-size": 20,
    "test-size": 50,
    "hidden": 8,
    "permutations": 2,
}


def finished(path=None, **options):
    run = LocalRun(resolve(SMALL | {name.replace("_", "-"): value for name, value in options.items()}), path)
    for _ in run.rounds():
        pass
    return run


def states(run):
    """Every vector of every agent, as bytes."""
    return {i: {k: v.numpy().tobytes() for k, v in agent.state.items()} for i, agent in run.host.agents.items()}


@pytest.mark.parametrize("name", [name for name, cls in ALGORITHMS.items() if cls.__module__.startswith("ross_flwr")])
def test_every_method_can_be_attacked(name):
    options = {"algorithm": name, "merge_passes": 1, "topology": "star" if name == "cgsv-server" else "complete"}
    truth = finished(**options, attack="none").host.agents
    harmed = set()
    for attack in ("alie", "equivocation"):
        run = finished(**options, attack=attack)
        assert run.host.dropped == {}
        assert bool(stack(run.host.agents.values()).isfinite().all())
        harmed |= {i for i in run.history.honest if not torch.equal(run.host.agents[i]["model"], truth[i]["model"])}
    assert bool(harmed) is (name not in {"isolated", "isolated-with-validation", "validation-only"})


def test_an_infinite_lie_is_a_missing_message_and_the_log_tells_that_its_sender_attacks(caplog):
    run = finished(algorithm="ross", attack="infinite")
    assert set(run.host.dropped) == {"not-finite"}
    (told,) = caplog.messages
    (sender,) = (i for i in run.history.attackers if f"agent {i} (" in told)
    assert told.startswith(f"dropped a message from agent {sender} (attacks, as configured) to agent ")


@pytest.mark.parametrize("attack", ["mimic", "stale", "gradient-noise"])
def test_a_resumed_run_lies_as_if_it_had_never_stopped(attack, tmp_path):
    options = {"algorithm": "ross", "attack": attack, "num_rounds": 4, "attack_from": 2, "checkpoint_every": 0}
    expected = finished(**options)
    run = LocalRun(resolve(SMALL | {name.replace("_", "-"): value for name, value in options.items()}), tmp_path)
    rounds = run.rounds()
    list(itertools.islice(rounds, 3))
    rounds.close()
    (resumed,) = resume(tmp_path)
    assert len(list(resumed.rounds())) == 1
    assert states(resumed) == states(expected)
