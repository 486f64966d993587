"""The engine settings that a plan decides: exactly what is passed to vLLM, under vLLM's own names."""

from __future__ import annotations

from dataclasses import dataclass

from stowage.memory.shape import EngineShape


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What is passed to vLLM.

    `gpu_memory_utilization` is None on the CPU class, where the KV cache's bytes are always pinned instead.
    `max_num_seqs` and `max_num_batched_tokens` hold for each data-parallel rank. `quantization` asks the engine to
    quantise a plain checkpoint while it loads it.
    """

    tensor_parallel_size: int
    pipeline_parallel_size: int
    dtype: str
    kv_cache_dtype: str
    gpu_memory_utilization: float | None
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    enforce_eager: bool
    kv_cache_memory_bytes: int | None = None
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    quantization: str | None = None

    @property
    def world_size(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size

    def shape(self, default_utilization: float) -> EngineShape:
        """Give the shape that the memory model computes; `default_utilization` where none is passed."""
        utilization = self.gpu_memory_utilization
        return EngineShape(
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            dtype=self.dtype,
            kv_cache_dtype=self.kv_cache_dtype,
            gpu_memory_utilization=default_utilization if utilization is None else utilization,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            enforce_eager=self.enforce_eager,
            kv_cache_memory_bytes=self.kv_cache_memory_bytes,
            data_parallel_size=self.data_parallel_size,
            enable_expert_parallel=self.enable_expert_parallel,
            quantization=self.quantization,
        )
