"""Frozen dataclasses to plain JSON values and back, by their type annotations.

Plans are recorded on workload objects and read by later versions: fields that are missing take their
default, unknown ones are ignored. Only what plans consist of is handled: dataclasses, tuples, mappings,
unions with None and scalars.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
_KNOWN_HINTS: dict[type[Any], dict[str, Any]] = {}


def to_plain(value: Any) -> Any:
    """Turn a value into dicts, lists and scalars."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(each) for each in value]
    return value.value if isinstance(value, Enum) else value


def from_plain(kind: type[T], value: Any) -> T:
    """Build a value of that type. Raises KeyError for a missing field, TypeError or ValueError for a wrong one."""
    return cast(T, _read(kind, value))


def _read(kind: Any, value: Any) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_union(kind, value)
    if origin is tuple:
        return tuple(_read(get_args(kind)[0], each) for each in _expect(list, value))
    if origin is not None and origin is not Literal:
        return {key: _read(get_args(kind)[1], each) for key, each in _expect(dict, value).items()}
    if is_dataclass(kind):
        return _read_dataclass(cast(type[Any], kind), _expect(dict, value))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return _read_scalar(kind, value)


def _read_union(kind: Any, value: Any) -> Any:
    members = [member for member in get_args(kind) if member is not types.NoneType]
    if value is None:
        return None
    return _read(members[0], value)


def _read_dataclass(kind: type[Any], value: Mapping[str, Any]) -> Any:
    hints = _hints(kind)
    arguments = {}
    for field in fields(kind):
        if field.name in value:
            arguments[field.name] = _read(hints[field.name], value[field.name])
        elif field.default is MISSING and field.default_factory is MISSING:
            raise KeyError(f"{kind.__name__} needs {field.name}")
    return kind(**arguments)


def _read_scalar(kind: Any, value: Any) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{value!r} is not one of {get_args(kind)}")
        return value
    if kind is float and isinstance(value, int):
        return float(value)
    return _expect(kind, value)


def _expect(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value


def _hints(kind: type[Any]) -> dict[str, Any]:
    if kind not in _KNOWN_HINTS:
        _KNOWN_HINTS[kind] = get_type_hints(kind)
    return _KNOWN_HINTS[kind]
