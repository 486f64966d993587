"""`--what-if` as people write it: `NAME=VALUE`, or several with commas between, by a reader for each name.

A reader says what it takes, so that a value that cannot be used is answered with the form that can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one value. `read` raises ValueError on what it cannot use; `takes` names what it can."""

    read: Callable[[str], Any]
    takes: str


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


COUNT = Reader(_positive, "a whole number of at least 1")
NUMBER = Reader(float, "a number")
FLAG = Reader(_flag, "true or false")
WORD = Reader(str, "a word")


def read_changes(words: str, readers: Mapping[str, Reader]) -> dict[str, Any] | Refusal:
    """Read one what-if into values by name (with underscores), or refuse the first part that is not understood."""
    settings: dict[str, Any] = {}
    for part in words.split(","):
        written, separator, text = (piece.strip() for piece in part.removeprefix("--").partition("="))
        name = written.replace("-", "_")
        reader = readers.get(name)
        if reader is None or not separator:
            return _unknown(part, name, readers)
        try:
            settings[name] = reader.read(text)
        except ValueError:
            return Refusal(Reason.INVALID_SPEC, f"{text!r} is not {reader.takes}.")
    return settings


def _unknown(part: str, name: str, readers: Mapping[str, Reader]) -> Refusal:
    message = f"{part.strip()!r} is not understood."
    near = get_close_matches(name, readers, n=1)
    if near:
        return Refusal(Reason.INVALID_SPEC, message, f"Write {near[0].replace('_', '-')}=VALUE.")
    known = ", ".join(each.replace("_", "-") for each in readers)
    return Refusal(Reason.INVALID_SPEC, message, f"Write NAME=VALUE with one of {known}.")
