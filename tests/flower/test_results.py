"""What a strategy leaves in any ServerApp, and what it logs."""

import re

import pytest
import torch
from flwr.app import ArrayRecord, MetricRecord
from nodes import Nodes
from torch import nn
from torch.utils.data import TensorDataset

from ross_flwr import ConfigError, PeerRelay, peer_app
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.trained import Trained


def points(context, count=40):
    generator = torch.Generator().manual_seed(context.node_config["partition-id"])
    labels = torch.arange(count) % 2
    return TensorDataset(torch.randn(count, 3, generator=generator) + 2 * labels[:, None], labels)


APP = {"model": lambda context: nn.Linear(3, 2), "train_data": points, "test_data": points}


def start(num_rounds=2, evaluate_fn=None, **options):
    torch.manual_seed(0)
    relay = PeerRelay(**{"algorithm": "dpsgd", "topology": "ring"} | options)
    initial = ArrayRecord(nn.Linear(3, 2).state_dict())
    return relay, relay.start(Nodes(peer_app(**APP)), initial, num_rounds, evaluate_fn=evaluate_fn)


def test_an_apps_run_leaves_the_folder_that_the_command_leaves_with_the_report_and_what_trackers_hear(tmp_path):
    pytest.importorskip("plotly", reason="needs the extra 'plots'")
    pytest.importorskip("tensorboard", reason="needs the extra 'tensorboard'")
    path = tmp_path / "mine"
    _, result = start(results=str(path), log="tensorboard")
    folder = RunFolder(path)
    assert [line["round"] for line in folder.read_history()] == [1, 2]
    summary = folder.read_summary()
    assert (summary["algorithm"], summary["rounds"], summary["tested"]) == ("dpsgd", 2, {"agents": 4, "of": 4})
    assert summary["consensus-distance"] > 0
    assert "dataset" not in summary  # the app's data is its own
    expected = result.arrays.to_torch_state_dict()
    assert {name: value.tolist() for name, value in folder.read_model().items()} == {
        name: value.tolist() for name, value in expected.items()
    }
    config = folder.read_config().values
    assert (config["num-agents"], config["num-rounds"], config["topology"]) == (4, 2, "ring")
    with pytest.raises(ConfigError, match=r"model\.safetensors of different runs, or the model of an app that brings"):
        Trained(path)
    assert "dpsgd" in (path / "report.html").read_text(encoding="utf-8")
    assert list((path / "tensorboard" / "dpsgd").glob("events.out.tfevents.*"))
    kept = {file: file.read_bytes() for file in path.iterdir() if file.is_file()}
    with pytest.raises(ConfigError, match="mine holds a run already"):
        start(results=str(path))
    assert {file: file.read_bytes() for file in path.iterdir() if file.is_file()} == kept


def test_trackers_need_a_folder_and_a_name_that_is_known(tmp_path):
    with pytest.raises(ConfigError, match="log = 'tensorboard' needs a folder of results"):
        PeerRelay(log="tensorboard")
    with pytest.raises(ConfigError, match="tensorbord"):
        PeerRelay(log="tensorbord", results=str(tmp_path / "mine"))


def logged(caplog, **options):
    with caplog.at_level("INFO", logger="flwr"):
        start(**options)
    return "\n".join(record.getMessage() for record in caplog.records)


def test_the_log_has_what_users_of_flower_look_for(caplog):
    text = logged(caplog, evaluate_fn=lambda number, arrays: MetricRecord({"loss": number / 4}), learning_rate=0.05)
    for line in (
        "Number of rounds: 2",
        "ArrayRecord (0.00 MB)",
        "ConfigRecord (train): (empty!)",
        "algorithm: dpsgd, learning rate 0.05",
        "passes per round: 1, on batches of 32, or of the size that the app's own DataLoader has",
        f"bytes per round, from all agents: up to {4 * 2 * 8 * 4} B",
        "Initial global evaluation results: {'loss': 0.0}",
        "[ROUND 2/2]",
        "aggregate_train: Received reports of 4 of 4 agents",
        "aggregate_evaluate: 4 of 4 agents tested their own models",
        "└──> Aggregated MetricRecord: {'accuracy-mean': ",
        "└──> MetricRecord: {'loss': 0.5}",
        "Final results:",
        "Aggregated ClientApp-side Evaluate Metrics:",
    ):
        assert line in text, line
    assert re.search(r"Strategy execution finished in \d+\.\d\ds", text)
    assert "honest" not in text


def test_honest_agents_are_spoken_of_where_others_attack(caplog):
    text = logged(caplog, attackers=1, attack="gradient-scaling")
    assert "aggregate_evaluate: 3 of 3 honest agents tested their own models" in text


def test_the_bytes_that_are_announced_are_the_bytes_that_a_round_sends(caplog):
    with caplog.at_level("INFO", logger="flwr"):
        relay, _ = start(algorithm="ross", batches_per_round=2)
    (said,) = re.findall(r"bytes per round, from all agents: up to ([\d.]+) kB", caplog.text)
    for line in relay.history.lines:
        assert line["bytes"] == pytest.approx(1000 * float(said), abs=50)
