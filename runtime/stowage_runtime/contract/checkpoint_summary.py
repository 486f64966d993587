"""A checkpoint as small text: config.json verbatim and every tensor's name, type and shape, folded by index.

It holds all that the planner must know about the weights without their gigabytes, so that air-gapped clusters
can put it into a ConfigMap. Folding loses nothing: ``tensors`` unfolds to exactly the names that were
summarised.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from stowage_runtime.contract.fields import (
    ContractError,
    Record,
    choice,
    constant,
    free_text,
    integer,
    json_object,
    nested,
    optional,
    sequence,
    text,
    wire,
)

Header = Mapping[str, tuple[str, Sequence[int]]]
"""Tensor name to (dtype, shape), as in the header of one safetensors file."""

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits per element of the safetensors types (enum Dtype in safetensors/src/tensor.rs)."""

_INDEX = re.compile(r"(?:(?<=\.)|^)(0|[1-9][0-9]{0,8})(?=\.|$)")
_RANGES = r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*"
_MAX_GROUP = 1_000_000

_Key = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True)
class TensorGroup(Record):
    """Tensors that differ only in their layer or expert numbers.

    Each ``{}`` of ``pattern`` stands for the numbers of the entry of ``indices`` at the same place, written
    as compact ranges ("0-2,5"); the group has every combination. Without indices the pattern is the tensor's
    whole name.
    """

    pattern: str = field(metadata=wire(text("a tensor name", maximum_length=1024)))
    dtype: str = field(metadata=wire(choice(*DTYPE_BITS)))
    shape: tuple[int, ...] = field(metadata=wire(sequence(integer(0), "a list of sizes")))
    indices: tuple[str, ...] = field(
        default=(), metadata=wire(sequence(text("ranges like 0-31", _RANGES, 65_536), "a list of ranges"))
    )

    def inconsistencies(self, prefix: str) -> list[str]:
        """Check that placeholders and index lists match, that ranges go upwards and stay within reason."""
        if self.indices and self.pattern.count("{}") != len(self.indices):
            return [
                f"{prefix}indices has {len(self.indices)} entries; {self.pattern} needs one for each {{}}."
            ]
        for entry in self.indices:
            spans = _spans(entry)
            ends = [(-2, -2), *spans]
            if any(first > last for first, last in spans) or any(
                a[1] + 1 >= b[0] for a, b in zip(ends, spans)
            ):
                return [f"{prefix}indices has {entry}; ranges must go upwards with gaps, as in 0-2,5."]
        if self.count > _MAX_GROUP:
            return [f"{prefix}indices stand for {self.count} tensors; at most {_MAX_GROUP} are read."]
        return []

    @property
    def count(self) -> int:
        """Number of tensors in the group."""
        total = 1
        for entry in self.indices:
            total *= sum(last - first + 1 for first, last in _spans(entry))
        return total

    @property
    def tensor_bytes(self) -> int:
        """Bytes of one tensor of the group."""
        return tensor_bytes(self.dtype, self.shape)

    def names(self) -> Iterator[str]:
        """Every tensor name of the group, in index order."""
        if not self.indices:
            yield self.pattern
            return
        literals = self.pattern.split("{}")
        for combination in itertools.product(*(parse_ranges(entry) for entry in self.indices)):
            tail = (f"{index}{literal}" for index, literal in zip(combination, literals[1:]))
            yield literals[0] + "".join(tail)


@dataclass(frozen=True)
class CheckpointSummary(Record):
    """One checkpoint: where it came from, its configuration, its tensors and their bytes.

    ``quantization`` is the sidecar hf_quant_config.json where the checkpoint has one; ``total_bytes`` is the
    sum over all tensors; ``files`` is the number of safetensors files.
    """

    allow_non_finite: ClassVar[bool] = True

    source: str = field(metadata=wire(text("a source like hf://org/name")))
    config: Mapping[str, Any] = field(metadata=wire(json_object("the content of config.json")))
    tensors: tuple[TensorGroup, ...] = field(
        metadata=wire(sequence(nested(TensorGroup), "a list of tensor groups"))
    )
    total_bytes: int = field(metadata=wire(integer(0)))
    files: int = field(metadata=wire(integer(0)))
    revision: str | None = field(default=None, metadata=wire(optional(free_text(200))))
    quantization: Mapping[str, Any] | None = field(
        default=None, metadata=wire(optional(json_object("the content of hf_quant_config.json")))
    )
    schema: int = field(default=1, metadata=wire(constant(1, "write it again with this Stowage version")))

    def inconsistencies(self, prefix: str) -> list[str]:
        """Check that the byte count is that of the tensors."""
        counted = sum(group.count * group.tensor_bytes for group in self.tensors)
        if counted == self.total_bytes:
            return []
        return [f"{prefix}totalBytes is {self.total_bytes}; the tensors add up to {counted}, write it again."]


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Return the bytes of one tensor; raises ContractError for a type that safetensors does not have."""
    if dtype not in DTYPE_BITS:
        raise ContractError((f"dtype is {dtype}; it must be one of {', '.join(DTYPE_BITS)}.",))
    bits = DTYPE_BITS[dtype]
    for size in shape:
        bits *= size
    return (bits + 7) // 8


def parse_ranges(text_of_ranges: str) -> list[int]:
    """Return the numbers of compact ranges: "0-2,5" gives 0, 1, 2, 5."""
    return [number for first, last in _spans(text_of_ranges) for number in range(first, last + 1)]


def summarize(
    headers: Mapping[str, Header],
    *,
    source: str,
    revision: str | None,
    config: Mapping[str, Any],
    quantization: Mapping[str, Any] | None = None,
) -> CheckpointSummary:
    """Fold the headers of a checkpoint; ``headers`` maps file to tensor to (dtype, shape).

    Raises ContractError for a tensor that two files have, and for a type that safetensors does not have.
    """
    seen: dict[str, str] = {}
    buckets: dict[_Key, set[tuple[int, ...]]] = {}
    total = 0
    for file in sorted(headers):
        for name, (dtype, shape) in headers[file].items():
            if name in seen:
                raise ContractError((f"{name} is in {seen[name]} and in {file}; keep it in one file only.",))
            seen[name] = file
            total += tensor_bytes(dtype, shape)
            pattern, index = _fold(name)
            buckets.setdefault((pattern, dtype, tuple(shape)), set()).add(index)
    groups = (group for key, indices in sorted(buckets.items()) for group in _groups(key, indices))
    return CheckpointSummary(
        source=source,
        revision=revision,
        config=config,
        quantization=quantization,
        tensors=tuple(groups),
        total_bytes=total,
        files=len(headers),
    )


def _spans(text_of_ranges: str) -> list[tuple[int, int]]:
    parts = (part.partition("-") for part in text_of_ranges.split(","))
    return [(int(first), int(last or first)) for first, _, last in parts]


def _fold(name: str) -> tuple[str, tuple[int, ...]]:
    """Take the numbers out of a name; one that has braces of its own stays as it is."""
    if "{}" in name:
        return name, ()
    return _INDEX.sub("{}", name), tuple(int(number) for number in _INDEX.findall(name))


def _groups(key: _Key, indices: set[tuple[int, ...]]) -> Iterator[TensorGroup]:
    pattern, dtype, shape = key
    for box in _boxes(frozenset(indices)):
        yield TensorGroup(
            pattern=pattern, dtype=dtype, shape=shape, indices=tuple(_ranges(side) for side in box)
        )


def _boxes(indices: frozenset[tuple[int, ...]]) -> list[tuple[list[int], ...]]:
    """Split index tuples into full products, so that no group claims a tensor that is not there."""
    if () in indices:
        return [()]
    tails: dict[int, set[tuple[int, ...]]] = {}
    for first, *rest in indices:
        tails.setdefault(first, set()).add(tuple(rest))
    firsts: dict[frozenset[tuple[int, ...]], list[int]] = {}
    for first in sorted(tails):
        firsts.setdefault(frozenset(tails[first]), []).append(first)
    return [(heads, *box) for rest, heads in firsts.items() for box in _boxes(rest)]


def _ranges(numbers: Sequence[int]) -> str:
    parts: list[str] = []
    ordered = sorted(set(numbers))
    start = 0
    for position, number in enumerate(ordered):
        if position + 1 < len(ordered) and ordered[position + 1] == number + 1:
            continue
        first = ordered[start]
        parts.append(str(first) if first == number else f"{first}-{number}")
        start = position + 1
    return ",".join(parts)
