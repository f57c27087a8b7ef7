"""What Flower's own simulation engine is needed for: one simulation of six nodes serves all tests."""

import gc

import pytest
import torch
from flwr.app import ConfigRecord, Message
from simulation import simulate

from ross_flwr import PeerRelay, peer_app, resolve
from ross_flwr.flower.records import record_of, tensors_of
from ross_flwr.runs.local import LocalRun

SAME = {"num_agents": 6, "num_rounds": 2, "topology_degree": 3, "attackers": 1, "validation_size": 20}
PLAYS = {
    "same": SAME,
    "error": {"algorithm": "dpsgd", "num_agents": 6, "topology": "ring", "num_rounds": 4},
    "ten": {"algorithm": "dpsgd", "num_agents": 10, "num_rounds": 3, "hidden": 500, "test_size": 100},
}
LARGE = 100_000
"""Bytes that only the model of the play "ten" exceeds."""


def saboteur(message, context, call_next):
    """A Flower mod that makes node 1 fail in round 2, if it is told to."""
    told = message.content.config_records["config"].get("fail")
    if told and context.node_config["partition-id"] == 1 and message.metadata.group_id == "2":
        raise RuntimeError("sabotage")
    return call_next(message, context)


client = peer_app(mods=[saboteur])


class Watch:
    """Stands before the Grid: in which look a reply was taken, and how many bytes of arrays were in messages here.

    The states of simulated nodes, which Flower keeps in the same process, are not counted.
    """

    def __init__(self, grid):
        self.grid = grid
        self.looks, self.stored, self.passed_by, self.peak = 0, {}, [], 0
        self.asked = set()
        store = grid.state.store_message_res

        def noting(message):
            self.stored[message.metadata.reply_to_message_id] = self.looks
            return store(message)

        grid.state.store_message_res = noting

    def __getattr__(self, name):
        return getattr(self.grid, name)

    def pull_messages(self, message_ids):
        if self.asked & {*message_ids}:  # replies are pulled one by one; a look is over all that are awaited
            self.looks += 1
            self.asked.clear()
        self.asked |= {*message_ids}
        replies = list(self.grid.pull_messages(message_ids))
        self.passed_by += [self.looks - 1 - self.stored[reply.metadata.reply_to_message_id] for reply in replies]
        messages = [m for m in gc.get_objects() if type(m) is Message and m.has_content()]
        records = [r for m in messages for r in m.content.array_records.values()]
        arrays = [array for record in records for array in record.values() if len(array.data) > LARGE]
        self.peak = max(self.peak, sum({id(array.data): len(array.data) for array in arrays}.values()))
        return replies


@pytest.fixture(scope="module")
def played():
    """The relays of all plays, and the watch before the last one's grid: to look at all objects takes long."""
    played = {}

    def run(grid):
        for name, options in PLAYS.items():
            relay = PeerRelay(**options, num_nodes=6)
            model = relay.assembly.task.model
            if name == "ten":
                grid = played["watch"] = Watch(grid)
            told = ConfigRecord({"fail": name == "error"})
            relay.start(grid, record_of(model.named(model.initial)), options["num_rounds"], 60, told)
            played[name] = relay

    simulate(6, client, run)
    return played


def test_every_agent_ends_with_the_model_that_it_has_locally(played):
    expected = LocalRun(resolve({name.replace("_", "-"): value for name, value in SAME.items()}))
    lines = list(expected.rounds())
    model, relay = expected.assembly.task.model, played["same"]
    for index, agent in expected.host.agents.items():
        torch.testing.assert_close(model.flatten(tensors_of(relay.models[index])), agent["model"], rtol=0, atol=1e-5)
    for line, local_line in zip(relay.history.lines, lines, strict=True):
        for entry in ("bytes", "gradients", "utilities", "work", "sent", "missing", "absent"):
            assert line[entry] == local_line[entry]
        assert line["accuracy"] == pytest.approx(local_line["accuracy"], abs=1e-6)


def test_the_run_goes_on_without_an_agent_whose_node_fails(played):
    lines = played["error"].history.lines
    (gone,) = lines[1]["absent"]
    assert [line["absent"] for line in lines] == [[], [gone], [gone], []]  # it began the third too late
    assert sorted(j for i, j in lines[2]["missing"] if i != gone) == [gone, gone]
    assert lines[3]["missing"] == []
    assert played["error"].dropped == {"error": 1}
    assert sorted(played["error"].models) == list(range(6))


def test_a_reply_is_taken_at_the_next_look(played):
    """One look may begin while the reply is being stored."""
    assert len(played["watch"].passed_by) >= 6 * 3
    assert max(played["watch"].passed_by) <= 1


def test_the_server_process_holds_at_most_two_copies_of_each_model(played):
    relay = played["ten"]
    one = relay.assembly.task.model.initial.nbytes + 128  # a header of NumPy's format
    assert 8 * one < played["watch"].peak <= 20 * one
