"""The relay, over nodes of this process: every method, graph and threat gives what the local engine gives."""

import threading
from concurrent.futures import FIRST_COMPLETED, wait
from functools import partial

import pytest
import torch
from flwr.app import ArrayRecord, Error, Message, MetricRecord
from nodes import KilledError, Nodes, app_of, keys_beside

from ross_flwr import PeerRelay, broadcast, option, peer_app, register, resolve, step
from ross_flwr.algorithms import ALGORITHMS, Algorithm
from ross_flwr.config import ConfigError
from ross_flwr.flower import strategy
from ross_flwr.flower.grid import Post
from ross_flwr.flower.records import record_of, tensors_of
from ross_flwr.privacy.correlated import joint, pairwise
from ross_flwr.runs.assemble import read_task
from ross_flwr.runs.local import LocalRun

SAME = {"num_agents": 6, "topology_degree": 3, "attackers": 1, "validation_size": 20, "test_size": 50, "hidden": 8}
"""ROSS on the digits, small enough for every transport."""

DIRECTED = SAME | {"algorithm": "sgp", "topology": "random-out", "mixing": "push", "topology_degree": 2}
EQUAL = {
    "same": SAME,
    "toy": SAME | {"algorithm": "push-to-mean", "pull": 0.25},
    "directed": DIRECTED,
    "directed, changing": DIRECTED | {"topology": "one-peer-exponential", "topology_every": 1},
    "changing": SAME | {"topology_every": 1, "batches_per_round": 2},
    "private": SAME | {"algorithm": "pdsl", "dp_clip": 0.5, "dp_noise": 2.0, "batches_per_round": 2},
    "private, lossy": SAME | {"algorithm": "dmsgd", "dp_clip": 1.0, "dp_epsilon": 5.0, "message_loss": 0.2},
    "compressed": SAME | {"compress": "int8"},
    "compressed, lossy": SAME
    | {
        "num_rounds": 6,
        "message_loss": 0.2,
        "compress": "model: choco(topk(0.1)), momentum: int4, gradient: topk(0.05)",
    },
    "text": {
        "task": "language-model",
        "dataset": "python(kib=4)",
        "model": "transformer(width=8,context=16)",
        "algorithm": "ross-plus",
        "num_agents": 6,
        "attackers": 1,
        "validation_size": 24,
        "batch_size": 8,
    },
    "faults": SAME | {"num_rounds": 4, "dropout": 0.2, "message_loss": 0.2, "slow": 1, "stopped": 1},
}
"""Runs that are the same on every transport."""

METHODS = [name for name, cls in ALGORITHMS.items() if cls.__module__.startswith("ross_flwr") and name != "ross"]
OWN = {
    "cgsv-server": {"topology": "star"},
    "single-merge": {"gossip_every": 1, "merge_passes": 1},
    "d2": {"mixing": "lazy-metropolis"},
}
COMPLETE = SAME | {"topology": "complete", "byzantine": 1, "num_rounds": 2, "gossip_steps": 2, "local_steps": 2}
OF_METHOD = {name: COMPLETE | {"algorithm": name} | OWN.get(name, {}) for name in METHODS}
LIES = {
    attack: SAME | {"attack": attack, "attackers": 2, "attack_from": 2, "num_rounds": 4}
    for attack in ("equivocation", "shapley-adaptive", "stale")
}
"""A lie told to each neighbour on its own, one that looks at validation data, and one with a memory."""


@register("push-to-mean")
class PushToMean(Algorithm):
    """A toy defined here and nowhere in the package: x_i ← (1 − pull) x_i + pull · mean of the neighbourhood."""

    pull: float = option(0.5, "how far to go", minimum=0.0, maximum=1.0)

    @step(sends=("model",))
    def tell(self, agent, inbox):
        return broadcast(model=agent["model"] + agent.index)

    @step()
    def move(self, agent, inbox):
        models = inbox.gather("model")
        agent["model"] = (1 - self.pull) * models[agent.index] + self.pull * agent.mix(models)


def play(num_nodes, app=None, evaluate_fn=None, node_config=lambda k: {}, **options):
    """Run a relay over nodes of this process, one at a time."""
    options = {"num_rounds": 3} | options
    relay = PeerRelay(**options)
    model = relay.assembly.task.model
    nodes = Nodes(app or peer_app(), range(10, 10 + num_nodes), node_config)
    initial = record_of(model.named(model.initial))
    result = relay.start(nodes, initial, options["num_rounds"], 60, evaluate_fn=evaluate_fn)
    return relay, result


def locally(**options):
    run = LocalRun(resolve({name.replace("_", "-"): value for name, value in ({"num_rounds": 3} | options).items()}))
    for _ in run.rounds():
        pass
    return run


def assert_equal(relay, expected, atol=1e-5):
    assert sorted(relay.models) == sorted(expected.host.agents)
    model = expected.assembly.task.model
    for index, agent in expected.host.agents.items():
        assert not torch.equal(agent["model"], model.initial)
        torch.testing.assert_close(model.flatten(tensors_of(relay.models[index])), agent["model"], rtol=1e-4, atol=atol)
    for line, local_line in zip(relay.history.lines, expected.history.lines, strict=True):
        for entry in ("bytes", "gradients", "utilities", "work", "sent", "missing", "absent"):
            assert line[entry] == local_line[entry]
        assert line["accuracy"] == pytest.approx(local_line["accuracy"], abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_same_models_through_the_relay(method):
    relay, _ = play(2, **OF_METHOD[method])
    assert_equal(relay, locally(**OF_METHOD[method]))


@pytest.mark.parametrize("attack", LIES)
def test_attackers_tell_the_same_lies_through_the_relay(attack):
    relay, _ = play(2, **LIES[attack])
    assert_equal(relay, locally(**LIES[attack]), atol=1e-4)


@pytest.mark.parametrize("name", EQUAL)
def test_every_agent_ends_with_the_model_that_it_has_locally(name):
    """Of four nodes two host two agents each, so that messages travel in a node and between nodes."""
    relay, _ = play(4, **EQUAL[name])
    assert_equal(relay, locally(**EQUAL[name]))


@pytest.mark.parametrize("said", [{}, {"reproducible-noise": "false"}], ids=["nothing", "a text"])
def test_noise_on_nodes_is_their_own_unless_their_owner_says_otherwise(said):
    options = SAME | {"algorithm": "dpsgd", "dp_clip": 1.0, "dp_noise": 1.0, "num_rounds": 1}
    relay, _ = play(2, node_config=lambda k: {"reproducible-noise": False, **said}, **options)
    model = relay.assembly.task.model
    for index, agent in locally(**options).host.agents.items():
        same = torch.isclose(model.flatten(tensors_of(relay.models[index])), agent["model"])
        assert same.float().mean() < 0.01
    assert "Nodes took the noise from their operating systems" in relay.outcome["privacy"]["statement"]


@pytest.mark.parametrize(("method", "passes", "extra"), [("decor", 1, 32), ("corn-dsgd", 2, 40)])
def test_agents_agree_on_noise_that_cancels_after_a_pass_or_two(method, passes, extra):
    """On a complete graph every model is the mean, where only what does not cancel is left."""
    options = SAME | {"algorithm": method, "num_agents": 4, "topology": "complete", "attackers": 0}
    options |= {"dp_noise": 1e4, "learning_rate": 1e-3}
    relay, _ = play(2, node_config=lambda k: {"reproducible-noise": False}, **options)
    assembly = relay.assembly
    covariance_of = {"decor": pairwise, "corn-dsgd": joint}[method]
    model, covariance = assembly.task.model, covariance_of(assembly.topology.mixing)
    moved = model.flatten(tensors_of(relay.models[0])) - model.initial
    alone, agreed = covariance.trace() / 16, covariance.sum() / 16  # the variance of the mean, at z · Δ · η = 1
    unit = 1e-3 * 1e4 * 2 / assembly.task.batch_size(0)
    assert float(moved.var()) / unit**2 == pytest.approx(passes * alone + (3 - passes) * agreed, rel=0.2)
    assert alone > 3 * agreed
    assert relay.history.lines[0]["bytes"] == 12 * (4 * len(model.initial) + extra)
    assert not relay.dropped


def test_agents_are_spread_evenly_and_spare_nodes_stay_idle():
    sizes = {}
    for agents, nodes in ((6, 2), (10, 6), (4, 6)):
        relay, _ = play(nodes, algorithm="dpsgd", num_agents=agents, topology="ring", num_rounds=1)
        sizes[agents, nodes] = sorted(map(len, relay.placement.blocks.values()))
    assert sizes == {(6, 2): [3, 3], (10, 6): [1, 1, 2, 2, 2, 2], (4, 6): [1, 1, 1, 1]}


def failing(message, context, call_next):
    """A Flower mod that makes node 1 fail in one exchange of round 2."""
    if context.node_config["partition-id"] == 1 and message.metadata.group_id == "2":
        raise KilledError
    return call_next(message, context)


def test_the_run_goes_on_without_an_agent_whose_node_fails():
    relay, _ = play(6, peer_app([failing]), algorithm="dpsgd", num_agents=6, topology="ring", num_rounds=8)
    lines = relay.history.lines
    (gone,) = lines[1]["absent"]
    assert [line["absent"] for line in lines[:3]] == [[], [gone], [gone]]  # it began the third too late
    assert sorted(j for i, j in lines[2]["missing"] if i != gone) == [gone, gone]
    assert (lines[-1]["absent"], lines[-1]["missing"]) == ([], [])
    assert relay.dropped == {"error": 1}
    assert sorted(relay.models) == list(range(6))


RAYS = (
    "<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'ray::ClientAppActor.run()\n  File \"ray_actor.py\"\n"
    "flwr.clientapp.client_app.ClientAppException: \nException ClientAppException occurred. Message: {}\n'>"
)
"""What Flower makes of an error in a simulation."""


class Reporting(Nodes):
    """Nodes whose errors are replies, as in Flower."""

    def answer(self, message):
        try:
            return super().answer(message)
        except Exception as error:
            reply = Message(Error(code=2, reason=RAYS.format(error)), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
            return reply


def broken(message, context, call_next):
    """A Flower mod that fails from the second round of every node on."""
    if message.metadata.group_id in ("2", "3"):
        raise OSError("the disk is gone")
    return call_next(message, context)


def test_a_run_stops_in_the_exchange_in_which_the_app_fails_on_every_node_though_set_up_anew():
    relay = PeerRelay(algorithm="dpsgd", num_agents=4, topology="ring", hidden=8, num_rounds=60)
    model, rounds = relay.assembly.task.model, []
    relay.on_round = rounds.append
    with pytest.raises(ConfigError, match="no node can work, and the run stops: node 100 fails: the disk is gone"):
        relay.start(Reporting(peer_app([broken])), record_of(model.named(model.initial)), 60, 60)
    assert [line["round"] for line in rounds] == [1, 2]
    assert relay.dropped == {"error": 8}


class Restarted(Reporting):
    """Nodes that all lose what they held before the second round."""

    def answer(self, message):
        node = message.metadata.dst_node_id
        if message.metadata.group_id == "2":
            self.contexts[node].state.clear()
        return super().answer(message)


def test_a_run_goes_on_after_all_nodes_have_restarted_at_once():
    relay = PeerRelay(algorithm="dpsgd", num_agents=4, topology="ring", hidden=8)
    model = relay.assembly.task.model
    relay.start(Restarted(peer_app()), record_of(model.named(model.initial)), 4, 60)
    everybody = [0, 1, 2, 3]  # set up anew in the middle of round 3
    assert [line["absent"] for line in relay.history.lines] == [[], everybody, everybody, []]


def killed(message, context, call_next):
    """A Flower mod that kills every node before it has done anything."""
    if message.metadata.message_type.startswith("train."):
        raise KilledError
    return call_next(message, context)


def test_a_run_in_which_nobody_reported_does_not_end_well():
    with pytest.raises(ConfigError, match=r"no agent reported in any round; lost: error \(12\)"):
        play(4, peer_app([killed]), algorithm="dpsgd", num_agents=4, topology="ring", num_rounds=2)


class Held:
    """Holds node 1's answer in the last exchange of round 2 until node 0 is in that of round 6, and moves the clock.

    Time passes only while node 1 is held and every other node has answered.
    """

    def __init__(self):
        self.now = 0.0
        self.held, self.let_go = threading.Event(), threading.Event()

    def mod(self, message, context, call_next):
        if message.metadata.message_type == "train.mix":
            when = context.node_config["partition-id"], message.metadata.group_id
            if when == (1, "2"):
                self.number = message.metadata.message_id
                self.held.set()
                assert self.let_go.wait(30)
            elif when == (0, "6"):
                self.let_go.set()
                self.nodes.replies[self.number].result(30)
        return call_next(message, context)

    def sleep(self, seconds):
        owed = [reply for reply in self.nodes.replies.values() if not reply.done()]
        if self.held.is_set() and owed == [self.nodes.replies[self.number]]:
            self.now += seconds
        elif owed:
            wait(owed, timeout=0.05, return_when=FIRST_COMPLETED)  # node 1 may not be held yet


def test_a_late_agent_is_missing_for_the_step_and_back_when_it_has_answered(monkeypatch, caplog):
    held, options = Held(), SAME | {"attackers": 0, "algorithm": "dpsgd", "num_rounds": 9, "learning_rate": 1e-3}
    config = resolve({name.replace("_", "-"): value for name, value in options.items()})
    held.nodes = Nodes(app_of(config, [held.mod]), range(10, 16), together=True)
    monkeypatch.setattr(strategy, "Post", partial(Post, clock=lambda: held.now, sleep=held.sleep))
    relay, model = PeerRelay(**keys_beside(options)), read_task(config).model
    relay.start(held.nodes, record_of(model.named(model.initial)), 9, timeout=60.0)
    absent = [len(line["absent"]) for line in relay.history.lines]
    assert (absent[:6], absent[8]) == ([0, 1, 1, 1, 1, 1], 0)
    assert relay.history.lines[8]["missing"] == []
    assert relay.dropped == {"late": 1}
    assert 60 <= held.now < 62, "it is waited for in one exchange"
    late = [text for text in caplog.messages if "did not finish an exchange" in text]
    assert len(late) == 5, "in rounds 2 to 6, in which it is busy"
    assert "1 of 6 agents did not finish an exchange within 60 s" in late[0]
    assert "raise phase-timeout" in late[0]


def test_the_result_is_what_fedavg_would_return():
    tested = []

    def centrally(server_round, arrays):
        tested.append(server_round)
        return MetricRecord({"norm": 1.0})

    relay, result = play(2, evaluate_fn=centrally, **SAME)
    assert list(result.train_metrics_clientapp) == [1, 2, 3]
    assert list(result.evaluate_metrics_clientapp) == [1, 2, 3]
    assert list(result.evaluate_metrics_serverapp) == tested == [0, 1, 2, 3]
    model = relay.assembly.task.model
    assert list(result.arrays) == list(model.module.state_dict())
    mean = torch.stack([model.flatten(tensors_of(relay.models[i])) for i in relay.history.honest]).mean(0)
    torch.testing.assert_close(model.flatten(tensors_of(result.arrays)), mean)


def test_attackers_that_would_have_to_look_into_other_nodes_stop_the_run_before_it_starts():
    relay = PeerRelay(num_agents=4, topology="ring", attack="alie", attackers=1, omniscient=True, num_nodes=2)
    with pytest.raises(ConfigError, match="they are on 2 nodes"):
        relay.start(Nodes(peer_app(), (10, 11)), ArrayRecord())
