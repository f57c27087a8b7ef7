"""The app's parts fit each other, and agents learn together."""

import tomllib
from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp
from torch import nn

from $module.client_app import app as client
from $module.server_app import main
from $module.task import Net, load_data

NODES = 4
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def node(number):
    """What Flower tells a node."""
    return Context(1, number, {"partition-id": number, "num-partitions": NODES}, RecordDict(), {})


def test_no_example_is_in_two_hands():
    sets = [data for number in range(NODES) for data in load_data(node(number))]
    images = torch.cat([data.tensors[0].flatten(1) for data in sets])
    assert len(images.unique(dim=0)) == len(images)


def test_the_model_learns_from_the_data():
    torch.manual_seed(0)
    train, _, _ = load_data(node(0))
    images, labels = train[:]
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_agents_learn_together_in_flowers_simulation():
    pytest.importorskip("ray", reason="needs flwr[simulation]")
    from flwr.simulation import run_simulation

    server, results = ServerApp(), []

    @server.main()
    def play(grid, context):
        configured = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
        context.run_config = {**configured, "num-rounds": 3}
        results.append(main(grid, context))

    run_simulation(server, client, NODES, backend_config={"client_resources": {"num_cpus": 1}})
    assert results[0].evaluate_metrics_clientapp[3]["accuracy-mean"] > 0.7
