"""The engine settings that decide memory, under vLLM's own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Final

from stowage.model.profile import ModelProfile


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Slots for adapters: how many are loaded at once, and the largest rank of one."""

    max_loras: int = 1
    max_lora_rank: int = 16


@dataclass(frozen=True, slots=True)
class SpeculativeSettings:
    """Speculative decoding. `method` is the engine's name ("mtp", "eagle3", "draft_model", "ngram" …).

    `draft` is the model that guesses; None where the checkpoint's own draft layers do, or none is needed.
    """

    method: str
    num_speculative_tokens: int
    draft: ModelProfile | None = None


@dataclass(frozen=True, slots=True)
class EngineShape:
    """What is passed to the engine. `dtype` and `kv_cache_dtype` may be "auto"; lengths are in tokens.

    With `kv_cache_memory_bytes` the KV cache has exactly that size on every rank, and
    `gpu_memory_utilization` only decides the check at start. `block_size` None: the attention backend's
    choice. `quantization` asks for quantising a plain checkpoint while it is loaded, by the engine's name of
    the method. `language_model_only` and a limit of 0 leave an encoder unprofiled. `enable_prefix_caching`
    False turns it off; True is what the engine does by default, which is off for hybrids before 0.26.
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
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    decode_context_parallel_size: int = 1
    block_size: int | None = None
    quantization: str | None = None
    enable_prefix_caching: bool = True
    language_model_only: bool = False
    limit_mm_per_prompt: tuple[tuple[str, int], ...] = ()
    cudagraph_capture_sizes: tuple[int, ...] | None = None
    lora: LoraSettings | None = None
    speculative: SpeculativeSettings | None = None
    disable_hybrid_kv_cache_manager: bool = False

    @property
    def world_size(self) -> int:
        """Number of ranks of one replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size

    def without_limits(self) -> EngineShape:
        """Give the shape with the least of every limit: what planners vary while all else stays."""
        return replace(self, **_LEAST)

    @property
    def beside_limits(self) -> tuple[Any, ...]:
        """All fields but the limits: the same for two shapes exactly where `without_limits` is."""
        return _beside_limits(self)


_LEAST: Final[Mapping[str, Any]] = {
    "gpu_memory_utilization": 1.0,
    "max_model_len": 1,
    "max_num_seqs": 1,
    "max_num_batched_tokens": 1,
    "kv_cache_memory_bytes": None,
}
_beside_limits: Final = attrgetter(*(each.name for each in fields(EngineShape) if each.name not in _LEAST))
