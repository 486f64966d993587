"""The ledger as JSON, for scripts: stable names, GiB rounded to four decimals, for the tightest rank."""

from __future__ import annotations

import json
from typing import Any

from stowage.api.refusal import Refusal
from stowage.commands.memory_question import MemoryQuestion
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
        "max_model_len": question.shape.max_model_len,
        "largest_max_model_len": entry.largest_max_model_len,
        "safe_max_model_len": entry.safe_max_model_len,
        "max_num_seqs": question.shape.max_num_seqs,
        "max_num_batched_tokens": question.shape.max_num_batched_tokens,
        "gpu_memory_utilization": question.shape.gpu_memory_utilization,
        "total_gib": _gib(entry.total_bytes),
        "budget_gib": _gib(entry.budget_bytes),
        "rank": entry.rank,
        "gpu": question.device.name,
        "engine_version": question.version.version,
        "verdict": entry.verdict,
        "fits": entry.verdict != "DoesNotFit",
        "reason": None if refusal is None else refusal.reason.value,
        "message": entry.caution if refusal is None else refusal.sentence,
        "remedies": [remedy.sentence for remedy in _remedies(question, entry)],
        "kv_outweighs_weights_from_tokens": crossing.tokens if crossing else None,
        "notes": list(question.notes),
    }


def _remedies(question: MemoryQuestion, entry: Ledger) -> tuple[Remedy, ...]:
    if entry.verdict != "DoesNotFit":
        return ()
    return remedies(question.profile, question.shape, question.device, question.version)


def refusal_document(refusal: Refusal) -> str:
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
    document: dict[str, Any] = {
        **dict.fromkeys(numbers),
        "fits": False,
        "reason": refusal.reason.value,
        "message": refusal.sentence,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _gib(number_of_bytes: int) -> float:
    return round(number_of_bytes / _GIB, 4)
