"""Compression in the message chain: with attacks, faults, restarts and every method."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from quadratics import normal, objective_of, run_round, stack, team

from ross_flwr import resolve
from ross_flwr.algorithms.dpsgd import DPSGD
from ross_flwr.algorithms.dsgt import DSGT
from ross_flwr.algorithms.local_dsgd import LocalDSGD
from ross_flwr.algorithms.messages import Exchange, Form, MessageTransform, Refused
from ross_flwr.compression import QSGD, Choco, Int8, TopK
from ross_flwr.compression.link import Compression
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology
from ross_flwr.runs.local import LocalRun, resume

RING = topology.build("ring", 6)
P = 200
SMALL = {
    "num-agents": 6,
    "num-rounds": 6,
    "topology-degree": 3,
    "attackers": 0,
    "validation-size": 20,
    "test-size": 50,
    "hidden": 8,
}
MIXED = "zlib(choco(topk(0.1))), momentum: int4, gradient: powersgd"
"""Memories of every kind, and random numbers."""


@dataclass(frozen=True)
class Cut(MessageTransform):
    """Loses what `when(source, destination, pass)` says."""

    when: object

    def receive(self, agent, source, message, exchange):
        if self.when(source, agent.index, exchange.pass_number):
            raise Refused("lost")
        return message


def host_of(algorithm, codec, *links, graph=RING, absent=None, **settings):
    agents = team(graph, algorithm, objective=lambda i: objective_of(i, P), **settings)
    chain = [Compression({"": codec}), *links] if codec else list(links)
    return Host("run", algorithm, agents, transforms=chain, absent=absent)


def rounds(host, count, first=0):
    for number in range(first, first + count):
        run_round(host, number)
    return host


def finished(**options):
    run = LocalRun(resolve(SMALL | {name.replace("_", "-"): value for name, value in options.items()}))
    run.lines = list(run.rounds())
    return run


def models(run):
    return stack([run.host.agents[i] for i in sorted(run.host.agents)])


def sent(run):
    total = Counter()
    for line in run.lines:
        for kinds in line["sent"].values():
            total.update(kinds)
    return total


@pytest.mark.parametrize(
    ("method", "whole"),
    [("dpsgd", "choco(topk(1), 1)"), ("ross", "gradient: topk(1)"), ("cga", "gradient: randomk(1)")],
)
def test_a_codec_that_leaves_nothing_out_changes_nothing(method, whole):
    torch.testing.assert_close(
        models(finished(algorithm=method, compress=whole)), models(finished(algorithm=method)), rtol=1e-5, atol=1e-5
    )


def test_what_comes_back_for_a_model_is_made_for_that_model_and_not_for_a_mixture():
    options = {"algorithm": "cgsv-reward", "altruism": 1e6, "num_rounds": 3}  # nothing is withheld
    compressed = finished(**options, compress="model: choco(topk(1))")  # the first message in bfloat16
    torch.testing.assert_close(models(compressed), models(finished(**options)), rtol=0, atol=0.01)


def test_codecs_work_on_the_cpu_wherever_the_model_is(monkeypatch):
    host = rounds(host_of(DPSGD(), Choco(TopK(0.1))), 3)
    (link,), agent = host.mailroom.transforms, host.agents[0]
    message = {"model": agent["model"]}
    outbox = {1: message, 5: message}
    exchange = Exchange(pass_number=3, number=0, step="share", forms={"model": Form((P,))}, outboxes={0: {0: message}})
    before = dict(agent.state)
    expected = link.send(agent, outbox, exchange)
    came = link.send(host.agents[1], {0: message}, exchange)[0]
    elsewhere = {id(tensor): (tensor.to("meta"), tensor) for tensor in before.values()}
    agent.state = {name: elsewhere[id(tensor)][0] for name, tensor in before.items()}
    known = {id(there): here for there, here in elsewhere.values()}
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: known.get(id(self), self))
    found = link.send(agent, outbox, exchange)
    assert torch.equal(found[1]["model"], expected[1]["model"])
    assert link.receive(agent, 1, came, exchange)["model"].device.type == "meta"


def test_choco_is_the_published_algorithm():
    """x½ = x − η ∇F(x);  x̂ ← x̂ + C(x½ − x̂);  x = x½ + γ Σ w_ij (x̂_j − x̂_i), as three lines on matrices."""
    host = host_of(LocalDSGD(learning_rate=0.1, local_steps=1), Choco(TopK(0.1), 0.4))
    agents = [host.agents[i] for i in range(6)]
    reference, copies = stack(agents).float(), None
    W = torch.tensor(RING.mixing, dtype=torch.float32)
    for t in range(30):
        half = torch.stack(
            [x - 0.1 * a.objective.gradient(x, a.batches.take(t)) for a, x in zip(agents, reference, strict=True)]
        )
        if copies is None:
            copies = half.bfloat16().float()
        else:
            rest = half - copies
            kept = rest.abs() >= rest.abs().topk(P // 10, dim=1).values[:, -1:]
            copies = copies + rest * kept
        reference = half + 0.4 * (W @ copies - copies)
        run_round(host, t)
    torch.testing.assert_close(stack(agents).float(), reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("codec", [TopK(0.1), QSGD(3)], ids=str)
def test_compressed_gossip_converges_and_leaves_the_mean_as_it_was(codec):
    host = host_of(DPSGD(learning_rate=0.0), Choco(codec, 0.3))
    before = stack(host.agents.values())
    after = stack(rounds(host, 400).agents.values())
    torch.testing.assert_close(after.mean(0), before.mean(0), rtol=0, atol=1e-4)
    assert (after - after.mean(0)).norm() < 1e-3 * (before - before.mean(0)).norm()


def test_gradient_tracking_keeps_its_sum_under_differences():
    """Compressed gradient tracking, as in CDProxSGT."""
    host = rounds(host_of(DSGT(learning_rate=0.05), Choco(TopK(0.3))), 20)
    trackers, gradients = (stack(host.agents.values(), name).sum(0) for name in ("tracker", "gradient"))
    torch.testing.assert_close(trackers, gradients, rtol=0, atol=1e-3)


def copies_agree(host):
    """Whether both ends of every edge hold the same copy."""
    state = {i: agent.state for i, agent in host.agents.items()}
    return [
        torch.equal(state[i][f"compress.model.{j}.sent.copy"], state[j][f"compress.model.{i}.heard.copy"])
        for i, agent in host.agents.items()
        for j in agent.receivers
    ]


def test_a_lost_message_costs_two_exchanges_and_then_both_ends_hold_the_same_copy_again():
    host = host_of(DPSGD(), Choco(TopK(0.1)), Cut(lambda source, to, t: (source, to, t) == (0, 1, 5)))
    for t in range(10):
        reports = {report.agent: report for report in run_round(host, t)}
        assert {i: report.missing for i, report in reports.items() if report.missing} == (
            {1: [0]} if t in (5, 6) else {}
        )
        whole = [j for j in (1, 5) if reports[0].sent[j]["model"] > Choco(TopK(0.1)).size(P)]
        assert whole == {0: [1, 5], 7: [1]}.get(t, [])
    assert host.dropped == {"lost": 1, "out-of-step": 1}
    assert all(copies_agree(host))


def test_copies_agree_again_after_heavy_loss_and_absence():
    lossy = Cut(lambda source, to, t: t < 40 and normal(97 * t + 7 * source + to, 1).item() > 0.5)
    host = host_of(DPSGD(), Choco(TopK(0.1)), lossy, absent=lambda i, t: i == 2 and 10 <= t < 40 and t % 7 > 1)
    rounds(host, 40)
    assert host.dropped["out-of-step"] > 10
    assert not all(copies_agree(host))
    rounds(host, 4, first=40)
    assert all(copies_agree(host))


def test_a_look_at_a_message_remembers_nothing_and_needs_the_copy_that_it_builds_on():
    """As for a node that comes back and fetches what its neighbours sent last."""
    for codec, refusal in ((Int8(), nullcontext()), (Choco(TopK(0.1)), pytest.raises(Refused, match="out-of-step"))):
        near, far = (host_of(DPSGD(), codec, members=block) for block in (range(3), range(3, 6)))
        far.activate(0, 0), far.end_pass()
        (later,) = [each for each in far.activate(1, 0) if each.destination == 0]
        before = dict(near.agents[0].state)
        with refusal:
            torch.testing.assert_close(near.preview(later)["model"], far.agents[5]["model"], atol=0.05, rtol=0)
        assert near.agents[0].state == before


def test_who_never_hears_whether_a_message_came_sends_the_whole_vector_now_and_then():
    deaf = Cut(lambda source, to, t: (source, to) == (1, 0) or (source, to, t) == (0, 1, 3))
    host = host_of(DPSGD(), Choco(TopK(0.1)), deaf)
    for t in range(50):
        reports = run_round(host, t)
        whole = reports[0].sent[1]["model"] > Choco(TopK(0.1)).size(P)
        assert whole == (t in (0, 20, 40))
        assert (0 in reports[1].missing) == (3 <= t < 20)


@pytest.mark.parametrize("compress", ["int8", MIXED, "qsgd(15), gradient: sign", "gradient: randomk(0.2)"])
def test_a_resumed_run_remembers_what_was_left_out(compress, tmp_path):
    options = {"algorithm": "ross", "checkpoint-every": 2, "compress": compress, "message-loss": 0.1, "dropout": 0.1}
    config = resolve(SMALL | options | {"attackers": 1, "attack": "ipm"})
    whole = LocalRun(config, tmp_path / "whole")
    list(whole.rounds())
    half = LocalRun(config, tmp_path / "half")
    for line in half.rounds():
        if line["round"] == 3:
            break
    (rest,) = resume(tmp_path / "half")
    list(rest.rounds())
    assert torch.equal(models(rest), models(whole))
    assert rest.host.dropped == whole.host.dropped


@pytest.mark.parametrize("attack", ["sign-flip", "alie", "gradient-scaling", "equivocation"])
def test_lies_are_told_before_they_are_compressed(attack):
    """With a fine codec attackers do the same harm as without any."""
    options = {"algorithm": "dmsgd", "attackers": 2, "attack": attack, "aggregator": "median"}
    fine = finished(**options, compress="float16")
    torch.testing.assert_close(models(fine), models(finished(**options)), rtol=0.02, atol=0.02)
    assert not torch.equal(models(fine), models(finished(**options)))


def test_an_infinite_lie_is_refused_through_every_codec():
    for compress in ("float16", "int8", "int4", "choco(sign)", "choco(topk(0.1))", "gradient: topk(0.1)"):
        run = finished(algorithm="ross", attackers=1, attack="infinite", compress=compress)
        refused = set(run.host.dropped)
        assert refused <= {"not-finite", "malformed"}, compress
        assert run.host.dropped.total() > 6
        assert models(run).isfinite().all()


def test_bytes_are_those_on_the_wire():
    options = {"algorithm": "ross", "hidden": 64, "num_rounds": 2, "validation_size": 20, "test_size": 50}
    plain = sent(finished(**options))
    for compress, kinds, fewer in (
        ("int8", plain, 3.9),
        ("gradient: topk(0.01)", ["gradient"], 25),
        ("int8, gradient: none", plain.keys() - {"gradient"}, 3.9),
    ):
        compressed = sent(finished(**options, compress=compress))
        for kind, total in plain.items():
            assert (total >= fewer * compressed[kind]) == (kind in kinds)


def test_short_vectors_and_whole_numbers_travel_as_they_are():
    run = finished(algorithm="sgp", mixing="push", compress="int8")
    edges = sum(len(run.host.agents[i].receivers) for i in run.host.agents)
    assert sent(run)["push_weight"] == 6 * edges * 4
    assert models(run).isfinite().all()


def test_what_everybody_gets_is_encoded_once():
    class Counted(Int8):
        calls = 0

        def encode(self, vector, leg, memory):
            Counted.calls += 1
            return super().encode(vector, leg, memory)

    host = host_of(DPSGD(), Counted(), graph=topology.build("complete", 6))
    host.activate(0, 0)
    assert Counted.calls == 6
    assert len({id(message) for message in host.mailroom.waiting[0].values()}) == 6
    assert host.mailroom.waiting[1][0] is host.mailroom.waiting[2][0]
