"""One question to the ledger: model, engine settings, device and release."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from stowage.memory.device import DeviceMemory
from stowage.memory.engine_version import EngineVersion
from stowage.memory.kv_cache import CPU_BLOCK_SIZE, GPU_BLOCK_SIZE, kv_element_bytes
from stowage.memory.shape import EngineShape
from stowage.model.dtype import ELEMENT_BYTES, element_type
from stowage.model.profile import ModelProfile


@dataclass(frozen=True)
class Setting:
    """The four inputs of a ledger; the shape has passed `constraints.check_shape`."""

    profile: ModelProfile
    shape: EngineShape
    device: DeviceMemory
    version: EngineVersion

    @cached_property
    def runner(self) -> str:
        """The model runner that serves this model here; the CPU backend has no Triton and stays on V1."""
        return "V1" if self.device.is_cpu else self.version.runner_for(self.profile.architecture)

    @cached_property
    def dtype(self) -> str:
        """What the model runs in: the asked dtype, else its own (float16 where there is no bfloat16)."""
        asked = element_type(self.shape.dtype)
        if asked is not None:
            return asked
        lacks_bf16 = not self.device.is_cpu and self.device.compute_capability < (8, 0)
        return "float16" if lacks_bf16 and self.profile.dtype == "bfloat16" else self.profile.dtype

    @cached_property
    def element_bytes(self) -> int:
        """Bytes of one weight or activation element."""
        return ELEMENT_BYTES[self.dtype]

    @cached_property
    def kv_element_bytes(self) -> int | None:
        """Bytes of one cached element; None for a KV dtype that is not sized."""
        return kv_element_bytes(self.shape.kv_cache_dtype, self.dtype)

    @cached_property
    def block_size(self) -> int:
        """Tokens of one KV block."""
        return CPU_BLOCK_SIZE if self.device.is_cpu else GPU_BLOCK_SIZE

    @cached_property
    def window_tokens_in_flight(self) -> int:
        """Tokens scheduled and not yet settled, which windowed layers keep besides their window."""
        if self.version.window_batches_in_flight == "one":
            return self.shape.max_num_batched_tokens
        return self._batches_in_flight * self.shape.max_num_batched_tokens

    @property
    def _batches_in_flight(self) -> int:
        stages = self.shape.pipeline_parallel_size
        if self.device.is_cpu:
            return stages
        if self.runner == "V2":
            return stages + 1
        return max(2, stages)
