"""The relay in Flower's simulation engine. One simulation per number of nodes serves all tests."""

import gc
import json
import time
from dataclasses import asdict
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from simulation import simulate

from ross_flwr import Agent, Algorithm, Inbox, Outbox, PeerRelay, broadcast, option, peer_app, register, resolve, step
from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import ConfigError
from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.events import AgentReport
from ross_flwr.flower import relay as relay_module
from ross_flwr.flower.records import pack, record_of, tensors_of, unpack
from ross_flwr.runs.local import LocalRun
from ross_flwr.runs.options import RunOptions

SAME = {"num_agents": 6, "num_rounds": 3, "topology_degree": 3, "attackers": 1}
"""ROSS on the digits, small enough for every transport."""

DIRECTED = SAME | {"algorithm": "sgp", "topology": "random-out", "mixing": "push", "topology_degree": 2}
EQUAL = {
    "same": SAME,
    "toy": SAME | {"algorithm": "push-to-mean", "pull": 0.25},
    "directed": DIRECTED,
    "directed, changing": DIRECTED | {"topology": "one-peer-exponential", "topology_every": 1},
    "changing": SAME | {"topology_every": 1, "batches_per_round": 2},
    "faults": SAME | {"num_rounds": 4, "dropout": 0.2, "message_loss": 0.2, "slow": 1, "slow_rounds": 2, "stopped": 1},
}
"""Runs that are the same on every transport."""

WATCHED = "ten"
"""The play before whose grid a `Watch` stands: to look at all objects takes long, and may disturb Flower's threads."""

LARGE = 100_000
"""Bytes that only the model of the play "ten" exceeds."""


@register("push-to-mean")
class PushToMean(Algorithm):
    """A toy defined here and nowhere in the package: x_i ← (1 − pull) x_i + pull · mean of the neighbourhood."""

    pull: float = option(0.5, "how far to go", minimum=0.0, maximum=1.0)

    @step(sends=("model",))
    def tell(self, agent: Agent, inbox: Inbox) -> Outbox:
        return broadcast(model=agent["model"] + agent.index)

    @step()
    def move(self, agent: Agent, inbox: Inbox) -> None:
        models = inbox.gather("model")
        agent["model"] = (1 - self.pull) * models[agent.index] + self.pull * agent.mix(models)


def saboteur(message: Message, context: Context, call_next: Any) -> Message:
    """A Flower mod that makes node 1 fail, or come too late, in one exchange of round 2."""
    plan = message.content.config_records["config"].get("sabotage")
    if plan and context.node_config["partition-id"] == 1 and message.metadata.group_id == "2":
        if plan == "error":
            raise RuntimeError("sabotage")
        if message.metadata.message_type == "train.mix":
            time.sleep(7)
    return call_next(message, context)


client = peer_app(mods=[saboteur])


class Watch:
    """Stands before the Grid: how long replies lay there, and how many bytes of arrays were in messages here.

    The states of simulated nodes, which Flower keeps in the same process, are not counted.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.stored: dict[str, float] = {}
        self.waits: list[float] = []
        self.pauses: list[float] = []
        self.peak = 0
        store = grid.state.store_message_res  # type: ignore[attr-defined]

        def noting(message: Message) -> Any:
            self.stored[message.metadata.reply_to_message_id] = time.monotonic()
            return store(message)

        grid.state.store_message_res = noting  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.grid, name)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        time.sleep(seconds)

    def pull_messages(self, message_ids: Any) -> Any:
        replies = list(self.grid.pull_messages(message_ids))
        now = time.monotonic()
        self.waits += [now - self.stored[reply.metadata.reply_to_message_id] for reply in replies]
        messages = [m for m in gc.get_objects() if type(m) is Message and m.has_content()]
        records = [r for m in messages for r in m.content.array_records.values()]
        arrays = [array for record in records for array in record.values() if len(array.data) > LARGE]
        held = {id(array.data): len(array.data) for array in arrays}
        self.peak = max(self.peak, sum(held.values()))
        return replies


def play(
    grid: Grid, *, evaluate: bool = False, timeout: float = 60, sabotage: str = "", **options: Any
) -> dict[str, Any]:
    """Run one relay on the grid and return what there is to look at."""
    relay = PeerRelay(**options)
    model = relay.experiment.model
    tested: list[int] = []

    def centrally(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        tested.append(server_round)
        return MetricRecord({"norm": float(model.flatten(tensors_of(arrays)).norm())})

    result = relay.start(
        grid,
        record_of(model.named(model.initial)),
        relay.config.part(RunOptions).num_rounds,
        timeout,
        train_config=ConfigRecord({"sabotage": sabotage}),
        evaluate_fn=centrally if evaluate else None,
    )
    models = {i: model.flatten(tensors_of(record)) for i, record in relay.models.items()}
    return {"relay": relay, "result": result, "models": models, "lines": relay.history.lines, "tested": tested}


def play_all(num_nodes: int, plays: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Run all plays, one after the other, in one simulation."""
    results: dict[str, dict[str, Any]] = {}

    def run(grid: Grid) -> None:
        for name, options in plays.items():
            watch = Watch(grid) if name == WATCHED else grid
            with pytest.MonkeyPatch.context() as patch:
                if isinstance(watch, Watch):
                    patch.setattr(relay_module, "time", SimpleNamespace(**{**vars(time), "sleep": watch.sleep}))
                played = play(watch, num_nodes=num_nodes, **options)  # type: ignore[arg-type]
            results[name] = played | {"watch": watch}

    simulate(num_nodes, client, run)
    return results


@pytest.fixture(scope="module")
def six_nodes() -> dict[str, dict[str, Any]]:
    return play_all(
        6,
        {
            **EQUAL,
            "same": SAME | {"evaluate": True},
            "few": {"algorithm": "dpsgd", "num_agents": 4, "topology": "ring", "num_rounds": 1},
            "error": {"algorithm": "dpsgd", "num_agents": 6, "topology": "ring", "num_rounds": 4, "sabotage": "error"},
            "late": SAME | {"num_rounds": 20, "timeout": 4, "sabotage": "late"},
            "ten": {"algorithm": "dpsgd", "num_agents": 10, "num_rounds": 5, "hidden": 500, "attackers": 0},
        },
    )


METHODS = [name for name, cls in ALGORITHMS.items() if cls.__module__.startswith("ross_flwr") and name != "ross"]
LIES = {
    attack: SAME | {"attack": attack, "attackers": 2, "attack_from": 2, "num_rounds": 4}
    for attack in ("alie", "equivocation", "mimic", "shapley-adaptive", "stale", "gradient-noise")
}
EACH: dict[str, Any] = SAME | {"num_rounds": 2, "gossip_steps": 2, "local_steps": 2}
GRAPHS: dict[str, dict[str, Any]] = {
    "complete": {"topology": "complete", "byzantine": 1},
    "ring": {"topology": "ring", "mixing": "lazy-metropolis", "byzantine": 0, "num_rounds": 1},
}
OWN: dict[str, dict[str, Any]] = {
    "cgsv-server": {"topology": "star"},
    "single-merge": {"gossip_every": 1, "merge_passes": 1},
}
"""What methods take that do not run on every graph; they are run once."""
CASES = {
    f"{name}, {graph}": EACH | GRAPHS[graph] | {"algorithm": name} | OWN.get(name, {})
    for name in METHODS
    for graph in GRAPHS
    if graph == "complete" or name not in OWN
}


@pytest.fixture(scope="module")
def two_nodes() -> dict[str, dict[str, Any]]:
    return play_all(2, EQUAL | LIES | CASES)


@pytest.mark.parametrize("case", CASES)
def test_every_method_gives_the_same_models_through_the_relay(case: str, two_nodes: dict[str, Any]) -> None:
    expected = locally(**CASES[case])
    assert two_nodes[case]["lines"][-1]["missing"] == []
    for index, agent in expected.host.agents.items():
        torch.testing.assert_close(two_nodes[case]["models"][index], agent["model"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("attack", LIES)
def test_attackers_tell_the_same_lies_through_the_relay(attack: str, two_nodes: dict[str, Any]) -> None:
    expected = locally(**LIES[attack])
    for index, agent in expected.host.agents.items():
        torch.testing.assert_close(two_nodes[attack]["models"][index], agent["model"], rtol=1e-4, atol=1e-4)


def locally(**options: Any) -> LocalRun:
    run = LocalRun(resolve({name.replace("_", "-"): value for name, value in options.items()}))
    for _ in run.rounds():
        pass
    return run


@pytest.mark.parametrize("nodes", ["six_nodes", "two_nodes"])
@pytest.mark.parametrize("name", EQUAL)
def test_every_agent_ends_with_the_model_it_has_locally(nodes: str, name: str, request: pytest.FixtureRequest) -> None:
    expected = locally(**EQUAL[name])
    played = request.getfixturevalue(nodes)[name]
    assert sorted(played["models"]) == list(range(6))
    for index, agent in expected.host.agents.items():
        assert not torch.equal(agent["model"], expected.experiment.model.initial)
        torch.testing.assert_close(played["models"][index], agent["model"], rtol=0, atol=1e-5)
    for line, local_line in zip(played["lines"], expected.history.lines, strict=True):
        for entry in ("bytes", "gradients", "utilities", "sent", "missing", "absent"):
            assert line[entry] == local_line[entry]
        assert line["accuracy"] == pytest.approx(local_line["accuracy"], abs=1e-6)


def test_the_result_is_what_fedavg_would_return(six_nodes: dict[str, Any]) -> None:
    played = six_nodes["same"]
    result, relay = played["result"], played["relay"]
    assert list(result.train_metrics_clientapp) == [1, 2, 3]
    assert list(result.evaluate_metrics_clientapp) == [1, 2, 3]
    assert list(result.evaluate_metrics_serverapp) == [0, 1, 2, 3]
    assert played["tested"] == [0, 1, 2, 3]
    module = relay.experiment.model.module
    assert list(result.arrays) == list(module.state_dict())
    mean = torch.stack([played["models"][i] for i in relay.history.honest]).mean(0)
    torch.testing.assert_close(relay.experiment.model.flatten(tensors_of(result.arrays)), mean)


def test_agents_are_spread_evenly_and_spare_nodes_stay_idle(
    six_nodes: dict[str, Any], two_nodes: dict[str, Any]
) -> None:
    assert [len(block) for block in two_nodes["same"]["relay"].blocks.values()] == [3, 3]
    assert sorted(len(block) for block in six_nodes["ten"]["relay"].blocks.values()) == [1, 1, 2, 2, 2, 2]
    assert [len(block) for block in six_nodes["few"]["relay"].blocks.values()] == [1, 1, 1, 1]


def test_the_run_goes_on_without_an_agent_whose_node_fails(six_nodes: dict[str, Any]) -> None:
    played = six_nodes["error"]
    (gone,) = played["lines"][1]["absent"]
    assert [line["absent"] for line in played["lines"]] == [[], [gone], [gone], []]  # it began the third too late
    assert sorted(j for i, j in played["lines"][2]["missing"] if i != gone) == [gone, gone]
    assert played["lines"][3]["missing"] == []
    assert played["relay"].dropped["error"] == 1
    assert all(bool(model.isfinite().all()) for model in played["models"].values())
    assert sorted(played["models"]) == list(range(6))


def test_a_late_agent_is_missing_for_the_step_and_back_some_rounds_later(six_nodes: dict[str, Any]) -> None:
    played = six_nodes["late"]
    assert len(played["lines"][1]["absent"]) == 1
    assert 4 < played["lines"][1]["seconds"] < 7
    assert played["lines"][-1]["absent"] == []
    assert played["lines"][-1]["missing"] == []
    assert played["relay"].dropped["late"] == 1


def test_replies_lie_no_longer_than_between_two_looks(six_nodes: dict[str, Any]) -> None:
    waits = six_nodes["ten"]["watch"].waits
    assert len(waits) >= 6 * 5
    assert max(six_nodes["ten"]["watch"].pauses) <= 0.1
    assert median(waits) < 0.15  # the tail is the machine's, when it is busy


def test_the_server_process_holds_at_most_two_copies_of_each_model(six_nodes: dict[str, Any]) -> None:
    played = six_nodes["ten"]
    one = played["models"][0].nbytes + 128  # a header of NumPy's format
    assert 8 * one < played["watch"].peak <= 20 * one


@pytest.fixture
def task() -> None:
    """What Flower sets before it runs an app, and wants before a message is made."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def reply_from(node: int, **columns: Any) -> Message:
    route = {"run": "r", "round": 0, "step": "share", "record": ["message.0"], **columns}
    content = RecordDict({"message.0": record_of({"model": torch.ones(3)}), "route": ConfigRecord(route)})
    message = Message(RecordDict(), node, "train.mix")
    answer = Message(content, reply_to=message)
    answer.metadata.__dict__["_src_node_id"] = node
    return answer


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"source": [0], "destination": [2]}, "no-edge"),
        ({"source": [0], "destination": [7]}, "no-edge"),
        ({"source": [1], "destination": [2]}, "not-hosted"),
        ({"source": [0], "destination": [1], "record": ["message.9"]}, "malformed"),
        ({"source": [0, 0], "destination": [1]}, "malformed"),
        ({"source": ["0"], "destination": [1]}, "malformed"),
        ({"source": [0]}, "malformed"),
        ({"source": [0], "destination": [1], "run": 5}, "malformed"),
        ({"source": [0], "destination": [1], "round": "first"}, "malformed"),
        ({"source": [0], "destination": [1], "round": 10**12}, "other-step"),
    ],
)
def test_a_message_without_an_edge_or_sense_is_refused_and_counted(columns: dict[str, Any], reason: str) -> None:
    relay = PeerRelay(num_agents=4, topology="ring", attackers=0)
    relay.blocks = {10 + i: (i,) for i in range(4)}
    relay._home = {i: 10 + i for i in range(4)}
    relay._call = {"iteration": 0, "step": 0}
    sound = reply_from(11, source=[1], destination=[2])
    mail = relay._forward([reply_from(10, **columns), sound])
    assert list(mail) == [12]
    assert dict(relay.dropped) == {reason: 1}


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(
    "report",
    ["[", "5", "[5]", '[{"agent": 0}]', json.dumps([asdict(AgentReport(0, gradients="many"))])],  # type: ignore[arg-type]
)
def test_a_report_without_sense_costs_that_report_only(report: str) -> None:
    relay = PeerRelay(num_agents=4, topology="ring", attackers=0)
    relay.blocks = {10 + i: (i,) for i in range(4)}
    relay._home = {i: 10 + i for i in range(4)}
    wrong, sound, stranger = (reply_from(node, source=[], destination=[]) for node in (10, 11, 12))
    wrong.content["report"] = ConfigRecord({"json": report})
    for reply in (sound, stranger):
        reply.content["report"] = ConfigRecord({"json": json.dumps([asdict(AgentReport(1, gradients=3))])})
    _, metrics = relay.aggregate_train(1, [wrong, sound, stranger])
    assert metrics is not None
    assert metrics["gradients"] == 3
    assert relay.history.lines[0]["absent"] == [0, 2, 3]
    assert relay.dropped["malformed"] == 1


def test_arrays_that_are_not_what_they_say_are_left_out_and_the_others_kept() -> None:
    sent = [Envelope("r", 0, "share", i, 2, {"model": torch.full((3,), float(i))}) for i in (0, 1, 3)]
    content = pack(sent)
    content.array_records["message.0"]["model"].data = b"no array"
    cut_short = content.array_records["message.1"]["model"]
    cut_short.data = cut_short.data[:-4]
    (kept,) = unpack(content, torch.device("cpu"))
    assert kept.source == 3
    assert torch.equal(kept.tensors["model"], torch.full((3,), 3.0))


class TwoNodes:
    """A grid of which the relay learns no more than which nodes there are."""

    run = SimpleNamespace(run_id=1)

    def get_node_ids(self) -> list[int]:
        return [10, 11]


def test_attackers_that_would_have_to_look_into_other_nodes_stop_the_run_before_it_starts() -> None:
    relay = PeerRelay(num_agents=4, topology="ring", attack="alie", attackers=1, omniscient=True, num_nodes=2)
    with pytest.raises(ConfigError, match="they are on 2 nodes"):
        relay.start(TwoNodes(), ArrayRecord())  # type: ignore[arg-type]


class Sleeper:
    """A grid whose one node answers half a second after it was written to."""

    def __init__(self) -> None:
        self.written: dict[str, tuple[float, Message]] = {}

    def push_messages(self, messages: list[Message]) -> list[str]:
        numbers = [f"{len(self.written) + k}" for k in range(len(messages))]
        self.written |= {n: (time.monotonic(), m) for n, m in zip(numbers, messages, strict=True)}
        return numbers

    def pull_messages(self, numbers: list[str]) -> list[Message]:
        replies = []
        for number in [n for n in numbers if time.monotonic() - self.written[n][0] > 0.5]:
            reply = Message(RecordDict(), reply_to=self.written[number][1])
            reply.metadata.__dict__["_reply_to_message_id"] = number
            replies.append(reply)
        return replies


@pytest.mark.usefixtures("task")
def test_when_every_node_is_late_the_relay_waits_for_one_of_them() -> None:
    relay, grid = PeerRelay(num_agents=4, topology="ring", attackers=0), Sleeper()
    relay.blocks = {10: (0, 1, 2, 3)}
    assert relay._exchange(grid, [Message(RecordDict(), 10, "train.mix")], timeout=0.1) == []  # type: ignore[arg-type]
    assert list(relay._late.values()) == [10]
    assert relay._exchange(grid, [], timeout=5) == []  # type: ignore[arg-type]
    assert relay._late == {}
    assert relay.dropped["late"] == 1
