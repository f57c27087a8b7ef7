"""The agents of one node: what may arrive, what may leave, and what a snapshot carries."""

import dataclasses
import json
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from quadratics import Quadratic, full_gradients, normal, objective_of, stack, team

from ross_flwr.algorithms import ALGORITHMS, Algorithm, Inbox, algorithm, broadcast
from ross_flwr.config import resolve
from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology

RING = topology.build("ring", 6)
METHODS = ["dpsgd", "ross"]


def size(tensors):
    return sum(tensor.nbytes for tensor in tensors.values())


def method(name, **options):
    return resolve({key.replace("_", "-"): value for key, value in options.items()}).part(ALGORITHMS[name])


def host_of(members, algorithm, *, graph=RING, run="run", **settings):
    return Host(run, algorithm, team(graph, algorithm, members=members, **settings))


def activations(algorithm, passes):
    return [(round, step) for round in range(passes) for step in range(len(algorithm.steps))]


def carry_on(hosts, calls, leaving=(), observe=lambda *_: None):
    """Run `calls` on every host, carrying envelopes between them by hand; return what is still on its way."""
    for round, step in calls:
        arriving, leaving = leaving, []
        for host in hosts:
            leaving += host.activate(round, step, [each for each in arriving if each.destination in host.agents])
        if step == len(hosts[0].algorithm.steps) - 1:
            for host in hosts:
                host.end_pass()
        observe(round, step, leaving)
    return leaving


def states_of(hosts):
    """Every agent's vectors as bytes, and what it reports but the time it took."""
    found = {}
    for host in hosts:
        reports = {report.agent: dataclasses.replace(report, time={}) for report in host.end_round(evaluate=True)}
        for i, agent in host.agents.items():
            found[i] = {name: vector.numpy().tobytes() for name, vector in agent.state.items()}, reports[i]
    return dict(sorted(found.items()))


SPLITS = [
    [[0, 1, 2], [3, 4, 5]],
    [[0, 2, 4], [1, 3, 5]],
    [[5], [0, 1, 2, 3, 4]],
    [[4, 1], [0, 3], [2, 5]],
    [[0], [1], [2], [3], [4], [5]],
]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_agents_spread_over_hosts_compute_what_they_compute_in_one(name, split):
    algorithm = method(name, learning_rate=0.3)
    together = [host_of(range(6), algorithm, batch_size=2)]
    spread = [host_of(members, algorithm, batch_size=2) for members in split]
    for passes in range(3):
        for hosts in (together, spread):
            carry_on(hosts, [(passes, step) for step in range(len(algorithm.steps))])
        assert states_of(spread) == states_of(together)


def test_only_what_crosses_a_border_leaves():
    algorithm = method("dpsgd")
    leaving = host_of([0, 1, 2], algorithm).activate(0, 0)
    assert {(each.source, each.destination) for each in leaving} == {(0, 5), (2, 3)}
    assert all((each.run, each.pass_number, each.step) == ("run", 0, "share") for each in leaving)
    assert host_of(range(6), algorithm).activate(0, 0) == []


class Loud(Algorithm):
    """Writes to the whole world."""

    name = "loud"
    steps = ("shout", "listen")

    @algorithm.step(sends=("model",))
    def shout(self, agent, inbox):
        return {j: {"model": agent["model"]} for j in range(6)}

    @algorithm.step()
    def listen(self, agent, inbox):
        agent["model"] = agent.mix(inbox.gather("model"))


@pytest.mark.parametrize("split", [[list(range(6))], [[0, 1, 2], [3, 4, 5]]], ids=str)
def test_a_message_without_an_edge_is_refused_and_counted_by_the_senders_side(split):
    hosts = [host_of(members, Loud()) for members in split]
    models = stack(agent for host in hosts for agent in host.agents.values())
    neighbors = set(RING.graph.to_directed().edges)
    seen = []
    carry_on(hosts, activations(Loud(), 1), observe=lambda _round, _step, leaving: seen.extend(leaving))
    assert all((each.source, each.destination) in neighbors for each in seen)
    assert sum((host.dropped for host in hosts), Counter()) == {"no-edge": 6 * 3}
    assert [host.dropped["no-edge"] for host in hosts] == [3 * len(members) for members in split]
    expected = torch.from_numpy(RING.mixing.copy()) @ models
    torch.testing.assert_close(stack(agent for host in hosts for agent in host.agents.values()), expected)
    for host in hosts:
        for report in host.end_round(evaluate=False):
            assert report.sent == {j: {"model": 24} for j in RING.neighbors(report.agent)}


def tampered(**changes):
    return lambda envelope: [replace(envelope, **changes)]


def with_tensors(change):
    return lambda envelope: [replace(envelope, tensors=change(envelope.tensors["model"]))]


def set_first(vector, value):
    changed = vector.clone()
    changed[0] = value
    return {"model": changed}


BAD = {
    "of another run": ("other-run", tampered(run="yesterday")),
    "of the round before": ("other-step", tampered(pass_number=3)),
    "of the round after": ("other-step", tampered(pass_number=5)),
    "of another step": ("other-step", tampered(step="mix")),
    "of an unknown step": ("other-step", tampered(step="attack")),
    "from a stranger": ("no-edge", tampered(source=3)),
    "from an agent there is not": ("no-edge", tampered(source=-1)),
    "in the receiver's own name": ("no-edge", tampered(source=0)),
    "for an agent elsewhere": ("not-hosted", tampered(destination=2)),
    "for an agent there is not": ("not-hosted", tampered(destination=99)),
    "too long": ("shape", with_tensors(lambda v: {"model": torch.cat([v, v])})),
    "too short": ("shape", with_tensors(lambda v: {"model": v[:5]})),
    "empty": ("shape", with_tensors(lambda v: {"model": v[:0]})),
    "of one entry, which would broadcast": ("shape", with_tensors(lambda v: {"model": v[:1]})),
    "of another shape": ("shape", with_tensors(lambda v: {"model": v.view(2, 3)})),
    "in double precision": ("dtype", with_tensors(lambda v: {"model": v.double()})),
    "in half precision": ("dtype", with_tensors(lambda v: {"model": v.half()})),
    "of whole numbers": ("dtype", with_tensors(lambda v: {"model": v.long()})),
    "under another name": ("names", with_tensors(lambda v: {"gradient": v})),
    "with a name too many": ("names", with_tensors(lambda v: {"model": v, "momentum": v})),
    "with nothing in it": ("names", with_tensors(lambda v: {})),
    "with a NaN": ("not-finite", with_tensors(lambda v: set_first(v, float("nan")))),
    "with an infinity": ("not-finite", with_tensors(lambda v: set_first(v, float("inf")))),
    "with a negative infinity": ("not-finite", with_tensors(lambda v: set_first(v, -float("inf")))),
    "with infinities that cancel": ("not-finite", with_tensors(lambda v: {"model": v / 0.0})),
}


def dense_round(models, gradients, rate, lost=()):
    """D-PSGD's equation with the weight of every lost (receiver, sender) returned to the receiver."""
    weights = torch.from_numpy(RING.mixing.copy())
    for i, j in lost:
        weights[i, i] += weights[i, j]
        weights[i, j] = 0
    return weights @ models - rate * gradients


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_message_is_a_missing_message(fault):
    reason, tamper = BAD[fault]
    algorithm = method("dpsgd", learning_rate=0.3)
    alone, others = host_of([0], algorithm), host_of([1, 2, 3, 4, 5], algorithm)
    models = stack([*alone.agents.values(), *others.agents.values()])
    expected = dense_round(models, full_gradients(alone.agents.values(), models[:1]), 0.3, [(0, 1)])[0]
    alone.activate(4, 0)
    arrived = [each for each in others.activate(4, 0) if each.destination == 0]
    arrived = [kept for each in arrived for kept in (tamper(each) if each.source == 1 else [each])]
    alone.activate(4, 1, arrived)
    assert alone.dropped == {reason: 1}
    torch.testing.assert_close(alone.agents[0]["model"].double(), expected, atol=1e-6, rtol=1e-6)
    (report,) = alone.end_round(evaluate=False)
    assert report.missing == [1]


def test_a_large_sound_message_is_not_taken_for_an_infinite_one():
    algorithm = method("dpsgd", learning_rate=0.0)
    alone = host_of([0], algorithm)
    alone.activate(0, 0)
    loud = Envelope("run", 0, "share", 1, 0, {"model": torch.full((6,), 3e38)})  # its sum overflows
    alone.activate(0, 1, [loud])
    assert not alone.dropped
    assert alone.agents[0]["model"].min() > 9e37


def test_a_message_that_comes_twice_counts_once():
    algorithm = method("dpsgd", learning_rate=0.3)
    hosts = [host_of(members, algorithm) for members in ([0], [1, 2, 3, 4, 5])]
    leaving = carry_on(hosts, [(0, 0)])
    twin = [replace(each, tensors={"model": each.tensors["model"] * 100}) for each in leaving if each.destination == 0]
    agents = [agent for host in hosts for agent in host.agents.values()]
    models = stack(agents)
    carry_on(hosts, [(0, 1)], [*leaving, *twin])
    assert hosts[0].dropped == {"duplicate": 2}
    expected = dense_round(models, full_gradients(agents, models), 0.3)
    torch.testing.assert_close(stack(agents), expected, atol=1e-6, rtol=1e-6)
    assert all(report.missing == [] for report in hosts[0].end_round(evaluate=False))


def test_the_first_step_of_a_round_takes_nothing_in():
    seen = []

    class Watcher(Loud):
        @algorithm.step(sends=("model",))
        def shout(self, agent, inbox):
            seen.append(dict(inbox))
            return broadcast(model=agent["model"])

    host = host_of([0], Watcher())
    for round in range(2):
        forged = [Envelope("run", each, name, 1, 0, {"model": torch.ones(6)}) for each in (0, 1) for name in Loud.steps]
        host.activate(round, 0, forged)
    assert seen == [{}, {}]
    assert host.dropped == {"other-step": 8}


def test_agents_of_one_host_do_not_believe_each_others_nans():
    algorithm = method("dpsgd", learning_rate=0.3)
    host = host_of(range(6), algorithm)
    models = stack(host.agents.values())
    expected = dense_round(models, full_gradients(host.agents.values(), models), 0.3, [(0, 1), (2, 1)])
    host.agents[1]["model"] = host.agents[1]["model"] * float("nan")
    carry_on([host], activations(algorithm, 1))
    assert host.dropped == {"not-finite": 2}
    honest = [0, 2, 3, 4, 5]
    torch.testing.assert_close(stack(host.agents.values())[honest], expected[honest], atol=1e-6, rtol=1e-6)
    assert {r.agent: r.missing for r in host.end_round(evaluate=False) if r.missing} == {0: [1], 2: [1]}


@pytest.mark.parametrize("name", METHODS)
def test_an_agent_that_missed_a_step_sits_out_the_pass_and_is_back_in_the_next(name):
    algorithm = method(name, learning_rate=0.3)
    last = len(algorithm.steps) - 1
    for missed in range(last + 1):
        there, away = host_of([0, 1, 2, 3], algorithm), host_of([4, 5], algorithm)
        carry_on([there, away], activations(algorithm, 1))
        for host in (there, away):
            host.end_round(evaluate=False)
        before = {i: agent["model"].clone() for i, agent in away.agents.items()}
        leaving = []
        for step in range(last + 1):
            arriving, leaving = leaving, there.activate(1, step, [each for each in leaving if each.destination < 4])
            if step != missed:
                leaving += away.activate(1, step, [each for each in arriving if each.destination > 3])
        for host in (there, away):
            host.end_pass()
        assert all(torch.equal(agent["model"], before[i]) for i, agent in away.agents.items())
        missing = {report.agent: report.missing for report in there.end_round(evaluate=False)}
        assert missing == ({0: [5], 1: [], 2: [], 3: [4]} if missed < last else {i: [] for i in range(4)})
        away.end_round(evaluate=False)
        carry_on([there, away], [(2, step) for step in range(last + 1)])
        for host in (there, away):
            assert all(report.missing == [] for report in host.end_round(evaluate=False))
            assert not host.dropped
        assert all(not torch.equal(agent["model"], before[i]) for i, agent in away.agents.items())


class Normed(Quadratic):
    """Its last two entries are statistics that every batch moves by 5."""

    def buffer_shift(self):
        return torch.full((2,), 5.0)


def test_the_statistics_of_an_agent_that_sat_out_stay_where_they_were():
    host = host_of([0], method("ross", learning_rate=0.0), objective=lambda i: Normed(objective_of(i).examples))
    before = host.agents[0]["model"].clone()
    for step in (0, 1, 3):
        host.activate(0, step)
    host.end_pass()
    assert torch.equal(host.agents[0]["model"], before)
    carry_on([host], [(1, step) for step in range(4)])
    moved = host.agents[0]["model"] - before
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.0, 0.0, 0.0, 5.0, 5.0]))


CALLS = st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 2), st.integers(0, 3)), max_size=14)


@given(calls=CALLS, shuffle=st.randoms(use_true_random=False))
@example(calls=[(0, 0, 0), (0, 0, 1), (0, 0, 3), (0, 0, 2)], shuffle=Random(0))  # a step comes after the one after it
@example(calls=[(0, 0, 0), (0, 0, 1), (0, 0, 1), (0, 0, 2)], shuffle=Random(0))  # a step comes twice
@settings(max_examples=60)
def test_no_order_of_calls_and_messages_breaks_an_agent(calls, shuffle):
    algorithm = method("ross", learning_rate=0.3)
    hosts = [host_of([0, 1, 2], algorithm), host_of([3, 4, 5], algorithm)]
    letters = []
    for which, round, step in calls:
        shuffle.shuffle(letters)
        letters += hosts[which].activate(round, step, letters[:8])
        if step == 3:
            hosts[which].end_pass()
    for host in hosts:
        host.end_round(evaluate=False)
    carry_on(hosts, [(9, step) for step in range(4)])
    for host in hosts:
        assert all(report.missing == [] for report in host.end_round(evaluate=True))
        assert all(torch.isfinite(agent["model"]).all() for agent in host.agents.values())


def through_json(host):
    """What a node keeps between two messages: bytes and text."""
    tensors, rest = host.snapshot()
    raw = {key: tensor.numpy().tobytes() for key, tensor in tensors.items()}
    kept = {key: torch.frombuffer(bytearray(each), dtype=torch.float32) for key, each in raw.items()}
    return kept, json.loads(json.dumps(rest))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("keep", [through_json, Host.snapshot], ids=["through JSON", "as it is"])
def test_a_host_restored_at_any_activation_goes_on_bit_for_bit(name, keep):
    algorithm = method(name, learning_rate=0.3)
    calls = activations(algorithm, 3)
    split = [[0, 1, 2], [3, 4, 5]]
    hosts = [host_of(members, algorithm, batch_size=2) for members in split]
    carry_on(hosts, calls)
    expected = states_of(hosts)
    for stop in range(1, len(calls)):
        hosts = [host_of(members, algorithm, batch_size=2) for members in split]
        leaving = carry_on(hosts, calls[:stop])
        hosts[0].dropped["late"] = 2
        again = [host_of(members, algorithm, batch_size=2) for members in split]
        for agent in (agent for host in again for agent in host.agents.values()):
            agent["model"] = normal(999, 6)
        for old, new in zip(hosts, again, strict=True):
            new.restore(*keep(old))
        carry_on(again, calls[stop:], leaving)
        assert states_of(again) == expected
        assert again[0].dropped == {"late": 2}


def test_a_host_goes_back_over_a_step_that_failed_and_resumes_only_what_its_agents_began_with():
    """A step may fail once its agents remember more than the snapshot from before it has."""
    host = host_of(range(6), method("dpsgd", learning_rate=0.3))
    kept = host.snapshot()
    host.agents[0]["memory"] = normal(1, 3)
    host.restore(*kept)
    assert "memory" not in host.agents[0].state
    host.agents[0]["memory"] = normal(1, 3)
    with pytest.raises(ValueError, match="other agents"):
        host.resume(*kept)


@pytest.mark.parametrize("name", METHODS)
def test_going_on_does_not_change_a_snapshot(name):
    algorithm = method(name, learning_rate=0.3)
    for stop in range(1, len(algorithm.steps) + 1):
        host = host_of(range(6), algorithm)
        carry_on([host], activations(algorithm, 1)[:stop])
        tensors, rest = host.snapshot()
        before = {key: tensor.clone() for key, tensor in tensors.items()}, json.dumps(rest)
        carry_on([host], activations(algorithm, 3)[stop:])
        host.agents[0]["model"] = host.agents[0]["model"] * float("inf")
        carry_on([host], [(3, 0), (3, 1)])
        host.end_round(evaluate=False)
        assert all(torch.equal(tensors[key], tensor) for key, tensor in before[0].items())
        assert json.dumps(rest) == before[1]


def test_a_tensor_in_several_places_is_kept_once():
    host = host_of(range(6), method("dpsgd"))
    host.activate(0, 0)
    tensors, _ = host.snapshot()
    assert (
        sum(tensor.nbytes for tensor in tensors.values()) == 6 * 24
    )  # each model, though it also lies in three mailboxes


@pytest.mark.parametrize("name", METHODS)
def test_reports_count_bytes_and_work_since_the_last_one(name):
    algorithm = method(name, local_steps=1)
    hosts = [host_of(members, algorithm) for members in ([0, 1, 2], [3, 4, 5])]
    carried = []
    carry_on(hosts, activations(algorithm, 3), observe=lambda _round, _step, leaving: carried.extend(leaving))
    reports = [report for host in hosts for report in host.end_round(evaluate=True)]
    over = {edge: sum(size(e.tensors) for e in carried if (e.source, e.destination) == edge) for edge in [(0, 5)]}
    assert sum(reports[0].sent[5].values()) == over[0, 5] > 0
    assert [report.gradients for report in reports] == [{"dpsgd": 3, "ross": 9}[name]] * 6
    for report, agent in zip(reports, (a for host in hosts for a in host.agents.values()), strict=True):
        assert report.loss == pytest.approx(0.5 * float(agent["model"].square().sum()))
    for report in (report for host in hosts for report in host.end_round(evaluate=False)):
        assert (report.gradients, report.utilities, report.sent, report.loss) == (0, 0, {}, None)


def test_an_inbox_lists_its_sources_in_order_whatever_the_order_of_arrival():
    seen = []

    class Watcher(Loud):
        def shout(self, agent, inbox):
            return broadcast(model=agent["model"])

        def listen(self, agent, inbox):
            assert isinstance(inbox, Inbox)
            seen.append(list(inbox))

    graph = topology.build("complete", 6)
    host = host_of([2], Watcher(), graph=graph)
    host.activate(0, 0)
    host.activate(0, 1, [Envelope("run", 0, "shout", j, 2, {"model": normal(j, 6)}) for j in (4, 0, 5, 1, 3)])
    assert seen == [[0, 1, 2, 3, 4, 5]]
