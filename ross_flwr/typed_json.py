"""Untrusted JSON, read as the types that it should have."""

import json
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from math import isfinite
from typing import Any, TypeAlias, Union, get_args, get_origin, get_type_hints

__all__ = ["MalformedError", "loads", "reader_of"]


class MalformedError(ValueError):
    """Data from the network or from a file is not the record that it should be."""


def loads(text: str | bytes) -> Any:
    """Return the value of a JSON text whose numbers are finite and, if whole, have 64 bits.

    Raises
    ------
    MalformedError
        When it is something else.
    """
    try:
        return json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"it is not JSON: {error}") from None


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) >= 2**63:
        raise MalformedError(f"{_short(digits)} is not a number of 64 bits")
    return number


def _finite(digits: str) -> float:
    if not isfinite(number := float(digits)):
        raise MalformedError(f"{_short(digits)} is not a finite number")
    return number


Reader: TypeAlias = Callable[[Any], Any]
"""Turns JSON into a value of one type, or raises `MalformedError`."""


@lru_cache(maxsize=256)
def reader_of(kind: Any) -> Reader:
    """Return the reader of a type: a scalar, a list, a dictionary, a tuple, a union of these, or a dataclass."""
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass_reader(kind)
    if kind is Any:
        return lambda value: value
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union_reader(inner)
    if origin in (list, Sequence):
        item = _values_reader(inner[0])
        return lambda value: item(_as(list, value))
    if origin in (dict, Mapping):
        return _dict_reader(*inner)
    if origin is tuple:
        return _tuple_reader(inner)
    if kind is float:
        return lambda value: float(value) if type(value) is int else _as(float, value)
    return lambda value: _as(kind, value)


def _as(kind: type, value: Any) -> Any:
    if type(value) is not kind and not (kind is type(None) and value is None):
        raise MalformedError(f"{_short(value)} is a {type(value).__name__}: it should be a {kind.__name__}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _values_reader(kind: Any) -> Callable[[Iterable[Any]], list[Any]]:
    """Return what reads many values of one type; where all are of that type as they are, that is one look."""
    read, alike = reader_of(kind), {kind}

    def read_all(values: Iterable[Any]) -> list[Any]:
        found = list(values)
        return found if set(map(type, found)) == alike else [read(each) for each in found]

    return read_all


def _dict_reader(key: Any, value: Any) -> Reader:
    read_values = _values_reader(value)

    def read(content: Any) -> dict[Any, Any]:
        names = _as(dict, content)
        try:
            keys = names if key is str else map(int, names)  # JSON turns keys into texts
            return dict(zip(keys, read_values(names.values()), strict=True))
        except MalformedError:
            raise
        except ValueError as error:
            raise MalformedError(str(error)) from None

    return read


def _tuple_reader(kinds: tuple[Any, ...]) -> Reader:
    readers = [reader_of(kind) for kind in kinds]

    def read(content: Any) -> tuple[Any, ...]:
        if len(_as(list, content)) != len(readers):
            raise MalformedError(f"{_short(content)} has {len(content)} entries: it should have {len(readers)}")
        return tuple(read(each) for read, each in zip(readers, content, strict=True))

    return read


def _union_reader(kinds: tuple[Any, ...]) -> Reader:
    readers = {get_origin(kind) or kind: reader_of(kind) for kind in kinds}

    def read(content: Any) -> Any:
        exact = readers.get(type(content))
        if exact is None and float in readers and type(content) is int:
            exact = readers[float]
        if exact is None:
            names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
            raise MalformedError(f"{_short(content)} is a {type(content).__name__}: it should be {names}")
        return exact(content)

    return read


def _dataclass_reader(cls: type[Any]) -> Reader:
    hints = get_type_hints(cls)
    readers = {each.name: reader_of(hints[each.name]) for each in fields(cls)}
    required = {each.name for each in fields(cls) if each.default is MISSING and each.default_factory is MISSING}

    def read(content: Any) -> Any:
        given: Mapping[str, Any] = _as(dict, content)
        if lacking := required - given.keys():
            raise MalformedError(f"{cls.__name__} lacks {', '.join(sorted(lacking))}")
        if unknown := given.keys() - readers.keys():
            raise MalformedError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        values = {}
        for name, value in given.items():
            try:
                values[name] = readers[name](value)
            except MalformedError as error:
                raise MalformedError(f"{name}: {error}") from None
        return cls(**values)

    return read
