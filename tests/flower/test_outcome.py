"""What the ServerApp makes of the models that come."""

import torch

from ross_flwr.flower.outcome import consensus
from ross_flwr.flower.records import record_of

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
