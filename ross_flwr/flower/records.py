"""Envelopes and agents' state as Flower records, and back."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from math import prod
from pickle import PickleBuffer
from typing import Any, SupportsIndex

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.engine.envelope import Envelope

__all__ = ["from_json", "pack", "record_of", "route_of", "routes", "tensors_of", "to_json", "unpack"]

PLAIN = {
    name: np.dtype(name)
    for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
}
"""The types of numbers that are read. `Form.check` then holds a message to the one that its step declares."""

LENGTHS = 32
"""The most lengths in the shape of an array."""

LARGEST = 1 << 62
"""The most bytes in an array, zero lengths not counted: beyond this, PyTorch's own arithmetic overflows."""

_MAGIC = b"\x93NUMPY\x01\x00"  # an array file of version 1.0; two bytes follow, the length of its header


def record_of(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return the tensors as the `ArrayRecord` that `Array(ndarray)` would make, with one copy instead of three."""
    return ArrayRecord({name: _encode(tensor.detach().cpu().contiguous().numpy()) for name, tensor in tensors.items()})


def tensors_of(record: ArrayRecord, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return the arrays of `record` as tensors, which share its memory; nothing is unpickled.

    Raises
    ------
    ValueError
        When an array does not have exactly the bytes that its type and shape need, or has another type than numbers.
    """
    return {name: _decode(name, array).to(device) for name, array in record.items()}


def to_json(value: object) -> ConfigRecord:
    """Return anything JSON can hold as a `ConfigRecord`."""
    return ConfigRecord({"json": json.dumps(value)})


def from_json(record: ConfigRecord) -> Any:
    """Return what `to_json` packed."""
    return json.loads(str(record["json"]))


def pack(envelopes: Sequence[Envelope]) -> RecordDict:
    """Pack envelopes of one run, pass and step into records.

    Each distinct message becomes one `ArrayRecord`, so a broadcast is packed once. The record ``route`` says who sends
    which of them to whom.
    """
    content = RecordDict()
    keys: dict[int, str] = {}
    entries = []
    for envelope in envelopes:
        key = keys.setdefault(id(envelope.tensors), f"message.{len(keys)}")
        if key not in content:
            content[key] = record_of(envelope.tensors)
        entries.append((envelope.source, envelope.destination, key))
    if entries:
        first = envelopes[0]
        content["route"] = route_of(entries, {"run": first.run, "pass": first.pass_number, "step": first.step})
    return content


def unpack(
    content: RecordDict, device: torch.device, drop: Callable[[str, int, int], object] = lambda *_: None
) -> list[Envelope]:
    """Return the envelopes that `pack` packed, also if several packs were merged under prefixed keys.

    Envelopes whose tensors are missing or cannot be read are left out, each after a call of `drop` with
    ``"malformed"``, its source and its destination.
    """
    envelopes = []
    records = content.array_records  # this property builds a new object each time
    for name, route in content.config_records.items():
        if not name.endswith("route"):
            continue
        prefix = name.removesuffix("route")
        head: Any = route
        tensors: dict[str, dict[str, Tensor]] = {}
        for source, destination, key in routes(route):
            try:
                if key not in tensors:
                    tensors[key] = tensors_of(records[prefix + key], device)
            except (KeyError, ValueError):
                drop("malformed", source, destination)
                continue
            envelopes.append(Envelope(head["run"], head["pass"], head["step"], source, destination, tensors[key]))
    return envelopes


def route_of(entries: Sequence[tuple[int, int, str]], head: Mapping[str, Any]) -> ConfigRecord:
    """Return a ``route`` record: (source, destination, record) of each envelope, and run, pass and step of all."""
    source, destination, record = map(list, zip(*entries, strict=True))
    columns = {"source": source, "destination": destination, "record": record}
    return ConfigRecord({**{name: head[name] for name in ("run", "pass", "step")}, **columns})


def routes(route: ConfigRecord) -> list[tuple[int, int, str]]:
    """Return (source, destination, record) of every envelope in a ``route`` record.

    Raises
    ------
    ValueError
        When it is not what `pack` makes.
    """
    columns: list[Any] = [route.get(name) for name in ("source", "destination", "record")]
    kinds = (int, int, str)
    for column, kind in zip(columns, kinds, strict=True):
        if not isinstance(column, list) or not all(isinstance(entry, kind) for entry in column):
            raise ValueError("a route has three lists: source, destination, record")
    if not all(isinstance(route.get(name), kind) for name, kind in (("run", str), ("pass", int), ("step", str))):
        raise ValueError("a route names its run, pass and step")
    return list(zip(*columns, strict=True))


class Blob(bytes):
    """Bytes that pickle out of band: Flower's simulation hands them to another process with one copy, not three."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Let pickle protocol 5 pass on the memory itself."""
        return Blob, (PickleBuffer(self),)


def _encode(array: NDArray[Any]) -> Array:
    data = b"".join((_header(array.dtype.str, array.shape, False), array.reshape(-1).view(np.uint8).data))
    return Array(str(array.dtype), array.shape, "numpy.ndarray", Blob(data))


@lru_cache(maxsize=256)
def _header(dtype: str, shape: tuple[int, ...], fortran_order: bool) -> bytes:
    stream = BytesIO()
    header = {"descr": dtype, "fortran_order": fortran_order, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _decode(name: str, array: Array) -> Tensor:
    """Return an array as a tensor. All that it says is compared with the bytes that are there before any is read."""
    refusal = ValueError(f"'{name}' is not an array of the type and shape that it names")
    dtype, shape, data = PLAIN.get(array.dtype), tuple(array.shape), array.data
    if array.stype != "numpy.ndarray" or dtype is None or not _possible(shape, dtype.itemsize):
        raise refusal
    text = len(_MAGIC) + 2
    begin = text + int.from_bytes(data[len(_MAGIC) : text], "little")
    if not data.startswith(_MAGIC) or len(data) - begin != prod(shape) * dtype.itemsize:
        raise refusal
    said = data[text:begin].rstrip()  # versions of NumPy differ in the blanks that follow
    by_rows, by_columns = (_header(dtype.str, shape, fortran)[text:].rstrip() for fortran in (False, True))
    if said not in (by_rows, by_columns):
        raise refusal
    flat = np.frombuffer(data, dtype, prod(shape), begin)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # no step writes into messages
        return torch.from_numpy(flat.reshape(shape, order="C" if said == by_rows else "F"))


def _possible(shape: tuple[int, ...], itemsize: int) -> bool:
    """Return whether an array can have this shape, however few bytes come with it."""
    return (
        len(shape) <= LENGTHS
        and all(0 <= length <= LARGEST for length in shape)
        and prod(length or 1 for length in shape) * itemsize <= LARGEST
    )
