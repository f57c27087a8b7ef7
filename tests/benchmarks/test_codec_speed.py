"""How long a vector of ten million numbers takes through a codec, beside a copy of it into new memory."""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import ratio

from ross_flwr.compression import Codec, Int8, TopK
from ross_flwr.compression.codec import Leg

LENGTH = 10_000_000


@pytest.mark.parametrize(("codec", "most"), [(Int8(), 3), (TopK(0.01), 10)], ids=["int8", "topk(0.01)"])
def test_a_codec_takes_little_longer_than_a_copy(benchmark: BenchmarkFixture, codec: Codec, most: float) -> None:
    torch.set_num_threads(1)
    vector = torch.randn(LENGTH)
    leg = Leg(seed=0, name="gradient", step="share", pass_number=0, number=0, source=0, destination=1)

    def through() -> None:
        codec.decode(codec.encode(vector, leg, {}), LENGTH, leg)

    assert 1 / ratio(benchmark, through, vector.clone, repeats=9) < most
