"""From the options of `stowage memory` to a complete question: model, shape, device and release.

What is not stated takes the engine's own default for that device and release, never a value of ours.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.commands.memory.options import MemoryOptions
from stowage.commands.model_argument import read_model
from stowage.hardware.catalog import find_gpu, nearest_names
from stowage.memory.device import DeviceMemory
from stowage.memory.release.batch_limits import default_batch_limits
from stowage.memory.release.engine_version import EngineVersion, engine_version, newest_engine_version
from stowage.memory.shape import EngineShape
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage.planning.search.candidate import split_words

_GIB: Final = 2**30
_CAPABILITY: Final = re.compile(r"([1-9]\d?)\.(\d)")
_COUNTS: Final = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "kv_cache_memory_bytes",
)


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

    @property
    def split(self) -> str:
        """How the model is divided, as in `tp4` or `tp2 pp2`."""
        shape = self.shape
        return split_words(
            shape.tensor_parallel_size,
            shape.pipeline_parallel_size,
            shape.data_parallel_size,
            expert_parallel=shape.enable_expert_parallel,
        )

    @property
    def title(self) -> str:
        """The question in one line."""
        where = f"{self.shape.world_size}x {self.device.name} ({self.split})"
        return f"{self.profile.source} on {where}, vLLM {self.version.version}"


def read_question(options: MemoryOptions) -> MemoryQuestion | Refusal:
    """Read the model and complete the question, or refuse it."""
    refusal = _out_of_range(options)
    if refusal is not None:
        return refusal
    device = _device(options)
    if isinstance(device, Refusal):
        return device
    summary = read_model(options.model, options.revision)
    profile = summary if isinstance(summary, Refusal) else read_profile(summary)
    return profile if isinstance(profile, Refusal) else complete(profile, options)


def complete(profile: ModelProfile, options: MemoryOptions) -> MemoryQuestion | Refusal:
    """Complete the question about a model that is read already."""
    refusal = _out_of_range(options)
    if refusal is not None:
        return refusal
    version = engine_version(options.engine_version or newest_engine_version())
    device = _device(options)
    if isinstance(version, Refusal):
        return version
    if isinstance(device, Refusal):
        return device
    return MemoryQuestion(profile, _shape(profile, device, version, options), device, version)


def _out_of_range(options: MemoryOptions) -> Refusal | None:
    for name in _COUNTS:
        value = getattr(options, name)
        if value is not None and value < 1:
            message = f"--{name.replace('_', '-')} is {value}; it must be at least 1."
            return Refusal(Reason.INVALID_SPEC, message)
    memory = options.total_memory_gib
    if memory is not None and not 0 < memory < math.inf:
        message = f"--total-memory-gib is {memory:g}; it must be above 0."
        return Refusal(Reason.INVALID_SPEC, message)
    return None


def _device(options: MemoryOptions) -> DeviceMemory | Refusal:
    name, memory = options.gpu, options.total_memory_gib
    given = None if memory is None else int(memory * _GIB)
    if name.upper() == "CPU":
        if given is None:
            message = "The memory of a CPU node is not known."
            return Refusal(Reason.INVALID_SPEC, message, "State it as --total-memory-gib.")
        return DeviceMemory("CPU", given, (0, 0), "CPU")
    gpu = find_gpu(name)
    if gpu is None:
        return _unlisted(name, given, options.compute_capability)
    if gpu.vendor != "NVIDIA":
        message = f"GPUs of {gpu.vendor} are not sized by this version."
        return Refusal(Reason.UNSUPPORTED_GPU, message, "Use an NVIDIA GPU.")
    return DeviceMemory.of_gpu(gpu, given)


def _unlisted(name: str, total_bytes: int | None, capability: str | None) -> DeviceMemory | Refusal:
    """Take a GPU that the catalog does not have by what is said of it."""
    if total_bytes is None or capability is None:
        near = ", ".join(nearest_names(name))
        meant = f"Did you mean {near}? " if near else ""
        hint = f"{meant}For a GPU of your own state --total-memory-gib and --compute-capability."
        return Refusal(Reason.UNKNOWN_GPU, f"The catalog has no GPU {name!r}.", hint)
    match = _CAPABILITY.fullmatch(capability)
    if match is None:
        message = f"--compute-capability is {capability!r}; write it as NVIDIA does, like 9.0 or 12.0."
        return Refusal(Reason.INVALID_SPEC, message)
    return DeviceMemory(name, total_bytes, (int(match[1]), int(match[2])))


def _shape(
    profile: ModelProfile, device: DeviceMemory, version: EngineVersion, options: MemoryOptions
) -> EngineShape:
    length = _stated(options.max_model_len, profile.default_max_model_len)
    default_seqs, default_tokens = default_batch_limits(device, version, length, profile=profile)
    seqs = _stated(options.max_num_seqs, default_seqs)
    tokens = _stated(options.max_num_batched_tokens, min(default_tokens, seqs * length))
    default_share = version.default_gpu_memory_utilization
    share = options.gpu_memory_utilization
    return EngineShape(
        tensor_parallel_size=options.tensor_parallel_size,
        pipeline_parallel_size=options.pipeline_parallel_size,
        dtype=options.dtype,
        kv_cache_dtype=options.kv_cache_dtype,
        gpu_memory_utilization=default_share if share is None else share,
        max_model_len=length,
        max_num_seqs=seqs if options.max_num_seqs is not None else min(seqs, tokens),
        max_num_batched_tokens=tokens,
        enforce_eager=options.enforce_eager,
        kv_cache_memory_bytes=options.kv_cache_memory_bytes,
        data_parallel_size=options.data_parallel_size,
        enable_expert_parallel=options.enable_expert_parallel,
        quantization=options.quantization,
    )


def _stated(value: int | None, default: int) -> int:
    return default if value is None else value
