"""Training data that is put together from other data."""

import torch

from ross_flwr.learning.examples import Batch
from ross_flwr.learning.splits import Joined, Whole


def test_joined_splits_are_numbered_one_after_the_other():
    """Inputs are trees, one of the splits is empty, and indices come in any order."""

    def split(*numbers):
        tokens = torch.tensor(numbers, dtype=torch.float32)
        return Whole(Batch({"tokens": tokens, "masks": (tokens > 2,)}, tokens * 10))

    joined = Joined([split(0, 1), split(), split(2, 3, 4)])
    assert len(joined) == 5
    for indices in ([0, 1], [2, 4], [1, 2, 4]):
        batch = joined.batch(torch.tensor(indices))
        assert batch.inputs["tokens"].tolist() == indices
        assert batch.inputs["masks"][0].tolist() == [index > 2 for index in indices]
        assert batch.targets.tolist() == [10 * index for index in indices]
    assert sorted(joined.batch(torch.tensor([4, 0, 3])).targets.tolist()) == [0, 30, 40]
