"""The ledger: where each byte of one rank goes, and the verdict that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stowage.api.refusal import Refusal
from stowage.memory.band import Band

Verdict = Literal["Fits", "Tight", "DoesNotFit"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Memory of one rank in bytes, and what the KV cache makes of its share.

    Budget equation of the release: `weights_allocated + persistent + non_torch + activation + kv_cache` (+
    `in_use_before` where `in_use_before_counted`, + `cuda_graph` where `cuda_graphs_counted`) = `budget`,
    unless the KV bytes are pinned. `budget` = utilisation × total. `kv_cache_bytes` may be negative: that
    much is missing. `weights_bytes` are bare tensors; `weights_allocated_bytes` is what the engine logs.
    `persistent_bytes` includes allocator slack where the release counts whole segments.

    `kv_tokens` and `max_concurrency` (requests of max_model_len) are as this release prints them, on the
    rank with the fewest blocks. `largest_max_model_len` is the longest context of which one request fits by
    the central estimate, `safe_max_model_len` by the lower end of the band; None where not even one block
    fits. `refusal` says why, where the verdict is DoesNotFit; `caution` is a sentence where it is Tight.
    `host_memory_bytes` is the resident memory of the engine on a CPU node, 0 on GPUs. `buffers_are_consumed`: the
    log counts persistent buffers with what lies outside torch, not with activations.
    """

    rank: str
    total_bytes: int
    budget_bytes: int
    in_use_before_bytes: int
    weights_bytes: int
    weights_allocated_bytes: int
    persistent_bytes: int
    non_torch_bytes: int
    activation_bytes: int
    cuda_graph_bytes: int
    kv_cache_bytes: int
    kv_cache_band: Band
    block_size: int
    num_gpu_blocks: int
    kv_tokens: int
    kv_bytes_per_token: int
    max_concurrency: float
    verdict: Verdict
    refusal: Refusal | None
    largest_max_model_len: int | None
    safe_max_model_len: int | None
    kv_needed_bytes: int
    kv_cache_pinned: bool
    cuda_graphs_counted: bool
    in_use_before_counted: bool
    caution: str | None = None
    host_memory_bytes: int = 0
    buffers_are_consumed: bool = False

    @property
    def used_bytes(self) -> int:
        """Everything the device holds when the server is up, KV cache included."""
        kv = max(0, self.kv_cache_bytes)
        return self.overhead_bytes + self.weights_allocated_bytes + kv

    @property
    def overhead_bytes(self) -> int:
        """What is neither weights nor KV cache."""
        outside = self.in_use_before_bytes + self.non_torch_bytes
        return outside + self.persistent_bytes + self.activation_bytes + self.cuda_graph_bytes

    @property
    def free_bytes(self) -> int:
        """What stays unused on the device; negative where it does not fit."""
        return self.total_bytes - self.used_bytes
