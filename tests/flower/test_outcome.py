"""What the ServerApp makes of the reports and models that come."""

import re

import torch
from scripted import Scripted, failing

from ross_flwr import PeerDirect
from ross_flwr.flower.outcome import consensus
from ross_flwr.flower.records import record_of
from ross_flwr.report.table import result_table

LAYOUT = record_of({"weight": torch.zeros(2, 3), "count": torch.zeros((), dtype=torch.int64)})


def test_the_consensus_is_the_mean_of_what_agents_learn_and_leaves_the_rest():
    models = [record_of({"weight": torch.full((2, 3), float(value))}) for value in (1, 3)]
    mean = consensus(models, LAYOUT)
    assert (mean["weight"].numpy() == 2).all()
    assert list(mean) == ["weight", "count"]
    assert mean["count"].data == LAYOUT["count"].data


def test_the_consensus_of_large_models_is_no_infinity():
    models = [record_of({"weight": torch.full((2, 3), 3e38)})] * 3
    assert (consensus(models, LAYOUT)["weight"].numpy() == torch.tensor(3e38).numpy()).all()


def test_figures_of_a_few_agents_say_that_they_are(caplog):
    """Three of four nodes fail in the last segment, and one is left."""

    def twist(message, content):
        return failing(message, content) if any(key.startswith("agent.") for key in content) else content

    options = {"algorithm": "dpsgd", "num_agents": 4, "topology": "ring", "hidden": 8, "test_size": 50}
    strategy = PeerDirect(**options, segment_rounds=2, return_model="final")
    grid = Scripted(strategy, kind="train.segment", twist=twist, liars=(11, 12, 13))
    with caplog.at_level("INFO", logger="flwr"):
        strategy.start(grid, grid.model, 4)
    texts = "\n".join(record.getMessage() for record in caplog.records)
    assert "rounds 3–4: no report from 3 of 4 agents: [1, 2, 3]" in texts
    assert re.search(r"4 of 4 agents tested their own models\n.*'loss-mean': 0\.65", texts)
    assert re.search(r"1 of 4 agents tested their own models\n.*'loss-mean': 0\.5,", texts)
    assert "the consensus model is the mean of 1 of 4 agents, since no other models came" in texts
    summary = strategy.history.summary()
    assert summary["tested"] == {"agents": 1, "of": 4}
    assert "dpsgd: of 1 of 4 honest agents; the others were absent" in result_table({"dpsgd": summary}).caption
