"""Codecs, one by one: what they leave of a vector, in how many bytes, and what they refuse."""

import tracemalloc
import zlib
from contextlib import suppress
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratics import normal

from ross_flwr.algorithms.messages import Refused
from ross_flwr.algorithms.sgp import SGP
from ross_flwr.compression import (
    CODECS,
    QSGD,
    BFloat16,
    Choco,
    Float16,
    Int4,
    Int8,
    PowerSGD,
    RandomK,
    Sign,
    TopK,
    Zlib,
)
from ross_flwr.compression.codec import Leg
from ross_flwr.compression.entropy import inflated
from ross_flwr.compression.options import CompressionOptions, read_codecs
from ross_flwr.compression.sparse import largest
from ross_flwr.config import ConfigError

EVERY = [Float16(), BFloat16(), Int8(), Int4(), QSGD(1), QSGD(), QSGD(100), Sign(), TopK(0.05), RandomK(), PowerSGD(3)]


def leg(pass_number=0, destination=1):
    return Leg(
        seed=3, name="gradient", step="share", pass_number=pass_number, number=0, source=0, destination=destination
    )


def through(codec, vector, at=None, memory=None):
    at = at or leg()
    data = codec.encode(vector, at, {} if memory is None else memory)
    assert (data.dtype, data.shape) == (torch.uint8, (codec.size(len(vector)),))
    return codec.decode(data, len(vector), at)


@pytest.mark.parametrize("codec", EVERY, ids=str)
@pytest.mark.parametrize("n", [64, 511, 1000, 70_001])
def test_a_vector_comes_back_as_near_as_its_codec_promises(codec, n):
    vector = normal(n, n)
    error = (through(codec, vector) - vector).abs()
    chunk = lambda sizes: sizes.repeat_interleave(512)[:n]  # noqa: E731
    padded = torch.nn.functional.pad(vector, (0, -n % 512)).view(-1, 512)
    bound = {
        Float16: lambda: vector.abs() * 2**-11,
        BFloat16: lambda: vector.abs() * 2**-8,
        Int8: lambda: chunk(padded.abs().amax(1)) / 126.9,
        Int4: lambda: chunk(padded.abs().amax(1)) / 6.9,
        QSGD: lambda: chunk(padded.norm(dim=1)) / (codec.top - 0.1),
        Sign: lambda: torch.maximum(vector.abs(), chunk(padded.abs().amax(1))),
        TopK: lambda: vector.abs().sort().values[n - codec.kept(n)].expand(n),
        RandomK: lambda: vector.abs(),
        PowerSGD: lambda: vector.norm().expand(n),
    }[type(codec)]()
    assert (error <= bound + 1e-7).all()
    assert error.norm() < vector.norm() or isinstance(codec, QSGD)


@pytest.mark.parametrize("codec", [Int8(), Int4(), QSGD(1), QSGD(20)], ids=str)
def test_what_is_rounded_by_chance_is_right_on_average(codec):
    vector, draws = normal(1, 600), 2000
    found = torch.stack([through(codec, vector, leg(t)) for t in range(draws)]).double()
    steps = torch.stack(
        [block.abs().amax() if isinstance(codec, Int8 | Int4) else block.norm() for block in vector.split(512)]
    )
    steps = steps.repeat_interleave(512)[:600] / codec.top
    deviations = (found.mean(0) - vector) / (steps / 2 / draws**0.5)  # half a step is the largest standard deviation
    assert deviations.abs().max() < 5
    assert abs(float(deviations.mean())) < 5 / 600**0.5
    assert deviations.std() > 0.3
    assert not torch.equal(through(codec, vector, leg(0, 1)), through(codec, vector, leg(0, 2)))
    assert torch.equal(through(codec, vector, leg(7)), through(codec, vector, leg(7)))


@pytest.mark.parametrize(
    ("codec", "fewer"),
    [
        (Float16(), 1.99),
        (Int8(), 3.95),
        (Int4(), 7.8),
        (Sign(), 30),
        (TopK(), 49),
        (RandomK(0.01), 99),
        (PowerSGD(1), 140),
    ],
    ids=str,
)
def test_a_codec_sends_so_many_times_fewer_bytes(codec, fewer):
    n = 79_510  # MNIST, 784-100-10
    assert 4 * n / codec.size(n) > fewer


def test_the_largest_numbers_are_found_whatever_they_look_like():
    for vector in (normal(0, 200_000), normal(1, 200_000) ** 9, torch.zeros(200_000), torch.arange(200_000.0)):
        for k in (1, 2000, 150_000):
            places = largest(vector, k)
            assert len(places) == k
            assert (places.diff() > 0).all()
            assert vector[places].abs().sum() == vector.abs().topk(k).values.sort().values.sum() or k > 1
            assert vector[places].abs().min() == vector.abs().topk(k).values[-1]


def test_a_matrix_of_low_rank_comes_closer_with_every_vector_on_the_same_edge():
    matrix = normal(0, 40, 3) @ normal(1, 3, 40)
    vector, memory = (matrix + 0.5 * normal(2, 40, 40)).view(-1), {}
    errors = [float((through(PowerSGD(3), vector, memory=memory) - vector).norm()) for _ in range(6)]
    best = float(torch.linalg.svdvals(vector.view(40, 40))[3:].norm())
    assert 0.999 * best < errors[-1] < 1.05 * best
    assert errors[-1] < errors[0]
    assert (through(PowerSGD(3), matrix.view(-1)) - matrix.view(-1)).norm() < 1e-4 * matrix.norm()


def test_what_a_biased_codec_leaves_out_comes_with_the_next_vectors():
    for codec in (TopK(0.05), RandomK(0.05), Sign(), PowerSGD(1)):
        vector, sent, told = normal(2, 400), {}, torch.zeros(400)
        for t in range(200):
            told += codec.decode(codec.send(vector, None, sent, {}, leg(t)), 400, leg(t))
        assert (told / 200 - vector).norm() < 0.2 * vector.norm(), codec
        torch.testing.assert_close(told + sent["owed"], 200 * vector, rtol=1e-3, atol=1e-2)


def test_a_sender_with_momentum_does_what_deep_gradient_compression_does():
    codec, sent, u, v = TopK(0.05, momentum=0.8), {}, torch.zeros(400), torch.zeros(400)
    for t in range(30):
        gradient = normal(t, 400)
        u = 0.8 * u + gradient
        v = v + u
        waits = torch.ones(400).index_fill_(0, v.abs().topk(20).indices, 0)
        told = codec.decode(codec.send(gradient, None, sent, {}, leg(t)), 400, leg(t))
        torch.testing.assert_close(told, v * (1 - waits), rtol=1e-5, atol=1e-5)
        u, v = u * waits, v * waits
    assert sent.keys() == set(codec.keeps)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([*EVERY, Choco(TopK(0.05)), Choco(Int8()), Zlib(TopK(0.05)), Zlib(Choco(Int8()))]),
    st.binary(max_size=400),
    st.integers(64, 600),
)
def test_a_decoder_takes_any_bytes_and_refuses_them_or_returns_as_many_numbers_as_it_should(codec, garbage, n):
    wanted = codec.size(n)
    data = torch.tensor(list((garbage * ceil(wanted / max(1, len(garbage))))[:wanted]), dtype=torch.uint8)
    with suppress(Refused):
        vector = codec.receive(data, n, {}, {}, leg(), mixed=True)
        assert (vector.dtype, vector.shape) == (torch.float32, (n,))
    with pytest.raises(Refused, match="shape" if codec.fixed else "malformed|out-of-step|shape"):
        codec.receive(data[:-1] if garbage else torch.empty(1, dtype=torch.uint8), n, {}, {}, leg(), mixed=True)


def test_zlib_loses_nothing_and_takes_no_more_memory_than_its_codec_makes_bytes():
    gradient = normal(0, 4000) * (normal(1, 4000) > 0.5)
    for codec in (BFloat16(), Int8(), TopK(0.05), Choco(TopK(0.05))):
        packed, memories = Zlib(codec), ({}, {})
        for t in range(3):
            plain, short = (
                each.send(gradient, None, sent, {}, leg(t))
                for each, sent in zip((codec, packed), memories, strict=True)
            )
            assert len(short) < 0.9 * len(plain)
            assert torch.equal(inflated(short, packed.most(4000)), plain)
    bomb = torch.frombuffer(bytearray(zlib.compress(bytes(10**7))), dtype=torch.uint8)
    tracemalloc.start()
    for data, reason in ((bomb, "oversize"), (short[:-1], "malformed"), (torch.cat([short, short]), "malformed")):
        with pytest.raises(Refused, match=reason):
            packed.receive(data, 4000, {}, {}, leg(), mixed=True)
    assert tracemalloc.get_traced_memory()[1] < 10**5
    tracemalloc.stop()


def test_places_that_no_sender_names_are_refused():
    codec, n = TopK(0.05), 100
    data = codec.encode(normal(0, n), leg(), {})
    places = data[4 * 5 :].view(torch.int32)
    for wrong in ([-1, 1, 2, 3, 4], [0, 1, 2, 3, 100], [0, 0, 1, 2, 3], [4, 3, 2, 1, 0]):
        places[:] = torch.tensor(wrong)
        with pytest.raises(Refused, match="malformed"):
            codec.decode(data, n, leg())


@pytest.mark.parametrize(
    ("text", "codecs"),
    [
        ("int8", {"": Int8()}),
        ("model: int8, gradient: topk(0.01)", {"model": Int8(), "gradient": TopK(0.01)}),
        ("gradient:powersgd( 4 ),choco(topk(1e-2), 0.25)", {"gradient": PowerSGD(4), "": Choco(TopK(0.01), 0.25)}),
        ("choco(qsgd(3))", {"": Choco(QSGD(3))}),
        ("int8, gradient: none", {"": Int8(), "gradient": None}),
        ("zlib(choco(int4, 0.25)), gradient: zlib(topk)", {"": Zlib(Choco(Int4(), 0.25)), "gradient": Zlib(TopK())}),
    ],
)
def test_a_text_names_codecs(text, codecs):
    assert read_codecs(text) == codecs


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("int9", r"compress = 'int9' is not known: use one of .*; did you mean 'int8'\?"),
        ("", "cannot be read, as it ends too early"),
        ("topk(2)", "in topk, share = 2.0 is not allowed: it takes a number from"),
        ("topk(int8)", "in topk, share = .* is not allowed"),
        ("powersgd(1.5)", "in powersgd, rank = '1.5' is not allowed: it takes a whole number"),
        ("int8(3)", "int8 takes no number"),
        ("topk(0.1", "it ends too early"),
        ("int8 float16", "a ',' is missing"),
        ("gradient: int8,", "it ends too early"),
        ("int8; float16", "'; float16' is no part of a codec"),
        ("model: int8, model: int4", "it names two codecs for model"),
        ("choco", "choco takes another codec first"),
        ("choco(none)", "compress = 'none' is not known"),
        ("choco(choco(int8))", "choco takes another codec first"),
        ("zlib(0.1)", "zlib takes another codec first"),
        ("choco(topk(0.1, 0.9))", "choco sends differences, which have no momentum"),
        ("choco(zlib(int8))", "choco takes another codec first"),
        ("zlib(topk(0.1))", r"compress = 'topk' for all vectors would leave too little of models"),
        ("modle: int8", "compress = 'modle' is not known: use one of .*did you mean 'model'"),
        ("topk(0.1)", r"too little of models: use 'gradient: topk' or choco\(topk\)"),
        ("model: sign", r"too little of a model: use 'gradient: sign' or choco\(sign\)"),
    ],
)
def test_a_text_that_makes_no_sense_is_told_in_one_sentence(text, sentence):
    from ross_flwr import DPSGD

    with pytest.raises(ConfigError, match=sentence):
        CompressionOptions(compress=text).link(DPSGD())


def test_differences_are_refused_where_models_are_added_up():
    with pytest.raises(ConfigError, match="choco' needs models that are averaged, and sgp adds up shares of them"):
        CompressionOptions(compress="choco(int8)").link(SGP())


def test_every_codec_has_its_place_in_the_list():
    assert {type(codec) for codec in EVERY} | {Choco, Zlib} == set(CODECS.values())
