"""Reading and writing the contract's records as JSON, strictly.

Every field carries a codec that says in words what it expects, so that a bad document ends in one clear
sentence per bad field instead of a stack trace. This module knows nothing about the records themselves and
never does IO.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, ClassVar, TypeVar

_MAX_SHOWN = 60

R = TypeVar("R", bound="Record")


class ContractError(ValueError):
    """A document that does not keep to the contract; ``problems`` holds one sentence per bad field."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Codec:
    """How one value is read from and written to JSON; ``expected`` completes the sentence 'it must be …'."""

    expected: str
    decode: Callable[[object, str, list[str]], Any]
    encode: Callable[[Any], object]
    required: bool = True


def wire(codec: Codec) -> dict[str, Codec]:
    """Return the metadata for ``dataclasses.field`` that ties a codec to a field."""
    return {"codec": codec}


def shown(value: object) -> str:
    """Return a value as it stands in a sentence: JSON where possible, cut to a readable length."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _same(value: Any) -> object:
    return value


def _leaf(expected: str, accepts: Callable[[Any], bool]) -> Codec:
    def decode(value: object, path: str, problems: list[str]) -> Any:
        if not accepts(value):
            problems.append(f"{path} is {shown(value)}; it must be {expected}.")
        return value

    return Codec(expected, decode, _same)


def integer(minimum: int, maximum: int | None = None) -> Codec:
    """Make the codec of a whole number in a closed range."""
    limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def accepts(value: Any) -> bool:
        if type(value) is not int:
            return False
        return value >= minimum and (maximum is None or value <= maximum)

    return _leaf(f"a whole number {limits}", accepts)


def number(minimum: float, maximum: float | None = None) -> Codec:
    """Make the codec of a finite number in a closed range; a whole number is read as a float."""
    limits = f"of at least {minimum:g}" if maximum is None else f"from {minimum:g} to {maximum:g}"

    def decode(value: object, path: str, problems: list[str]) -> Any:
        if type(value) in (int, float):
            as_float = float(value)  # type: ignore[arg-type]
            if math.isfinite(as_float) and minimum <= as_float and (maximum is None or as_float <= maximum):
                return as_float
        problems.append(f"{path} is {shown(value)}; it must be a number {limits}.")
        return value

    return Codec(f"a number {limits}", decode, float)


def text(what: str, pattern: str | None = None, maximum_length: int = 4096) -> Codec:
    """Make the codec of a non-empty string; ``what`` says in words what a matching one is."""
    compiled = re.compile(pattern, re.DOTALL) if pattern else None

    def accepts(value: Any) -> bool:
        if not isinstance(value, str) or not 0 < len(value) <= maximum_length:
            return False
        return compiled is None or compiled.fullmatch(value) is not None

    return _leaf(what, accepts)


def free_text(maximum_length: int = 4096) -> Codec:
    """Make the codec of any string, also an empty one."""
    what = f"a string of at most {maximum_length} characters"
    return _leaf(what, lambda value: isinstance(value, str) and len(value) <= maximum_length)


def choice(*allowed: str) -> Codec:
    """Make the codec of one of a few words."""
    return _leaf("one of " + ", ".join(allowed), lambda value: isinstance(value, str) and value in allowed)


def constant(expected: int, advice: str) -> Codec:
    """Make the codec of exactly this number; ``advice`` says what to do otherwise."""
    return _leaf(f"{expected}: {advice}", lambda value: type(value) is int and value == expected)


def optional(inner: Codec) -> Codec:
    """Make the codec of an inner value, or null or nothing for None; None is left out when written."""

    def decode(value: object, path: str, problems: list[str]) -> Any:
        return None if value is None else inner.decode(value, path, problems)

    def encode(value: Any) -> object:
        return None if value is None else inner.encode(value)

    return Codec(inner.expected, decode, encode, required=False)


def defaulted(inner: Codec) -> Codec:
    """Make the codec of a value for which the dataclass has a default."""
    return dataclasses.replace(inner, required=False)


def sequence(inner: Codec, what: str) -> Codec:
    """Make the codec of a JSON list, read as a tuple."""

    def decode(value: object, path: str, problems: list[str]) -> Any:
        if not isinstance(value, list):
            problems.append(f"{path} is {shown(value)}; it must be {what}.")
            return ()
        return tuple(inner.decode(item, f"{path}[{index}]", problems) for index, item in enumerate(value))

    return Codec(what, decode, lambda items: [inner.encode(item) for item in items])


def string_map(what: str, key_pattern: str) -> Codec:
    """Make the codec of a JSON object from names to strings."""
    key = re.compile(key_pattern)

    def decode(value: object, path: str, problems: list[str]) -> Any:
        if not isinstance(value, dict):
            problems.append(f"{path} is {shown(value)}; it must be {what}.")
            return {}
        for name, item in value.items():
            if not key.fullmatch(name):
                problems.append(f"{path} has the name {shown(name)}; a name must match {key_pattern}.")
            if not isinstance(item, str):
                problems.append(f"{path}.{name} is {shown(item)}; it must be a string.")
        return dict(value)

    return Codec(what, decode, dict)


def json_object(what: str) -> Codec:
    """Make the codec of any JSON object, kept verbatim."""

    def decode(value: object, path: str, problems: list[str]) -> Any:
        if not isinstance(value, dict):
            problems.append(f"{path} is {shown(value)}; it must be {what}.")
            return {}
        return value

    return Codec(what, decode, _same)


def nested(record: type[Record]) -> Codec:
    """Make the codec of another record."""

    def decode(value: object, path: str, problems: list[str]) -> Any:
        return record.decode(value, path, problems)

    def encode(value: Any) -> object:
        return value.to_dict()

    return Codec(f"a {record.__name__} object", decode, encode)


def camel(name: str) -> str:
    """Return the JSON key of a field name."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _codec_of(field: dataclasses.Field[Any]) -> Codec:
    codec: Codec = field.metadata["codec"]
    return codec


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


class Record:
    """Base of everything in the contract: a frozen dataclass whose fields carry codecs."""

    ignore_unknown_keys: ClassVar[bool] = False
    """True where the reader may be older than the writer."""

    allow_non_finite: ClassVar[bool] = False
    """True where foreign JSON is kept verbatim that may hold Infinity, as Python's own json writes it."""

    @classmethod
    def decode(cls: type[R], value: object, path: str, problems: list[str]) -> R | None:
        """Read from decoded JSON; appends a sentence per bad field and returns None where there was one."""
        if not isinstance(value, dict):
            problems.append(f"{path or 'The document'} is {shown(value)}; it must be a JSON object.")
            return None
        before = len(problems)
        prefix = f"{path}." if path else ""
        arguments = cls._decode_fields(value, prefix, problems)
        if len(problems) > before:
            return None
        record = cls(**arguments)
        problems.extend(record.inconsistencies(prefix))
        return record if len(problems) == before else None

    @classmethod
    def _decode_fields(cls, value: dict[str, Any], prefix: str, problems: list[str]) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        unknown = set(value)
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            key, codec = camel(field.name), _codec_of(field)
            unknown.discard(key)
            if key in value:
                arguments[field.name] = codec.decode(value[key], prefix + key, problems)
            elif codec.required:
                problems.append(f"{prefix}{key} is missing; it must be {codec.expected}.")
        if not cls.ignore_unknown_keys:
            advice = "is not a known field; remove it or use a matching Stowage version."
            problems.extend(f"{prefix}{key} {advice}" for key in sorted(unknown))
        return arguments

    @classmethod
    def from_dict(cls: type[R], value: object) -> R:
        """Read from decoded JSON; raises ContractError with one sentence per bad field."""
        problems: list[str] = []
        record = cls.decode(value, "", problems)
        if record is None:
            raise ContractError(tuple(problems))
        return record

    @classmethod
    def from_json(cls: type[R], document: str | bytes) -> R:
        """Read from JSON text; raises ContractError with one sentence per bad field."""
        try:
            value = json.loads(document, parse_constant=float if cls.allow_non_finite else _refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ContractError((f"The document is not valid JSON: {error}.",)) from None
        return cls.from_dict(value)

    def inconsistencies(self, prefix: str) -> list[str]:
        """Return sentences about fields that contradict each other; ``prefix`` stands before field names."""
        del prefix
        return []

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values with camelCase keys; fields that are None are left out."""
        encoded: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is not None:
                encoded[camel(field.name)] = _codec_of(field).encode(value)
        return encoded

    def to_json(self) -> str:
        """Write stable JSON: sorted keys, no white space, ASCII; the same record gives the same bytes."""
        return json.dumps(
            self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=self.allow_non_finite
        )

    def content_hash(self) -> str:
        """SHA-256 of ``to_json`` as 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


StringMap = Mapping[str, str]
