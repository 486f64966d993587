"""The documented reasons with which the agent may end a container.

They reach users through the termination message and ``status.conditions``, so they are API: reasons are
added, never renamed, and nothing outside this table may be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TERMINATION_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "InvalidLaunchSpec": "The launch configuration could not be read, or vLLM refused its arguments.",
        "InvalidPrompts": "The prompts of an accuracy check could not be read or used.",
        "GPUCountMismatch": "The container sees another number of GPUs than the plan asked for.",
        "GPUMemoryTooSmall": "A GPU has less memory than the plan was made for.",
        "GPUTypeMismatch": "A GPU is of another product or compute capability than the plan was made for.",
        "DriverUnavailable": "The NVIDIA driver cannot be used from the container.",
        "EngineMissing": "The image has no vLLM that its python3 can import.",
        "EngineVersionMismatch": "The image has another vLLM version than the memory model was chosen for.",
        "ModelFetchFailed": "The model could not be fetched or read, for a reason that no other entry names.",
        "ModelAccessDenied": "The Hub refused access (401, 403): no token, or not one with the right.",
        "ModelNotFound": "The Hub or the volume has no such model, revision or file.",
        "HubUnreachable": "The Hub could not be reached over the network.",
        "HubRateLimited": "The Hub kept answering 429 or 5xx until the start-up budget was used up.",
        "DiskFull": "A volume of the pod is full.",
        "FreeMemoryBelowUtilization": "Less GPU memory was free than gpu_memory_utilization asks for.",
        "CUDAOutOfMemory": "The engine ran out of GPU memory.",
        "KVCacheTooSmall": "The memory left for KV cache does not hold one request of the maximum length.",
        "StartupTimeout": "The engine was not serving when the start-up budget ended.",
        "SelfTestFailed": "The engine says that it is healthy but did not answer the agent's own completion.",
        "EngineExited": "The engine ended by itself, for a reason that no other entry names.",
    }
)
"""Reason to meaning; the key set is closed."""
