"""A task from outside the package: twenty lines, and it is learned in this process and through the relay."""

import pytest
import torch
from flwr.app import ArrayRecord
from flwr.supercore.task_identity import TaskIdentity
from nodes import Nodes
from quadratics import Table
from torch import nn
from torch.utils.data import Dataset

from ross_flwr import ROSS, PeerRelay, graph, peer_app, resolve, simulate
from ross_flwr.config import ConfigError
from ross_flwr.engine.rounds import rounds
from ross_flwr.flower.records import tensors_of
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.runs.assemble import assemble
from ross_flwr.tasks.own import Own

OPTIONS = {
    "algorithm": "ross",
    "num-agents": 6,
    "topology": "ring",
    "attackers": 0,
    "utility": "loss",
    "momentum": 0.5,
    "num-rounds": 20,
}


class Line:
    """Regression on points of y = 3 x₀ − 2 x₁ + 1, which every agent draws for itself."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = FlatModel(nn.Linear(2, 1))

    def batch_size(self, agent):
        return 8

    def objective(self, agent):
        generator = torch.Generator().manual_seed(agent)
        inputs = torch.randn(60, 2, generator=generator)
        points = Table(inputs, inputs @ torch.tensor([[3.0], [-2.0]]) + 1)
        train, validation, test = (Part(points, *limits) for limits in ((0, 40), (40, 50), (50, 60)))
        return ModuleObjective(self.model, train, validation, test, nn.functional.mse_loss)

    def describe(self):
        return {"examples": 60}


class Part:
    def __init__(self, table, first, last):
        self.table, self.first, self.last = table, first, last

    def __len__(self):
        return self.last - self.first

    def batch(self, indices):
        return self.table.batch(indices + self.first)


def simulated():
    return simulate(ROSS(utility="loss", momentum=0.5), graph.ring(6), Line(), rounds=20)


def test_a_task_from_outside_is_learned_by_ross():
    result = simulated()
    assert result.summary["examples"] == 60
    assert result.history[-1]["loss"]["max"] < 0.5
    for model in result.models.values():
        assert model.tolist() == pytest.approx([3, -2, 1], abs=0.5)


def test_a_task_from_outside_gives_the_same_models_through_the_relay_with_several_agents_on_a_node():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    relay = PeerRelay(algorithm=ROSS(utility="loss", momentum=0.5), topology=graph.ring(6))
    model = Line().model
    nodes = Nodes(peer_app(task=lambda context: Line()), (100, 101))
    relay.start(nodes, ArrayRecord(model.named(model.initial)), 20)
    for index, expected in simulated().models.items():
        torch.testing.assert_close(model.flatten(tensors_of(relay.models[index])), expected, rtol=0, atol=1e-5)


class Words(nn.Module):
    """The mean of the embeddings of those tokens that the mask lets through, and a layer for two classes."""

    def __init__(self):
        super().__init__()
        self.embedding, self.layer = nn.Embedding(20, 4), nn.Linear(4, 2)

    def forward(self, inputs):
        mask = inputs["mask"][..., None]
        return self.layer((self.embedding(inputs["tokens"]) * mask).sum(1) / mask.sum(1))


class Sentences(Dataset):
    """Six tokens, of which the last two are padding; the class is that of the first: even tokens against odd ones."""

    def __init__(self, seed):
        tokens = torch.randint(10, (50, 4), generator=torch.Generator().manual_seed(seed))
        self.labels = torch.arange(50) % 2
        self.tokens = 2 * tokens + self.labels[:, None]

    def __len__(self):
        return 50

    def __getitem__(self, index):
        padding = torch.tensor([0, 1])
        mask = torch.tensor([1.0, 1, 1, 1, 0, 0])
        return {"tokens": torch.cat([self.tokens[index], padding]), "mask": mask}, self.labels[index]


@pytest.mark.parametrize("algorithm", ["ross", "ross-plus"])
def test_inputs_can_be_dictionaries(algorithm):
    torch.manual_seed(0)
    splits = (lambda agent, part=part: Sentences(3 * agent + part) for part in range(3))
    config = resolve(OPTIONS | {"algorithm": algorithm, "learning-rate": 0.5, "num-rounds": 25})
    assembly = assemble(config, Own(Words(), *splits, batch_size=25))
    *_, last = rounds(assembly.host("words"), assembly.schedule, 1, assembly.schedule.num_rounds)
    assert min(report.accuracy for report in last.reports) > 0.9


def test_an_app_has_a_task_or_functions_and_not_both():
    with pytest.raises(ConfigError, match="takes a task, or functions for a model and data: give it one of the two"):
        peer_app(task=lambda context: Line(), model=lambda context: nn.Linear(2, 1))
