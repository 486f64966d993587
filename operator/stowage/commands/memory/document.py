"""The ledger for scripts: stable names, GiB rounded to four decimals, for the tightest rank."""

from __future__ import annotations

from typing import Any

from stowage.api.refusal import Refusal
from stowage.commands.memory.question import MemoryQuestion
from stowage.memory.ledger import Ledger
from stowage.memory.remedies import Remedy, crossover, remedies

_GIB = 2**30


def ledger_document(question: MemoryQuestion, entry: Ledger) -> dict[str, Any]:
    """Write the ledger of a shape that the engine accepts; `other_gib` is all but weights, KV, activations, graphs."""
    other = entry.in_use_before_bytes + entry.non_torch_bytes + entry.persistent_bytes
    refusal = entry.refusal
    crossing = crossover(question.shape, entry)
    return {
        "weights_gib": _gib(entry.weights_allocated_bytes),
        "activations_gib": _gib(entry.activation_bytes),
        "cuda_graphs_gib": _gib(entry.cuda_graph_bytes),
        "other_gib": _gib(other),
        "kv_available_gib": _gib(entry.kv_cache_bytes),
        "kv_available_low_gib": _gib(entry.kv_cache_band.low),
        "kv_available_high_gib": _gib(entry.kv_cache_band.high),
        "kv_needed_gib": _gib(entry.kv_needed_bytes),
        "kv_bytes_per_token": entry.kv_bytes_per_token,
        "kv_tokens": entry.kv_tokens,
        "num_gpu_blocks": entry.num_gpu_blocks,
        "block_size": entry.block_size,
        "max_concurrency": round(entry.max_concurrency, 4),
        "largest_max_model_len": entry.largest_max_model_len,
        "safe_max_model_len": entry.safe_max_model_len,
        "total_gib": _gib(entry.total_bytes),
        "budget_gib": _gib(entry.budget_bytes),
        "rank": entry.rank,
        **_asked(question),
        "verdict": entry.verdict,
        "fits": entry.verdict != "DoesNotFit",
        "reason": None if refusal is None else refusal.reason.value,
        "message": entry.caution if refusal is None else refusal.sentence,
        "remedies": [remedy.sentence for remedy in _remedies(question, entry)],
        "kv_outweighs_weights_from_tokens": crossing.tokens if crossing else None,
        "kv_outweighs_weights_from_requests": round(crossing.requests, 4) if crossing else None,
        "notes": list(question.notes),
    }


def _asked(question: MemoryQuestion) -> dict[str, Any]:
    """Give what was asked, with the defaults that it took."""
    shape = question.shape
    return {
        "max_model_len": shape.max_model_len,
        "max_num_seqs": shape.max_num_seqs,
        "max_num_batched_tokens": shape.max_num_batched_tokens,
        "gpu_memory_utilization": shape.gpu_memory_utilization,
        "gpu": question.device.name,
        "engine_version": question.version.version,
    }


def _remedies(question: MemoryQuestion, entry: Ledger) -> tuple[Remedy, ...]:
    if entry.verdict != "DoesNotFit":
        return ()
    return remedies(question.profile, question.shape, question.device, question.version)


def refusal_document(refusal: Refusal) -> dict[str, Any]:
    """Write a refusal in the same form; numbers that do not exist are null."""
    numbers = (
        "weights_gib",
        "activations_gib",
        "cuda_graphs_gib",
        "other_gib",
        "kv_available_gib",
        "kv_tokens",
        "max_concurrency",
    )
    return {
        **dict.fromkeys(numbers),
        "fits": False,
        "reason": refusal.reason.value,
        "message": refusal.sentence,
    }


def _gib(number_of_bytes: int) -> float:
    return round(number_of_bytes / _GIB, 4)
