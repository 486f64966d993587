"""Puts the engine's own figures together, from its log and from its metrics.

The metrics are exact and win where both have a figure; memory is only in the log. Pure. What neither says
stays None.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from stowage_runtime.contract import EngineFacts
from stowage_runtime.prometheus_text import Exposition

_CACHE_INFO = "vllm:cache_config_info"
_FROM_LOG = (
    "block_size",
    "num_gpu_blocks",
    "kv_cache_tokens",
    "weights_bytes",
    "kv_cache_bytes",
    "activation_bytes",
    "cuda_graph_bytes",
    "cuda_graph_estimate_bytes",
    "non_torch_bytes",
)
_MAY_BE_NEGATIVE = ("kv_cache_bytes",)


def facts_from_log(figures: Mapping[str, float], lines_seen: tuple[str, ...]) -> EngineFacts:
    """Take what the log lines said; ``figures`` as EngineLog gives them."""
    known: dict[str, Any] = {}
    for name in _FROM_LOG:
        if name in figures:
            value = round(figures[name])
            known[name] = value if name in _MAY_BE_NEGATIVE else max(0, value)
    return EngineFacts(max_concurrency=figures.get("max_concurrency"), log_lines_seen=lines_seen, **known)


def with_metrics(facts: EngineFacts, exposition: Exposition) -> EngineFacts:
    """Let the labels of vLLM's cache configuration replace and complete what the log said.

    Every data-parallel engine has its own: blocks, tokens and concurrency add up, a block's size is the same.
    """
    engines = [sample.labels for sample in exposition.samples(_CACHE_INFO)]
    blocks = _sum(engines, "num_gpu_blocks")
    block_size = _first(engines, "block_size")
    tokens = _sum(engines, "kv_cache_size_tokens")
    if tokens is None and blocks is not None and block_size is not None:
        tokens = blocks * block_size
    found: dict[str, Any] = {
        "num_gpu_blocks": _whole(blocks),
        "block_size": _whole(block_size),
        "kv_cache_tokens": _whole(tokens),
        "max_concurrency": _sum(engines, "kv_cache_max_concurrency"),
    }
    if facts.kv_cache_bytes is None:
        # Pinned KV bytes are not printed as available memory: they are the configuration.
        found["kv_cache_bytes"] = _whole(_first(engines, "kv_cache_memory_bytes"))
    return dataclasses.replace(facts, **{key: value for key, value in found.items() if value is not None})


def _number(labels: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(labels[name])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _sum(engines: list[Mapping[str, str]], name: str) -> float | None:
    values = [value for labels in engines if (value := _number(labels, name)) is not None]
    return math.fsum(values) if values else None


def _first(engines: list[Mapping[str, str]], name: str) -> float | None:
    return next((value for labels in engines if (value := _number(labels, name)) is not None), None)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
