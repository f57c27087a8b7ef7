"""Runs that go on from what their nodes keep under `state-dir`, after Flower has lost them."""

import pytest
import torch
from addresses import free_addresses
from nodes import NodeError, Nodes, app_of, keys_beside

from ross_flwr import ConfigError, PeerDirect, PeerHybrid, PeerRelay, peer_app, resolve
from ross_flwr.direct import certificates
from ross_flwr.flower.placement import Placement, first_round, place
from ross_flwr.flower.protocol import Answer
from ross_flwr.flower.records import record_of, tensors_of
from ross_flwr.graph import build
from ross_flwr.runs.assemble import read_task
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.local import LocalRun

BASE = {"algorithm": "dpsgd", "num_agents": 4, "topology": "ring", "validation_size": 20, "hidden": 8, "test_size": 50}
BASE |= {"num_rounds": 8, "attackers": 0, "learning_rate": 0.05}


class LostError(Exception):
    """The SuperLink is gone."""


class Fragile(Nodes):
    """A grid that is lost after some messages of a type, when all of them have been answered."""

    def __init__(self, *args, kind, after, **options):
        super().__init__(*args, **options)
        self.kind, self.left = kind, after

    def push_messages(self, messages):
        if [message for message in messages if message.metadata.message_type == self.kind]:
            if not self.left:
                for reply in self.replies.values():
                    reply.result(30)
                raise LostError
            self.left -= 1
        return super().push_messages(messages)


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    certificates.init(folder)
    return [certificates.issue(folder, f"n{k}") for k in range(4)]


@pytest.fixture(scope="module")
def expected():
    run = LocalRun(resolve({name.replace("_", "-"): value for name, value in BASE.items()}))
    return run, list(run.rounds())


def start(strategy, certs, grid_of, numbers, tmp_path, evaluate_fn=None, **options):
    """Run a strategy over new nodes with these numbers."""
    options = BASE | {"state_dir": str(tmp_path / "state"), "checkpoint_every": 1} | options
    made = strategy(**keys_beside(options))
    made.history_file = tmp_path / "history.jsonl"
    addresses = free_addresses(4)
    config = resolve({name.replace("_", "-"): value for name, value in BASE.items()})
    nodes = grid_of(
        app_of(config),
        numbers,
        lambda k: {"peer-address": addresses[k], "peer-certs": str(certs[k])},
        together=True,
    )
    model = read_task(config).model
    made.start(nodes, record_of(model.named(model.initial)), BASE["num_rounds"], 60, evaluate_fn=evaluate_fn)
    return made


KINDS = {
    PeerRelay: (("train.mix", 4 * 4), {}),
    PeerDirect: (("train.segment", 4 * 2), {"segment_rounds": 2, "return_model": "final"}),
}


@pytest.mark.parametrize("strategy", KINDS, ids=lambda strategy: strategy.__name__)
def test_a_run_that_flower_has_lost_goes_on_where_it_was_and_ends_as_if_nothing_had_been(
    strategy, certs, expected, tmp_path, caplog
):
    """Flower knows the nodes by other numbers then. In the end, nothing is left under `state-dir`."""
    (kind, after), options = KINDS[strategy]

    def fragile(*args, **options):
        return Fragile(*args, **options, kind=kind, after=after)

    with caplog.at_level("INFO", logger="flwr"), pytest.raises(LostError):
        start(strategy, certs, fragile, (100, 101, 102, 103), tmp_path, **options)
    (name,) = [folder.name for folder in (tmp_path / "state").iterdir()]
    assert f"run: {name}; if it is interrupted, resume='{name}' continues it" in caplog.text
    tested, evaluate = [], None
    if strategy is PeerRelay:

        def evaluate(number, _model):
            tested.append(number)

    made = start(strategy, certs, Nodes, (9, 8, 7, 6), tmp_path, evaluate, resume=name, **options)
    assert tested == ([5, 6, 7, 8] if evaluate else [])
    run, lines = expected
    model = run.assembly.task.model
    for index, agent in run.host.agents.items():
        torch.testing.assert_close(model.flatten(tensors_of(made.models[index])), agent["model"], rtol=0, atol=1e-4)
    for line, local_line in zip(made.history.lines, lines, strict=True):
        for entry in ("round", "absent", "missing", "gradients", "accuracy"):
            assert line[entry] == pytest.approx(local_line[entry])
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == BASE["num_rounds"]
    assert not list((tmp_path / "state").iterdir())


def test_a_node_whose_disk_is_full_in_the_middle_of_a_segment_goes_on_and_tells_it(certs, tmp_path, monkeypatch):
    write, full = RunFolder.write_checkpoint, range(2, 7)

    def write_if_there_is_room(folder, round, tensors, rest):
        if folder.path.name == "agent-2" and round in full:
            raise ConfigError(f"{folder.path} cannot take checkpoint.safetensors: No space left on device")
        write(folder, round, tensors, rest)

    monkeypatch.setattr(RunFolder, "write_checkpoint", write_if_there_is_room)
    made = start(PeerDirect, certs, Nodes, range(4), tmp_path, segment_rounds=8)
    assert made.dropped == {"unsaved": len(full)}
    assert [(line["absent"], line["missing"]) for line in made.history.lines] == [([], [])] * 8


def test_rounds_whose_reports_are_lost_are_told_as_such(certs, tmp_path):
    """They are run before Flower is lost, and no history is kept."""

    def fragile(*args, **options):
        return Fragile(*args, **options, kind="train.segment", after=4)

    options = {"segment_rounds": 3}
    with pytest.raises(LostError):
        start(PeerDirect, certs, fragile, (1, 2, 3, 4), tmp_path, **options)
    (name,) = [folder.name for folder in (tmp_path / "state").iterdir()]
    (tmp_path / "history.jsonl").unlink(missing_ok=True)
    made = start(PeerDirect, certs, Nodes, (1, 2, 3, 4), tmp_path, resume=name, **options)
    assert [line["round"] for line in made.history.lines] == list(range(1, 9))
    assert [len(line["absent"]) for line in made.history.lines] == [4] * 3 + [0] * 5


def test_what_cannot_be_resumed_is_told_before_the_first_round(tmp_path):
    def fragile(*args, **options):
        return Fragile(*args, **options, kind="train.mix", after=4)

    def play(grid_of, numbers=(1, 2), **options):
        options = BASE | {"state_dir": str(tmp_path)} | options
        made = PeerRelay(**options)
        model = made.assembly.task.model
        nodes = grid_of(peer_app(), numbers)
        made.start(nodes, record_of(model.named(model.initial)), 8, 60)

    with pytest.raises(LostError):
        play(fragile)
    (name,) = [folder.name for folder in tmp_path.iterdir()]
    for options, sentence in (
        ({"state_dir": ""}, f"resume = '{name}' needs the state-dir that the run had"),
        ({"resume": "another"}, "resume = 'another': 0 of 2 nodes hold the state of that run"),
        ({"resume": "../.."}, "cannot name a folder"),
        ({"learning_rate": 0.5}, "learning-rate = 0.5, and its checkpoint was made with learning-rate = 0.05"),
        ({"seed": 1}, "cannot be resumed with seed = 1"),
        ({"numbers": (1, 2, 3, 4)}, "2 of 4 nodes hold the state of that run: use the state-dir, num-agents"),
    ):
        with pytest.raises((ConfigError, NodeError), match=sentence):
            play(Nodes, **{"resume": name} | options)
    folder = RunFolder(tmp_path / name / "agent-0")
    number, tensors, kept = folder.read_checkpoint()
    for damage, sentence in (
        ({"state": {}}, "agent-0 is damaged: its checkpoint holds no state of agents"),
        ({"state": {"x": {}}}, "agent-0 is damaged"),
        ({"state": {"0": {}, "1": {}}}, "agent-0 cannot be resumed: it holds the state of other agents"),
        ({"mail": {"0": {"1": {"model": "?"}}}}, r"agent-0 cannot be resumed: .* is damaged: KeyError\('\?'\)"),
    ):
        folder.write_checkpoint(number, tensors, kept | damage)
        with pytest.raises((ConfigError, NodeError), match=sentence):
            play(Nodes, resume=name)
    folder.write_checkpoint(number, tensors, kept)
    play(Nodes, resume=name, phase_timeout=5.0, evaluate_every=4)
    assert not list(tmp_path.iterdir())


def held(**rounds):
    return {int(node.removeprefix("n")): Answer(held=of_node) for node, of_node in rounds.items()}


def test_agents_go_where_their_state_is_whoever_claims_more():
    """Node 3 claims the state of all agents; the other nodes have that of one agent each."""
    answers = held(n3={0: 9, 1: 9, 2: 9, 3: 10**9}, n4={2: 5}, n5={0: 5}, n6={1: 6})
    placement = place(build("ring", 4), [3, 4, 5, 6], answers)
    assert placement.blocks == {5: (0,), 6: (1,), 4: (2,), 3: (3,)}
    assert first_round(placement, "run") == 6
    with pytest.raises(ConfigError, match="1 of 4 nodes hold the state"):
        first_round(Placement(placement.blocks, held(n3={3: 7}, n4={}, n5={7: 1})), "run")


def test_a_hybrid_run_can_go_on_with_a_round_of_averaging(certs, tmp_path):
    def fragile(*args, **options):
        return Fragile(*args, **options, kind="train.share", after=0)

    options = {"average_every": 4, "segment_rounds": 3}
    with pytest.raises(LostError):
        start(PeerHybrid, certs, fragile, (1, 2, 3, 4), tmp_path, **options)
    (name,) = [folder.name for folder in (tmp_path / "state").iterdir()]
    made = start(PeerHybrid, certs, Nodes, (1, 2, 3, 4), tmp_path, resume=name, **options)
    assert [line["absent"] for line in made.history.lines] == [[]] * 8
    assert not made.dropped
