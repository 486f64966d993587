"""Sends a file's bytes: ranges, and the faults that act on content (slow, cut).

Why: the client reads safetensors headers and resumes downloads by byte ranges.
It must never load a whole file into memory.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from e2e.hub.answers import Answer

_PIECE_BYTES = 1 << 18
_SLOW_STEP_SECONDS = 0.05
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Writer(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object:
        """Send `data`."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a content to send; `status` 0 means the answer's own status."""

    start: int
    length: int
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


def select(size_bytes: int, wanted: str | None) -> Part:
    """Return the part that a Range header asks for (RFC 9110 §14.2; one range only, others are ignored)."""
    match = _RANGE.fullmatch(wanted.strip()) if wanted else None
    if match is None or match.groups() == ("", ""):
        return Part(0, size_bytes)
    first, last = match.groups()
    if first == "":
        start, end = max(0, size_bytes - int(last)), size_bytes - 1
    else:
        start, end = int(first), min(int(last), size_bytes - 1) if last else size_bytes - 1
    if start >= size_bytes or end < start:
        return Part(0, 0, 416, {"Content-Range": f"bytes */{size_bytes}"})
    return Part(start, end - start + 1, 206, {"Content-Range": f"bytes {start}-{end}/{size_bytes}"})


def send(answer: Answer, part: Part, writer: Writer, stopping: threading.Event) -> bool:
    """Send `part` of the answer's content; False if it was left incomplete on purpose."""
    fault = answer.fault
    kind = fault.kind if fault is not None else ""
    piece_bytes, limit_bytes = _PIECE_BYTES, part.length
    if fault is not None and kind == "slow":
        piece_bytes = max(1, int(fault.bytes_per_second * _SLOW_STEP_SECONDS))
    if fault is not None and kind == "cut":
        limit_bytes = min(limit_bytes, fault.bytes_per_request)
    with _open(answer) as stream:
        stream.seek(part.start)
        remaining = limit_bytes
        while remaining:
            piece = stream.read(min(piece_bytes, remaining))
            writer.write(piece)
            remaining -= len(piece)
            if kind == "slow" and stopping.wait(_SLOW_STEP_SECONDS):
                return False
    return limit_bytes == part.length


def _open(answer: Answer) -> BinaryIO:
    return io.BytesIO(answer.content) if isinstance(answer.content, bytes) else answer.content.open()
