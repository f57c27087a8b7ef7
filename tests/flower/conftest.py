"""For the tests of Flower's side."""

import pytest
from flwr.supercore.task_identity import TaskIdentity


@pytest.fixture(autouse=True)
def task(monkeypatch):
    """What Flower sets before it runs an app, and wants before a message is made; all nodes are there at once."""
    monkeypatch.setattr("ross_flwr.flower.placement.SETTLE", 0.0)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
