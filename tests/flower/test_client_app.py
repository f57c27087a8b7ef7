"""The ClientApp on a device that has data of its own."""

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict

from ross_flwr import peer_app
from ross_flwr.config import ConfigError, resolve
from ross_flwr.flower.hosting import begin, wake
from ross_flwr.flower.protocol import Call, Setup
from ross_flwr.flower.records import record_of, tensors_of
from ross_flwr.runs.assemble import read_task

CHOSEN = {"algorithm": "dpsgd", "num-agents": 3, "topology": "complete", "attackers": 0, "validation-size": 20}


def options():
    return dict(resolve(CHOSEN | {"batch-size": 10}).values)


def context_of(**node_config):
    config = {name.replace("_", "-"): value for name, value in node_config.items()}
    return Context(run_id=1, node_id=7, node_config=config, state=RecordDict(), run_config={})


def beginning(agents, **chosen):
    """What the relay sends first, but for the call of a step: the set-up and the initial model."""
    model = read_task(resolve(options())).model
    setup = Setup("r", options() | chosen, {i: PLACES[i] for i in agents})
    return RecordDict({"setup": setup.to_record(), "initial": record_of(model.named(model.initial))})


AGENT = [1]
ROWS = {1: {0: 0.25, 1: 0.5, 2: 0.25}, 2: {0: 0.25, 1: 0.25, 2: 0.5}}
PLACES = {i: (row, row) for i, row in ROWS.items()}


@pytest.fixture
def own_data(tmp_path):
    """Forty examples of three of the ten digits, darker than any digit."""
    generator = np.random.default_rng(0)
    file = tmp_path / "own.npz"
    np.savez(
        file,
        images=generator.integers(100, 200, (40, 8, 8), dtype=np.uint8),
        labels=np.arange(40) % 3,
        test_images=np.full((5, 8, 8), 100, dtype=np.uint8),
        test_labels=np.full(5, 9),
    )
    return str(file)


def test_an_agent_on_a_device_holds_all_and_only_the_data_there(own_data):
    context = context_of(dataset="file", data_path=own_data)
    begin(beginning(AGENT), context)
    hosted = wake(context)
    images = hosted.assembly.task
    (agent,) = hosted.host.agents.values()
    batch = agent.objective.batch(torch.arange(agent.objective.num_examples))
    assert (agent.index, len(batch), len(images.source.test)) == (1, 20, 5)
    assert batch.targets.bincount().min() >= 6
    assert images.source.train.images.min() >= 100
    validation = images.shares.validation(1)
    assert not set(validation.tolist()) & set(images.shares.parts[1].tolist())
    assert len(validation) == 20
    assert images.describe()["validation"].endswith("of file that no agent trains on")


def test_a_node_without_data_of_its_own_holds_its_share_of_the_runs():
    context = context_of()
    begin(beginning(AGENT), context)
    hosted = wake(context)
    assert hosted.config.values == options()
    assert Setup.of(context.state).options == options()
    assert hosted.host.agents[1].objective.num_examples == len(read_task(resolve(options())).shares.parts[1])


def test_a_node_is_told_its_agents_places_and_needs_no_file_of_the_graph():
    context = context_of()
    begin(beginning([1, 2], topology="on the server.txt"), context)
    hosted = wake(context)
    assert {i: agent.mixing_row for i, agent in hosted.host.agents.items()} == ROWS


def test_a_node_keeps_its_key_for_noise_until_it_is_set_up_again():
    """It is after a restart, when rounds may come that it had released noise for."""
    context, keys = context_of(), []
    for pass_number, again in enumerate((True, False, True)):
        content = beginning(AGENT, algorithm="decor", **{"dp-noise": 1.0}) if again else RecordDict()
        content["call"] = Call(pass_number, 0, 3).to_record()
        reply = peer_app()(Message(content, 7, "train.mix"), context)
        keys.append(tensors_of(reply.content.array_records["message.0"])["noise-key"].tolist())
    assert keys[0] == keys[1] != keys[2]


def test_two_agents_do_not_share_a_devices_data(own_data):
    with pytest.raises(
        ConfigError, match="is the data of one agent, and it hosts 2: start as many nodes as num-agents"
    ):
        begin(beginning([1, 2]), context_of(dataset="file", data_path=own_data))
