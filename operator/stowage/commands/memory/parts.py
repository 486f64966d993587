"""The parts of a rank's memory that bars and pictures show: the same six everywhere, in the same order."""

from __future__ import annotations

from stowage.memory.ledger import Ledger


def memory_parts(entry: Ledger) -> dict[str, int]:
    """Give bytes by part; `other` is all that is neither named nor free, and nothing is negative."""
    return {
        "weights": entry.weights_allocated_bytes,
        "KV cache": max(0, entry.kv_cache_bytes),
        "activations": entry.activation_bytes,
        "CUDA graphs": entry.cuda_graph_bytes,
        "other": entry.in_use_before_bytes + entry.non_torch_bytes + entry.persistent_bytes,
        "free": max(0, entry.free_bytes),
    }
