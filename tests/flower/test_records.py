"""Arrays that a node sent are looked at before they are decoded; a bad one costs only itself."""

import io
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from ross_flwr.engine.envelope import Envelope
from ross_flwr.flower.records import pack, tensors_of, unpack


def npy(array):
    """What `numpy.save` writes."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def header(dtype, shape, data=b"\0" * 12):
    """The bytes of an array file that says what it likes about itself."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


def zipped():
    """An archive of an array, as `numpy.savez` writes it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", npy(np.ones(3, np.float32)))
    return stream.getvalue()


ONES = npy(np.ones(3, np.float32))
OBJECT = npy(np.array([None, {}, print], object))
BAD = {
    "no array": Array("float32", (3,), "numpy.ndarray", b"no array"),
    "nothing": Array("float32", (3,), "numpy.ndarray", b""),
    "the beginning of an archive": Array("float32", (3,), "numpy.ndarray", b"PK\x03\x04" + bytes(200)),
    "an archive": Array("float32", (3,), "numpy.ndarray", zipped()),
    "a shape of 1e15": Array("float32", (10**15,), "numpy.ndarray", header("<f4", (10**15,))),
    "a shape of 1e30": Array("float32", (10**30,), "numpy.ndarray", header("<f4", (10**30,))),
    "no numbers, in a shape of 1e30": Array("float32", (0, 10**30), "numpy.ndarray", header("<f4", (0, 10**30), b"")),
    "a million lengths": Array("float32", (1,) * 10**6 + (3,), "numpy.ndarray", ONES),
    "a negative shape": Array("float32", (-1, -3), "numpy.ndarray", header("<f4", (-1, -3))),
    "another shape in the file": Array("float32", (3,), "numpy.ndarray", header("<f4", (10**15,))),
    "another type in the file": Array("float32", (3,), "numpy.ndarray", npy(np.ones(3, np.int32))),
    "half a type": Array("(1,2", (3,), "numpy.ndarray", ONES),
    "a type of many numbers": Array("(1000000,1000000)f4", (3,), "numpy.ndarray", ONES),
    "no type": Array("", (3,), "numpy.ndarray", ONES),
    "objects": Array("object", (3,), "numpy.ndarray", OBJECT),
    "objects in the file": Array("float32", (3,), "numpy.ndarray", OBJECT),
    "dates": Array("datetime64[s]", (3,), "numpy.ndarray", npy(np.zeros(3, "datetime64[s]"))),
    "complex numbers": Array("complex64", (3,), "numpy.ndarray", npy(np.ones(3, np.complex64))),
    "another way to write": Array("float32", (3,), "pickle", ONES),
    "fewer numbers": Array("float32", (3,), "numpy.ndarray", ONES[:-4]),
    "more numbers": Array("float32", (3,), "numpy.ndarray", ONES + bytes(4)),
}


@pytest.mark.parametrize("what", BAD)
def test_an_array_that_is_not_what_it_says_is_refused_before_it_is_decoded(what):
    with pytest.raises(ValueError, match="is not an array"):
        tensors_of(ArrayRecord({"model": BAD[what]}))


@pytest.mark.parametrize(
    "array", [np.float32(3), np.ones((2, 3), np.int8), np.ones((2, 3), np.float64).T, np.ones((0, 4))]
)
def test_what_flower_makes_of_an_array_is_read(array):
    tensor = tensors_of(ArrayRecord({"model": Array(np.asarray(array))}))["model"]
    assert torch.equal(tensor, torch.from_numpy(np.asarray(array)))


def test_a_bad_record_costs_only_itself():
    content = pack(
        [Envelope("r", 0, "share", i, 9, {"model": torch.full((3,), float(i))}) for i in range(len(BAD) + 1)]
    )
    for k, array in enumerate(BAD.values()):
        content.array_records[f"message.{k}"]["model"] = array
    dropped = Counter()
    (kept,) = unpack(content, torch.device("cpu"), lambda reason, *edge: dropped.update([reason]))
    assert (kept.source, kept.tensors["model"].tolist()) == (len(BAD), [float(len(BAD))] * 3)
    assert dropped == {"malformed": len(BAD)}
