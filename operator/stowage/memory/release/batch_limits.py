"""The engine's own defaults for max_num_seqs and max_num_batched_tokens.

They jump with the card's size and name, the release and the way the engine is started
(vllm/engine/arg_utils.py::get_batch_defaults), which is why plans always pass both explicitly.
"""

from __future__ import annotations

from typing import Final

from stowage.memory.device import DeviceMemory
from stowage.memory.estimates import shares_host_memory
from stowage.memory.release.engine_version import EngineVersion
from stowage.model.profile import ModelProfile

_LARGE_FROM: Final = 70 * 2**30
_V0_LONG_CONTEXT: Final = 32768
_V0_TOKENS: Final = 2048


def default_batch_limits(
    device: DeviceMemory,
    version: EngineVersion,
    max_model_len: int | None = None,
    entry_point: str = "server",
    profile: ModelProfile | None = None,
) -> tuple[int, int]:
    """Give (max_num_seqs, max_num_batched_tokens) of this release on this device.

    `entry_point` is "server" or "LLM" (the class for offline use). `max_model_len` matters to the V0 engine
    only, which runs whole prompts up to 32,768 tokens in one step, and from 0.5.4 on longer ones in chunks.
    GPUs that share the host's memory have no figure in the driver's library, so the engine takes them for
    small ones. Models with images or video take larger batches in some releases, where `profile` says so.
    """
    seqs, tokens = _limits(device, version, max_model_len or 0, offline=entry_point == "LLM")
    if profile is None or not profile.encoders or device.is_cpu:
        return seqs, tokens
    if version.engine == "V0":
        return seqs, max(tokens, version.multimodal_batch_tokens)
    if not (profile.items_in_one_batch and version.raises_batch_for_items):
        return seqs, tokens
    return seqs, max(tokens, *(encoder.max_item_tokens for encoder in profile.encoders))


def _limits(
    device: DeviceMemory, version: EngineVersion, max_model_len: int, *, offline: bool
) -> tuple[int, int]:
    if device.is_cpu:
        return (256, 4096) if offline else (128, 2048)
    if version.engine == "V0":
        in_chunks = max_model_len > _V0_LONG_CONTEXT and version.long_context_tokens
        return 256, in_chunks or max(max_model_len, _V0_TOKENS)
    if shares_host_memory(device.compute_capability):
        return 256, 8192 if offline else 2048
    largest = version.largest_defaults_from_bytes
    if largest is not None and device.total_bytes >= largest:
        return 1024, 16384
    if _is_large(device, version):
        return 1024, 16384 if offline else 8192
    return version.small_num_seqs, 8192 if offline else 2048


def _is_large(device: DeviceMemory, version: EngineVersion) -> bool:
    name = device.name.lower()
    if version.large_defaults_by == "name":
        return "h100" in name or "h200" in name
    excluded = version.small_defaults_on_a100 and "a100" in name
    return device.total_bytes >= _LARGE_FROM and not excluded
