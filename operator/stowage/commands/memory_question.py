"""From the options of `stowage memory` to a complete question: model, shape, device and release.

What is not stated takes the engine's own default for that device and release, never a value of ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.commands.model_argument import read_model
from stowage.hardware.catalog import find_gpu, nearest_names
from stowage.memory.batch_limits import default_batch_limits
from stowage.memory.device import DeviceMemory
from stowage.memory.engine_version import EngineVersion, engine_version, newest_engine_version
from stowage.memory.shape import EngineShape
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options as given; None where nothing was said."""

    tensor_parallel_size: int
    pipeline_parallel_size: int
    dtype: str
    kv_cache_dtype: str
    gpu_memory_utilization: float | None
    max_model_len: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    enforce_eager: bool
    kv_cache_memory_bytes: int | None
    engine_version: str | None
    total_memory_gib: float | None
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryQuestion:
    """What the ledger is asked."""

    profile: ModelProfile
    shape: EngineShape
    device: DeviceMemory
    version: EngineVersion

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know about the answer: assumptions and oddities."""
        version = (self.version.note,) if self.version.note else ()
        return self.profile.notes + version


def read_question(model: str, revision: str | None, gpu: str, wishes: Wishes) -> MemoryQuestion | Refusal:
    """Complete the question, or refuse it."""
    version = engine_version(wishes.engine_version or newest_engine_version())
    device = _device(gpu, wishes.total_memory_gib)
    if isinstance(version, Refusal):
        return version
    if isinstance(device, Refusal):
        return device
    summary = read_model(model, revision)
    profile = summary if isinstance(summary, Refusal) else read_profile(summary)
    if isinstance(profile, Refusal):
        return profile
    return MemoryQuestion(profile, _shape(profile, device, version, wishes), device, version)


def _device(name: str, total_memory_gib: float | None) -> DeviceMemory | Refusal:
    if total_memory_gib is not None and not 0 < total_memory_gib < math.inf:
        message = f"--total-memory-gib is {total_memory_gib:g}; it must be above 0."
        return Refusal(Reason.INVALID_SPEC, message)
    given = None if total_memory_gib is None else int(total_memory_gib * _GIB)
    if name.upper() == "CPU":
        if given is None:
            message = "The memory of a CPU node is not known."
            return Refusal(Reason.INVALID_SPEC, message, "State it as --total-memory-gib.")
        return DeviceMemory("CPU", given, (0, 0), "CPU")
    gpu = find_gpu(name)
    if gpu is None:
        hint = f"Known names near to it: {', '.join(nearest_names(name))}."
        return Refusal(Reason.UNKNOWN_GPU, f"The catalog has no GPU {name!r}.", hint)
    if gpu.vendor != "NVIDIA":
        message = f"GPUs of {gpu.vendor} are not sized by this version."
        return Refusal(Reason.UNSUPPORTED_GPU, message, "Use an NVIDIA GPU.")
    return DeviceMemory(gpu.name, given or gpu.cuda_total_bytes, gpu.compute_capability)


def _shape(
    profile: ModelProfile, device: DeviceMemory, version: EngineVersion, wishes: Wishes
) -> EngineShape:
    default_seqs, default_tokens = default_batch_limits(device, version)
    length = _stated(wishes.max_model_len, profile.default_max_model_len)
    seqs = _stated(wishes.max_num_seqs, default_seqs)
    tokens = _stated(wishes.max_num_batched_tokens, min(default_tokens, seqs * length))
    return EngineShape(
        tensor_parallel_size=wishes.tensor_parallel_size,
        pipeline_parallel_size=wishes.pipeline_parallel_size,
        dtype=wishes.dtype,
        kv_cache_dtype=wishes.kv_cache_dtype,
        gpu_memory_utilization=(
            version.default_gpu_memory_utilization
            if wishes.gpu_memory_utilization is None
            else wishes.gpu_memory_utilization
        ),
        max_model_len=length,
        max_num_seqs=seqs if wishes.max_num_seqs is not None else min(seqs, tokens),
        max_num_batched_tokens=tokens,
        enforce_eager=wishes.enforce_eager,
        kv_cache_memory_bytes=wishes.kv_cache_memory_bytes,
        data_parallel_size=wishes.data_parallel_size,
        enable_expert_parallel=wishes.enable_expert_parallel,
        quantization=wishes.quantization,
    )


def _stated(value: int | None, default: int) -> int:
    return default if value is None else value
