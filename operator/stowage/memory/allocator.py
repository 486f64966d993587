"""From tensor bytes to what PyTorch's caching allocator counts and reserves for them.

`Model loading took` counts allocator blocks, and engines from 0.27 on subtract what the device lost, which
is whole segments. Rule (c10/cuda/CUDACachingAllocator.cpp): sizes are rounded to 512 B; up to 1 MiB comes
from 2 MiB segments, below 10 MiB from 20 MiB segments, above from a segment of its own rounded to 2 MiB. A
block keeps the rest of its segment when the rest is at most 1 MiB, or when the block is at or above
`max_split_size`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_MIB: Final = 2**20
_SMALL: Final = _MIB
_SMALL_SEGMENT: Final = 2 * _MIB
_LARGE: Final = 10 * _MIB
_LARGE_SEGMENT: Final = 20 * _MIB
_ROUND: Final = 2 * _MIB


@dataclass(frozen=True, slots=True)
class AllocatedBytes:
    """Bytes of a set of tensors: their own, the blocks that hold them, and the segments those lie in."""

    tensor_bytes: int
    block_bytes: int
    segment_bytes: int

    def plus(self, number_of_bytes: int) -> AllocatedBytes:
        """Add bytes that lie in tensors too many and too small for rounding to matter."""
        return AllocatedBytes(
            self.tensor_bytes + number_of_bytes,
            self.block_bytes + number_of_bytes,
            self.segment_bytes + number_of_bytes,
        )

    def joined(self, other: AllocatedBytes) -> AllocatedBytes:
        """Add another set of tensors; segments are not shared between the two."""
        return AllocatedBytes(
            self.tensor_bytes + other.tensor_bytes,
            self.block_bytes + other.block_bytes,
            self.segment_bytes + other.segment_bytes,
        )


NO_BYTES: Final = AllocatedBytes(0, 0, 0)
"""No tensors at all."""


def block_bytes(tensor_bytes: int, split_limit_bytes: int | None) -> int:
    """Give the allocator block of a fresh tensor; `split_limit_bytes` None means that no limit is set."""
    rounded = -(-tensor_bytes // 512) * 512
    if rounded < _LARGE:
        return rounded
    segment = -(-rounded // _ROUND) * _ROUND
    if split_limit_bytes is not None and rounded >= split_limit_bytes:
        return segment
    return segment if segment - rounded <= _SMALL else rounded


def allocate(tensors: Iterable[tuple[int, int]], split_limit_bytes: int | None) -> AllocatedBytes:
    """Add up tensors given as (bytes of one, how many); segments are packed by equal sizes."""
    total = blocks = segments = small = 0
    for size, number in tensors:
        block = block_bytes(size, split_limit_bytes)
        total += size * number
        blocks += block * number
        if block <= _SMALL:
            small += block * number
        elif block < _LARGE:
            segments += -(-number // (_LARGE_SEGMENT // block)) * _LARGE_SEGMENT
        else:
            segments += -(-block // _ROUND) * _ROUND * number
    segments += -(-small // _SMALL_SEGMENT) * _SMALL_SEGMENT
    return AllocatedBytes(total, blocks, segments)
