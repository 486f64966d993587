"""What a replica's container asks of its node besides GPUs: CPU, host memory and shared memory.

GPU class: one process per GPU plus the API server and the engine core, each a busy loop with its own
Python, PyTorch and (for workers) CUDA context. Weights are read through the page cache, which the kernel
takes back under pressure, so they are not part of the request. CPU class: weights and KV cache live in host
memory and are requested whole. What spec.runtime.resources states wins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.hardware.resources import Resources, parse_resources

_GIB: Final = 2**30
# vLLM's documentation asks for 2 + N cores to run at full speed; requests are what must never be missing.
_CPU_MILLICORES_BASE: Final = 1_000
_CPU_MILLICORES_PER_GPU: Final = 1_000
# Resident memory of API server and engine core, and of one worker with its CUDA context and pinned buffers.
_HOST_BYTES_BASE: Final = 4 * _GIB
_HOST_BYTES_PER_GPU: Final = 4 * _GIB
# NCCL and the workers' message queues live in /dev/shm.
_SHM_BYTES_PER_GPU: Final = 2 * _GIB
_CPU_CLASS_MILLICORES: Final = 1_000
_CPU_CLASS_SHM_BYTES: Final = _GIB


@dataclass(frozen=True, slots=True)
class ContainerNeeds:
    """Requests of the engine's container (one pod slot included) and the size of its /dev/shm in bytes."""

    requests: Resources
    shm_bytes: int


def gpu_needs(gpus: int, resource_name: str, spec: LLMDeploymentSpec) -> ContainerNeeds:
    """Size the container of a replica with `gpus` GPUs."""
    derived = Resources(
        cpu_millicores=_CPU_MILLICORES_BASE + gpus * _CPU_MILLICORES_PER_GPU,
        memory_bytes=_HOST_BYTES_BASE + gpus * _HOST_BYTES_PER_GPU,
        pods=1,
        extended={resource_name: gpus},
    )
    return ContainerNeeds(_with_stated(derived, spec), gpus * _SHM_BYTES_PER_GPU)


def cpu_needs(resident_bytes: int, spec: LLMDeploymentSpec) -> ContainerNeeds:
    """Size the container of a CPU replica whose processes hold `resident_bytes`: weights, KV cache and the rest."""
    derived = Resources(cpu_millicores=_CPU_CLASS_MILLICORES, memory_bytes=resident_bytes, pods=1)
    return ContainerNeeds(_with_stated(derived, spec), _CPU_CLASS_SHM_BYTES)


def limit_below(needed_bytes: int, spec: LLMDeploymentSpec) -> Refusal | None:
    """Refuse a memory limit that is below what the engine is certain to use."""
    limit = parse_resources(spec.runtime.resources.limits).memory_bytes
    if not limit or limit >= needed_bytes:
        return None
    return Refusal(
        Reason.PIN_CONFLICT,
        f"spec.runtime.resources.limits.memory is {spec.runtime.resources.limits['memory']}, but the engine "
        f"needs {needed_bytes / _GIB:.1f} GiB.",
        "Raise or remove the limit.",
    )


def _with_stated(derived: Resources, spec: LLMDeploymentSpec) -> Resources:
    """Replace derived amounts by stated requests, and keep them at or below stated limits."""
    stated = parse_resources(spec.runtime.resources.requests)
    limits = parse_resources(spec.runtime.resources.limits)
    return replace(
        derived,
        cpu_millicores=_choose(derived.cpu_millicores, stated.cpu_millicores, limits.cpu_millicores),
        memory_bytes=_choose(derived.memory_bytes, stated.memory_bytes, limits.memory_bytes),
        extended={**derived.extended, **stated.extended},
    )


def _choose(derived: int, stated: int, limit: int) -> int:
    if stated:
        return stated
    return min(derived, limit) if limit else derived
