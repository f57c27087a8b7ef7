"""Tensors that are cut into chunks and put together again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratics import normal

from ross_flwr.direct import wire
from ross_flwr.direct.wire import chunks, layouts
from ross_flwr.peer.v1.peer_pb2 import Chunk, Header


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(wire.DTYPES.values(), key=str)), st.lists(st.integers(0, 9), max_size=3)),
        max_size=5,
    )
)
@settings(max_examples=50)
def test_tensors_of_any_type_and_shape_arrive_as_they_left(kinds):
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"t{k}": torch.randint(0, 100, shape, generator=generator).to(dtype) for k, (dtype, shape) in enumerate(kinds)
    }
    check_round_trip(tensors)


@pytest.mark.parametrize("size", [wire.CHUNK // 4 - 1, wire.CHUNK // 4, wire.CHUNK // 4 + 1, 3 * wire.CHUNK // 4 + 7])
def test_tensors_longer_than_a_chunk_arrive_as_they_left(size):
    check_round_trip({"a": normal(1, 3), "b": normal(2, size), "c": normal(3, 5)})


def check_round_trip(tensors):
    """What is written and read by hand is what protobuf writes and reads."""
    sent = list(chunks(Header(tensors=layouts(tensors)), tensors.values()))
    pieces = [Chunk.FromString(each) for each in sent]
    assert all(len(each.data) <= wire.CHUNK for each in pieces)
    assert [each.HasField("header") for each in pieces] == [True] + [False] * (len(sent) - 1)
    incoming = wire.Incoming(pieces[0].header.tensors, limit=10**8, memory=wire.Memory())
    for written, piece in zip(sent, pieces, strict=True):
        for form in (written, piece.SerializeToString()):
            header, data = wire.parse(form)
            assert (header, bytes(data)) == (piece.header if piece.HasField("header") else None, piece.data)
        incoming.add(data)
    arrived = incoming.finish()
    assert list(arrived) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(arrived[name], tensor)
        assert arrived[name].dtype == tensor.dtype
