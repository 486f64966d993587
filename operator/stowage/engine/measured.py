"""What the engines report: predicted against measured memory, and utilisation.

Utilisation ticks all the time, so it is written at most once per interval and only when something has moved by a
visible step. What is already published stands until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from stowage.api.conditions import rfc3339
from stowage.engine.serving import Serving
from stowage.world import EngineOptions
from stowage_runtime.contract import EngineFacts, Utilization

_SIMULATED_NOTE = "A stand-in engine answers, not vLLM: its figures are simulated. "


def engine_status(serving: Serving, published: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """`status.engine`: the plan's figures beside those of the tightest replica of that plan.

    What is published stands while replicas serve and their first report has not arrived, as after a restart.
    """
    facts = [item.report.engine for item in serving.current_reports if item.report.engine.kind is not None]
    if not facts:
        return published if _expects_reports(serving) else None
    tightest = min(facts, key=lambda item: (item.kv_cache_tokens is None, item.kv_cache_tokens or 0))
    ledger = serving.target.plan.ledger
    predicted = {
        "kvTokens": ledger.kv_tokens,
        "maxConcurrency": int(ledger.max_concurrency),
        "weightsBytes": ledger.weights_bytes,
        "kvCacheBytes": ledger.kv_cache_bytes,
        "activationsBytes": ledger.activation_bytes,
        "cudaGraphsBytes": ledger.cuda_graph_bytes,
        "nonTorchBytes": ledger.non_torch_bytes,
    }
    status = {
        "kind": tightest.kind,
        "version": tightest.version,
        "replicasReporting": len(facts),
        "blockSize": tightest.block_size,
        "numGpuBlocks": tightest.num_gpu_blocks,
        "predicted": predicted,
        "measured": _measured(tightest),
        "summary": _comparison(tightest, ledger.kv_tokens),
    }
    return {key: value for key, value in status.items() if value is not None}


def _measured(facts: EngineFacts) -> dict[str, Any]:
    concurrency = facts.max_concurrency
    figures = {
        "kvTokens": facts.kv_cache_tokens,
        "maxConcurrency": int(concurrency) if concurrency is not None else None,
        "weightsBytes": facts.weights_bytes,
        "kvCacheBytes": max(0, facts.kv_cache_bytes) if facts.kv_cache_bytes is not None else None,
        "activationsBytes": facts.activation_bytes,
        "cudaGraphsBytes": facts.cuda_graph_bytes,
        "nonTorchBytes": facts.non_torch_bytes,
    }
    return {key: value for key, value in figures.items() if value is not None}


def _comparison(facts: EngineFacts, predicted_tokens: int) -> str | None:
    note = _SIMULATED_NOTE if facts.kind == "simulated" else ""
    measured = facts.kv_cache_tokens
    if measured is None or predicted_tokens <= 0:
        return note.strip() or None
    percent = 100 * (measured - predicted_tokens) / predicted_tokens
    return f"{note}KV cache: {measured:,} tokens measured, {predicted_tokens:,} predicted ({percent:+.1f} %)."


def utilization_status(
    serving: Serving, published: Mapping[str, Any] | None, options: EngineOptions, now: datetime
) -> Mapping[str, Any] | None:
    """`status.utilization`: what is published, or the newest figures when they are due and differ visibly."""
    reports = [item.report.utilization for item in serving.reports if item.report.phase == "Serving"]
    known = [item for item in reports if item is not None]
    if not known:
        return published if _expects_reports(serving) else None
    newest = _aggregate(known)
    if published and not _is_due(published, newest, options, now):
        return published
    return {**newest, "lastUpdateTime": rfc3339(now)}


def _expects_reports(serving: Serving) -> bool:
    return bool(serving.ready) and serving.current and not serving.silent


def _aggregate(items: list[Utilization]) -> dict[str, Any]:
    figures = {
        "kvPercent": round(100 * max(item.kv_usage for item in items)),
        "running": sum(item.running for item in items),
        "waiting": sum(item.waiting for item in items),
        "tokensPerSecond": _total(item.generation_tokens_per_second for item in items),
        "promptTokensPerSecond": _total(item.prompt_tokens_per_second for item in items),
        "ttftMs": _mean_ms(item.ttft_seconds_mean for item in items),
        "tpotMs": _mean_ms(item.tpot_seconds_mean for item in items),
        "replicasReporting": len(items),
    }
    return {key: value for key, value in figures.items() if value is not None}


def _total(values: Iterable[float | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(sum(known)) if known else None


def _mean_ms(values: Iterable[float | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(1000 * sum(known) / len(known)) if known else None


def _is_due(
    published: Mapping[str, Any], newest: Mapping[str, Any], options: EngineOptions, now: datetime
) -> bool:
    """A step of five points (or of five percent of a rate), and a minute since the last write."""
    written = published.get("lastUpdateTime")
    if written:
        age = now - datetime.fromisoformat(str(written).replace("Z", "+00:00"))
        if age < options.status_interval:
            return False
    return any(
        _step(published.get(key), newest.get(key)) >= options.utilization_step
        for key in {*published, *newest} - {"lastUpdateTime"}
    )


def _step(before: Any, after: Any) -> float:
    """Distance in points (percent of the larger value, at least of 100); from or to nothing is a full step."""
    if not isinstance(before, int) or not isinstance(after, int):
        return 0.0 if before == after else 100.0
    if (before == 0) != (after == 0):
        return 100.0
    return 100 * abs(after - before) / max(100, abs(before), abs(after))
