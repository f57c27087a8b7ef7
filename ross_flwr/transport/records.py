"""Envelopes and agents' state as Flower records, and back."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from ross_flwr.transport.envelope import Envelope

__all__ = ["from_json", "pack", "record_of", "route_of", "routes", "tensors_of", "to_json", "unpack"]


def record_of(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return the tensors as an `ArrayRecord`."""
    return ArrayRecord({name: Array(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()})


def tensors_of(record: ArrayRecord, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return the arrays of `record` as tensors; nothing is unpickled."""
    return {name: torch.from_numpy(array.numpy()).to(device) for name, array in record.items()}


def to_json(value: object) -> ConfigRecord:
    """Return anything JSON can hold as a `ConfigRecord`."""
    return ConfigRecord({"json": json.dumps(value)})


def from_json(record: ConfigRecord) -> Any:
    """Return what `to_json` packed."""
    text = record["json"]
    assert isinstance(text, str)
    return json.loads(text)


def pack(envelopes: Sequence[Envelope]) -> RecordDict:
    """Pack envelopes of one run, round and step into records.

    Their tensors stand in one `ArrayRecord` per distinct message, so what an agent broadcasts is packed once. The
    record ``route`` says who sends which of them to whom.
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
        content["route"] = route_of(entries, {"run": first.run, "round": first.round, "step": first.step})
    return content


def unpack(content: RecordDict, device: torch.device) -> list[Envelope]:
    """Return the envelopes that `pack` packed, also when several packs were laid in one under prefixed keys.

    Envelopes whose tensors are missing or cannot be read are left out.
    """
    envelopes = []
    for name, route in content.config_records.items():
        if not name.endswith("route"):
            continue
        prefix = name.removesuffix("route")
        head: Any = route
        tensors: dict[str, dict[str, Tensor]] = {}
        for source, destination, key in routes(route):
            if prefix + key in content.array_records:
                if key not in tensors:
                    tensors[key] = tensors_of(content.array_records[prefix + key], device)
                message = tensors[key]
                envelopes.append(Envelope(head["run"], head["round"], head["step"], source, destination, message))
    return envelopes


def route_of(entries: Sequence[tuple[int, int, str]], head: Mapping[str, Any]) -> ConfigRecord:
    """Return a ``route`` record: (source, destination, record) of each envelope, and run, round and step of all."""
    source, destination, record = map(list, zip(*entries, strict=True))
    columns = {"source": source, "destination": destination, "record": record}
    return ConfigRecord({**{name: head[name] for name in ("run", "round", "step")}, **columns})


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
    return list(zip(*columns, strict=True))
