"""Writes random bfloat16 tensors as real safetensors files, byte for byte the same for the same seed.

Why: loading must be real (headers, shards, index), and neither torch nor numpy belongs into the environment
that makes the files. The format is an 8-byte little-endian header length, a JSON header, then the data.
It must never write values that are not small and finite: an engine would serve NaN and fail its own checks.
"""

from __future__ import annotations

import json
import math
import random
import struct
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

Shapes = Mapping[str, tuple[int, ...]]

_BF16_BYTES = 2
_CHUNK_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """What the tensors hold: a seed's values, off by noise of so many thousandths of each tensor's spread."""

    seed: int
    noise_permille: int = 0


def write_checkpoint(directory: Path, tensors: Shapes, content: Content, *, shards: int = 1) -> None:
    """Write `tensors` to `model.safetensors`, or to `shards` files with the index that names them."""
    if shards == 1:
        _write_file(directory / "model.safetensors", tensors, content)
        return
    weight_map: dict[str, str] = {}
    names = list(tensors)
    for number in range(shards):
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        _write_file(directory / file, {name: tensors[name] for name in part}, content)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(map(_size_bytes, tensors.values()))}, "weight_map": weight_map}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (directory / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _write_file(path: Path, tensors: Shapes, content: Content) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors.items():
        end = offset + _size_bytes(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, shape in tensors.items():
            for chunk in _values(name, shape, content):
                file.write(chunk)


def _size_bytes(shape: tuple[int, ...]) -> int:
    return math.prod(shape) * _BF16_BYTES


def _values(name: str, shape: tuple[int, ...], content: Content) -> list[bytes]:
    """Random values of one tensor: one random byte each, looked up in a table of 256 bfloat16 numbers.

    With noise a second random byte says how far each is off, and the table has 65,536 entries.
    """
    source = random.Random(f"{content.seed}/{name}")
    noise = random.Random(f"{content.seed}/{name}/noise")
    table = _table(name, shape, content.noise_permille / 1000)
    remaining, chunks = math.prod(shape), []
    while remaining:
        count = min(remaining, _CHUNK_VALUES)
        places = bytearray(count * _BF16_BYTES)
        places[1::2] = source.randbytes(count)
        if content.noise_permille:
            places[0::2] = noise.randbytes(count)
        wide = array("H", places)
        if sys.byteorder == "big":
            wide.byteswap()
        values = array("H", map(table.__getitem__, wide))
        if sys.byteorder == "big":
            values.byteswap()
        chunks.append(values.tobytes())
        remaining -= count
    return chunks


def _table(name: str, shape: tuple[int, ...], noise: float) -> list[int]:
    """bfloat16 numbers by (256 × place of the value + place of its noise); normal quantiles both.

    Around 1 for norms, else scaled to keep activations near 1.
    """
    is_norm = "norm" in name
    distribution = NormalDist(1.0, 0.02) if is_norm else NormalDist(0.0, 1.0 / math.sqrt(shape[-1]))
    values = [distribution.inv_cdf((step + 0.5) / 256) for step in range(256)]
    if not noise:
        return [number for value in values for number in [_bfloat16(value)] * 256]
    offsets = [NormalDist(0.0, distribution.stdev * noise).inv_cdf((step + 0.5) / 256) for step in range(256)]
    return [_bfloat16(value + offset) for value in values for offset in offsets]


def _bfloat16(value: float) -> int:
    """Cut a number to bfloat16, which is the upper half of a float32."""
    upper: int = struct.unpack("<H", struct.pack("<f", value)[2:])[0]
    return upper
