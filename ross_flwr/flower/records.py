"""Envelopes and agents' state as Flower records, and back."""

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pickle import PickleBuffer
from typing import Any, SupportsIndex

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.engine.envelope import Envelope

__all__ = ["from_json", "pack", "record_of", "route_of", "routes", "tensors_of", "to_json", "unpack"]


def record_of(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return the tensors as the `ArrayRecord` that `Array(ndarray)` would make, with one copy instead of three."""
    return ArrayRecord({name: _encode(tensor.detach().cpu().contiguous().numpy()) for name, tensor in tensors.items()})


def tensors_of(record: ArrayRecord, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return the arrays of `record` as tensors, which share its memory where they can; nothing is unpickled."""
    return {name: _decode(array).to(device) for name, array in record.items()}


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


def unpack(content: RecordDict, device: torch.device) -> list[Envelope]:
    """Return the envelopes that `pack` packed, also if several packs were merged under prefixed keys.

    Envelopes whose tensors are missing or cannot be read are left out.
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
            if prefix + key in records:
                if key not in tensors:
                    try:
                        tensors[key] = tensors_of(records[prefix + key], device)
                    except (TypeError, ValueError, RuntimeError, EOFError):  # not the array that it claims to be
                        continue
                message = tensors[key]
                envelopes.append(Envelope(head["run"], head["pass"], head["step"], source, destination, message))
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
    data = b"".join((_header(array.dtype.str, array.shape), array.reshape(-1).view(np.uint8).data))
    return Array(str(array.dtype), array.shape, "numpy.ndarray", Blob(data))


@lru_cache(maxsize=256)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    stream = BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _decode(array: Array) -> Tensor:
    header = _header(np.dtype(array.dtype).str, tuple(array.shape))
    if array.stype != "numpy.ndarray" or not array.data.startswith(header):
        return torch.from_numpy(array.numpy())
    flat = np.frombuffer(array.data, array.dtype, offset=len(header))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # no step writes into messages
        return torch.from_numpy(flat).view(array.shape)
