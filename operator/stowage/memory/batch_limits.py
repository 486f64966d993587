"""The engine's own defaults for max_num_seqs and max_num_batched_tokens.

They jump with the card's size and name, the release and the way the engine is started
(vllm/engine/arg_utils.py::get_batch_defaults), which is why plans always pass both explicitly.
"""

from __future__ import annotations

from typing import Final

from stowage.memory.device import DeviceMemory
from stowage.memory.engine_version import EngineVersion
from stowage.memory.estimates import shares_host_memory

_LARGE_FROM: Final = 70 * 2**30
_V0_LONG_CONTEXT: Final = 32768
_V0_TOKENS: Final = 2048


def default_batch_limits(
    device: DeviceMemory,
    version: EngineVersion,
    max_model_len: int | None = None,
    entry_point: str = "server",
) -> tuple[int, int]:
    """Give (max_num_seqs, max_num_batched_tokens) of this release on this device.

    `entry_point` is "server" or "LLM" (the class for offline use). `max_model_len` matters to the V0 engine
    only, which runs whole prompts up to 32,768 tokens in one step and longer ones in chunks. GPUs that share
    the host's memory have no figure in the driver's library, so the engine takes them for small ones.
    """
    offline = entry_point == "LLM"
    if device.is_cpu:
        return (256, 4096) if offline else (128, 2048)
    if version.engine == "V0":
        length = max_model_len or 0
        return 256, _V0_TOKENS if length > _V0_LONG_CONTEXT else max(length, _V0_TOKENS)
    if shares_host_memory(device.compute_capability):
        return 256, 8192 if offline else 2048
    largest = version.largest_defaults_from_bytes
    if largest is not None and device.total_bytes >= largest:
        return 1024, 16384
    excluded = version.small_defaults_on_a100 and "a100" in device.name.lower()
    if device.total_bytes >= _LARGE_FROM and not excluded:
        return 1024, 16384 if offline else 8192
    return 256, 8192 if offline else 2048
