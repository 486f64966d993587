"""Reads the header of a safetensors file: names, types and shapes of its tensors, not their bytes.

Format: eight bytes with the header's length (little endian), then JSON. The length is checked before anything
is read, since a broken file may claim any.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

LENGTH_BYTES = 8
# The limit of the reference reader (safetensors/src/tensor.rs, MAX_HEADER_SIZE).
LONGEST_HEADER_BYTES = 100_000_000

ReadRange = Callable[[int, int], bytes]
"""Reads (offset, length) of a file."""


class HeaderError(ValueError):
    """The bytes are no safetensors header; the text says why."""


def read_header(read: ReadRange) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return tensor name to (dtype, shape); raises HeaderError, and whatever ``read`` raises."""
    start = read(0, LENGTH_BYTES)
    if len(start) != LENGTH_BYTES:
        raise HeaderError("the file is shorter than eight bytes")
    (length,) = struct.unpack("<Q", start)
    if not 2 <= length <= LONGEST_HEADER_BYTES:
        raise HeaderError(f"the header claims {length} bytes; it is no safetensors file")
    content = read(LENGTH_BYTES, length)
    if len(content) != length:
        raise HeaderError(f"the header has {len(content)} of {length} bytes; the file is cut off")
    try:
        entries = json.loads(content)
    except ValueError:
        raise HeaderError("the header is not JSON") from None
    if not isinstance(entries, dict):
        raise HeaderError("the header is no JSON object")
    return {name: _tensor(name, entry) for name, entry in entries.items() if name != "__metadata__"}


def _tensor(name: str, entry: Any) -> tuple[str, tuple[int, ...]]:
    dtype = entry.get("dtype") if isinstance(entry, dict) else None
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise HeaderError(f"the tensor {name} has no dtype or shape")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise HeaderError(f"the tensor {name} has the shape {shape}")
    return dtype, tuple(shape)
