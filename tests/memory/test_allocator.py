"""PyTorch's allocator rule: which block and which segment a tensor takes."""

from __future__ import annotations

import pytest

from stowage.memory.allocator import allocate, block_bytes
from tests.memory.support import MIB


@pytest.mark.parametrize(
    ("size", "limit", "block"),
    [
        pytest.param(1, None, 512, id="small sizes round to 512 bytes"),
        pytest.param(
            10 * MIB - 100, None, 10 * MIB, id="just below ten MiB rounds up to it and fills its segment"
        ),
        pytest.param(9 * MIB, None, 9 * MIB, id="below ten MiB is counted as it is"),
        pytest.param(11 * MIB, None, 12 * MIB, id="a rest of one MiB is not split off"),
        pytest.param(10 * MIB + MIB // 2, None, 10 * MIB + MIB // 2, id="a rest of more than one MiB is"),
        pytest.param(30 * MIB + MIB // 2, None, 30 * MIB + MIB // 2, id="large tensors are split too"),
        pytest.param(30 * MIB + MIB // 2, 20 * MIB, 32 * MIB, id="but not at or above the split limit"),
        pytest.param(12 * MIB + 512, 20 * MIB, 12 * MIB + 512, id="below the limit the old rule holds"),
    ],
)
def test_block_of_a_tensor(size: int, limit: int | None, block: int) -> None:
    assert block_bytes(size, limit) == block


def test_segments_hold_small_tensors_together_and_large_ones_alone() -> None:
    total = allocate([(1024, 3), (8 * MIB, 3), (11 * MIB, 2)], None)
    split = allocate([(10 * MIB + MIB // 2, 3)], None)
    assert (split.block_bytes, split.segment_bytes) == (3 * (10 * MIB + MIB // 2), 3 * 12 * MIB)
    assert total.tensor_bytes == 3 * 1024 + 24 * MIB + 22 * MIB
    assert total.block_bytes == 3 * 1024 + 24 * MIB + 24 * MIB
    assert total.segment_bytes == 2 * MIB + 2 * 20 * MIB + 2 * 12 * MIB
