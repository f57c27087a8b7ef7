"""The two chains: links of one's own, combined with those that ship, without touching the package."""

import itertools
import json
from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from quadratics import normal, objective_of, team

from ross_flwr.algorithms import MessageTransform
from ross_flwr.algorithms.dpsgd import DPSGD
from ross_flwr.algorithms.messages import Exchange, Form, on_the_wire
from ross_flwr.algorithms.ross import ROSS
from ross_flwr.engine.host import Host
from ross_flwr.flower.records import pack, unpack
from ross_flwr.graph import topology
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.rules import Mean
from ross_flwr.threats.adversary import Adversary
from ross_flwr.threats.attacks import IPM, Mimic, SignFlip
from ross_flwr.threats.faults import Loss
from ross_flwr.threats.poisons import GradientScaling

RING = topology.build("ring", 6)


@dataclass(frozen=True)
class Clip:
    """Scale a gradient down to a length of at most `most`, and keep the length that it had."""

    most: float

    def __call__(self, gradient, agent, request):
        length = gradient.norm()
        agent.state[f"length.{request.of}"] = length[None]
        return gradient * min(1.0, self.most / float(length))


@pytest.mark.parametrize("of", ["own", "cross"])
def test_links_of_the_gradient_chain_work_in_their_order(of):
    agent = Agent(0, objective_of(0), {0: 0.5, 1: 0.5}, 0, 5)
    honest = agent.gradient(normal(1, 6), of=of)
    unit = honest / honest.norm()
    for chain, expected in {
        (Clip(0.1), GradientScaling(-3.0)): -0.3 * unit,
        (GradientScaling(-3.0), Clip(0.1)): -0.1 * unit,
        (Clip(1e9),): honest,
    }.items():
        agent.gradient_chain = chain
        torch.testing.assert_close(agent.gradient(normal(1, 6), of=of), expected)
        factor = 3.0 if isinstance(chain[0], GradientScaling) else 1.0
        assert agent[f"length.{of}"].item() == pytest.approx(factor * float(honest.norm()))


@dataclass(frozen=True)
class Float16(MessageTransform):
    """Send float32 as float16, and what was rounded off with the next message to the same agent."""

    def send(self, agent, outbox, exchange):
        return {
            j: {name: self._rounded(agent, f"{name}.{j}", each) for name, each in outbox[j].items()} for j in outbox
        }

    def _rounded(self, agent, key, tensor):
        wanted = tensor + agent.state.get(f"rest.{key}", 0.0)
        agent.state[f"rest.{key}"] = wanted - wanted.half().float()
        return wanted.half()

    def receive(self, agent, source, message, exchange):
        return {name: tensor.float() for name, tensor in message.items()}

    def wire(self, forms):
        return {name: replace(form, dtype=torch.float16) for name, form in forms.items()}


def liar(attack):
    return Adversary(attack=attack, attackers=frozenset({1, 4}), num_agents=6, rule=Mean(), learning_rate=0.1)


def hosts_of(algorithm, chain, blocks=(range(6),)):
    hosts = []
    for block in blocks:
        agents = team(RING, algorithm, members=block)
        for agent in agents:
            agent.gradient_chain = [Clip(5.0), GradientScaling(-1.0)] if agent.index == 4 else [Clip(5.0)]
        hosts.append(Host("run", algorithm, agents, transforms=chain))
    return hosts


def run(hosts, activations, leaving=()):
    """Run these (pass, step) on all hosts, with messages between them as Flower carries them; return what is left."""
    for number, step in activations:
        arrived, leaving = leaving, []
        for host in hosts:
            mail = [each for each in arrived if each.destination in host.agents]
            leaving += host.activate(number, step, unpack(pack(mail), "cpu"))
        if step == len(hosts[0].algorithm.steps) - 1:
            for host in hosts:
                host.end_pass()
    return leaving


def steps_of(algorithm, passes):
    return list(itertools.product(range(passes), range(len(algorithm.steps))))


def outcome(hosts):
    """All that agents hold, what was dropped, and every byte sent."""
    states, sent = {}, Counter()
    for host in hosts:
        states |= {i: {key: each.tolist() for key, each in a.state.items()} for i, a in host.agents.items()}
        for report in host.end_round(evaluate=False):
            for kinds in report.sent.values():
                sent.update(kinds)
    return dict(sorted(states.items())), sum((host.dropped for host in hosts), Counter()), sent


def test_a_codec_sends_half_the_bytes_and_neighbours_read_what_was_rounded():
    algorithm = DPSGD(learning_rate=0.0)
    (plain,), (rounded,) = hosts_of(algorithm, []), hosts_of(algorithm, [Float16()])
    models = {i: agent["model"] for i, agent in plain.agents.items()}
    run([plain], steps_of(algorithm, 1))
    run([rounded], steps_of(algorithm, 1))
    for i, agent in rounded.agents.items():
        heard = {j: models[j] if j == i else models[j].half().float() for j in (i, *agent.neighbors)}
        torch.testing.assert_close(agent["model"], agent.mix(heard))
        assert not torch.equal(agent["model"], plain.agents[i]["model"])
    assert outcome([rounded])[2]["model"] * 2 == outcome([plain])[2]["model"]


def test_what_was_rounded_off_comes_with_the_next_message():
    (agent, *_), told = team(RING, DPSGD()), torch.zeros(6)
    exact = torch.full((6,), 1.0001)  # float16 has no number between 1 and 1.001
    for _ in range(100):
        told += Float16().send(agent, {1: {"model": exact}}, Exchange(pass_number=0, number=0, step="share"))[1][
            "model"
        ]
    assert abs(float(told[0]) - 100.01) < 1e-3


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("dtype", lambda half: {"model": half.float()}),
        ("shape", lambda half: {"model": half[:5]}),
        ("names", lambda half: {"gradient": half}),
        ("not-finite", lambda half: {"model": half / 0.0}),
    ],
)
def test_messages_are_checked_as_they_are_on_the_wire_before_a_codec_reads_them(reason, spoil):
    algorithm = DPSGD()
    near, far = hosts_of(algorithm, [Float16()], ([0, 1, 2], [3, 4, 5]))
    near.activate(0, 0)
    arrived = [each for each in far.activate(0, 0) if each.destination == 0]
    near.activate(0, 1, [replace(each, tensors=spoil(each.tensors["model"])) for each in arrived])
    assert near.dropped == {reason: 1}
    missing = {report.agent: report.missing for report in near.end_round(evaluate=False)}
    assert missing == {0: [5], 1: [], 2: [3]}


def test_attack_codec_and_loss_work_in_every_order():
    """What is lost does not depend on the order, nor does anything else, as long as the lie is told before rounding."""
    found = {}
    for order in itertools.permutations(["attack", "codec", "loss"]):
        links = {"attack": liar(SignFlip()), "codec": Float16(), "loss": Loss(0.2)}
        hosts = hosts_of(ROSS(), [links[name] for name in order])
        run(hosts, steps_of(ROSS(), 3))
        states, dropped, sent = outcome(hosts)
        assert set(dropped) == {"lost"}
        found.setdefault(order.index("attack") < order.index("codec"), []).append((states, dropped, sent))
    for alike in found.values():
        assert alike[0] == alike[1] == alike[2]
    assert found[True][0][2] == found[False][0][2]


CHAINS = {
    "mimic, then rounded": lambda: [liar(Mimic(2)), Float16(), Loss(0.2)],
    "rounded, then ipm": lambda: [Float16(), Loss(0.2), liar(IPM(3.0))],
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("algorithm", [DPSGD(), ROSS()], ids=["dpsgd", "ross"])
def test_what_links_remember_survives_a_restart_and_travels_with_the_agent(algorithm, chain):
    made, calls = CHAINS[chain](), steps_of(algorithm, 4)
    whole = hosts_of(algorithm, made)
    run(whole, calls)
    expected = outcome(whole)
    assert any(key.startswith("rest.") for key in expected[0][0])
    split = (range(0, 6, 2), range(1, 6, 2))
    apart = hosts_of(algorithm, made, split)
    run(apart, calls)
    assert outcome(apart) == expected
    for stop in range(1, len(calls), 3):
        before, after = hosts_of(algorithm, made, split), hosts_of(algorithm, CHAINS[chain](), split)
        leaving = run(before, calls[:stop])
        for old, new in zip(before, after, strict=True):
            tensors, rest = old.snapshot()
            new.restore(tensors, json.loads(json.dumps(rest)))
        run(after, calls[stop:], leaving)
        assert outcome(after) == expected


def test_links_tell_the_forms_on_the_wire_in_their_order():
    forms = on_the_wire({"model": Form((6,))}, [liar(IPM()), Float16(), Loss(0.5)])
    assert forms == {"model": Form((6,), torch.float16)}
