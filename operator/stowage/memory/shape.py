"""The engine settings that decide memory, under vLLM's own names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineShape:
    """What is passed to the engine. `dtype` and `kv_cache_dtype` may be "auto"; lengths are in tokens.

    With `kv_cache_memory_bytes` the KV cache has exactly that size on every rank, and
    `gpu_memory_utilization` only decides the check at start.
    """

    tensor_parallel_size: int
    pipeline_parallel_size: int
    dtype: str
    kv_cache_dtype: str
    gpu_memory_utilization: float
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    enforce_eager: bool
    kv_cache_memory_bytes: int | None

    @property
    def world_size(self) -> int:
        """Number of ranks of one replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size
