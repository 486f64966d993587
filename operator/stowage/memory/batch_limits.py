"""The engine's own defaults for max_num_seqs and max_num_batched_tokens, for its server.

They jump with the card's size and name (vllm/engine/arg_utils.py::get_batch_defaults), which is why plans
always pass both explicitly.
"""

from __future__ import annotations

from typing import Final

from stowage.memory.device import DeviceMemory
from stowage.memory.engine_version import EngineVersion

_LARGE_FROM: Final = 70 * 2**30


def default_batch_limits(device: DeviceMemory, version: EngineVersion) -> tuple[int, int]:
    """Give (max_num_seqs, max_num_batched_tokens) that the server of this release takes on this device."""
    if device.is_cpu:
        return 128, 2048
    largest = version.largest_defaults_from_bytes
    if largest is not None and device.total_bytes >= largest:
        return 1024, 16384
    excluded = version.small_defaults_on_a100 and "a100" in device.name.lower()
    if device.total_bytes >= _LARGE_FROM and not excluded:
        return 1024, 8192
    return 256, 2048
