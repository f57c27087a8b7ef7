"""Models of which only a part is trained, and apps without validation data, through the relay."""

import pytest
import torch
from flwr.app import ArrayRecord
from nodes import Nodes
from torch import nn
from torch.utils.data import DataLoader

from ross_flwr import PeerRelay, peer_app
from ross_flwr.flower import client_app
from ross_flwr.flower.hosting import HOSTS


class Based(nn.Module):
    """A frozen base, made of other numbers on every node, with a statistic that moves, and a head that is trained."""

    def __init__(self):
        super().__init__()
        self.base = nn.Sequential(nn.Linear(3, 50), nn.BatchNorm1d(50), nn.Tanh())
        self.head = nn.Linear(50, 2)
        self.base.requires_grad_(False)

    def forward(self, img):
        return self.head(self.base(img))


def rows(context, count=40):
    generator = torch.Generator().manual_seed(context.node_config["partition-id"])
    labels = torch.arange(count) % 2
    inputs = torch.randn(count, 3, generator=generator) + 2 * labels[:, None]
    return DataLoader([{"img": x, "label": y} for x, y in zip(inputs, labels.tolist(), strict=True)], batch_size=10)


def forgetful(message, context, call_next):
    """Let the next message of a node find another process."""
    for setup in [setup for setup, held in HOSTS.held.items() if context.node_id in held.host.agents]:
        HOSTS.held.pop(setup, None)
    return call_next(message, context)


def started(initial, mods=None, **options):
    app = peer_app(mods, model=lambda context: Based(), train_data=rows, test_data=rows)
    relay = PeerRelay(**{"topology": "ring", "algorithm": "dpsgd", "learning_rate": 0.5} | options)
    nodes = Nodes(app, range(4))
    return relay, relay.start(nodes, initial, 3), nodes


@pytest.mark.parametrize("mods", [None, [forgetful]], ids=["one process", "another process for each message"])
def test_frozen_parameters_are_those_of_the_initial_model_and_never_travel(mods):
    torch.manual_seed(3)
    model = Based()
    initial = ArrayRecord(model.state_dict())
    relay, result, nodes = started(initial, mods)
    final = result.arrays.to_torch_state_dict()
    assert final.keys() == model.state_dict().keys()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(final[name], value)}
    assert changed == {"head.weight", "head.bias", "base.1.running_mean", "base.1.running_var"}
    learnt = (2 * 50 + 2 + 2 * 50) * 4
    assert {tuple(kinds.items()) for kinds in relay.history.lines[0]["sent"].values()} == {(("model", learnt),)}
    for agent, reported in relay.history.lines[-1]["agents"].items():
        model.load_state_dict(relay.models[int(agent)].to_torch_state_dict(), strict=False)
        examples = next(iter(DataLoader(rows(nodes.contexts[int(agent)]).dataset, batch_size=40)))
        right = model.eval()(examples["img"]).argmax(1) == examples["label"]
        assert float(reported) == pytest.approx(right.float().mean().item())


def test_an_initial_model_may_hold_nothing_but_what_is_trained():
    torch.manual_seed(3)
    trained = {name: value.detach() for name, value in Based().named_parameters() if value.requires_grad}
    relay, result, _ = started(ArrayRecord(trained))
    assert list(result.arrays) == ["head.weight", "head.bias"]
    assert sorted(relay.models) == [0, 1, 2, 3]
    assert dict(relay.dropped) == {}
    assert not torch.equal(result.arrays.to_torch_state_dict()["head.bias"], trained["head.bias"])


def test_an_app_without_validation_data_holds_some_out_where_the_method_needs_it_and_says_so_once(caplog):
    torch.manual_seed(3)
    client_app._say.cache_clear()
    with caplog.at_level("INFO", logger="flwr"):
        started(ArrayRecord(Based().state_dict()), algorithm="ross", validation_size=5)
        agents = [agent for held in list(HOSTS.held.values())[-4:] for agent in held.host.agents.values()]
        assert {(len(agent.objective.validation), agent.objective.num_examples) for agent in agents} == {(5, 35)}
        started(ArrayRecord(Based().state_dict()), algorithm="dpsgd")
    said = [record.getMessage() for record in caplog.records if "validation_data" in record.getMessage()]
    assert said == [
        "algorithm = 'ross' needs a validation set Q_i, and peer_app got no validation_data: a fifth of the training "
        "data of each agent, at most validation-size = 5 examples, is held out for it"
    ]
    agents = [agent for held in list(HOSTS.held.values())[-4:] for agent in held.host.agents.values()]
    assert {agent.objective.num_examples for agent in agents} == {40}
