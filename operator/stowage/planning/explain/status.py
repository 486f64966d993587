"""status.plan: a planning result in the published types, at most 8 KiB.

Only translates. What is too long is shortened from the end by the type itself.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from stowage.api.v1alpha1 import PlanBetter, PlanBoundness, PlanCost, PlanFigure, PlanForecast
from stowage.api.v1alpha1.engine import Toggle
from stowage.api.v1alpha1.hardware import HardwareClass
from stowage.api.v1alpha1.plan_status import (
    MAX_REJECTIONS,
    PlanLedger,
    PlanNode,
    PlanParallelism,
    PlanRejection,
    PlanStatus,
)
from stowage.api.v1alpha1.plan_status import Placement as PlacementKind
from stowage.performance.boundness import Bound, Boundness
from stowage.performance.interval import Interval
from stowage.planning.explain.speed import bound_words, traffic_words
from stowage.planning.explain.words import gpus_words, grouped, parallel_words, plan_words, summary
from stowage.planning.placement import growth_words
from stowage.planning.result import Plan, PlanResult
from stowage.planning.search.gain import gain
from stowage.planning.settings import EngineSettings

_MOST_NODES: Final = 8
_MOST_NOTES: Final = 16
_MOST_SHORTFALLS: Final = 4
_MOST_UNMEASURED: Final = 8
_HASH_CHARACTERS: Final = 16
_SETTINGS: Final = (
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "enforce_eager",
)
"""Settings that are published by the engine's own names."""


def status_plan(result: PlanResult) -> dict[str, Any]:
    """Give status.plan: at most 8 KiB, camelCase keys, unset fields left out."""
    rejections = tuple(
        PlanRejection(reason=reason, count=count, example=example)
        for reason, count, example in list(grouped(result.rejections))[:MAX_REJECTIONS]
    )
    if result.plan is None:
        suggestions = tuple(f"Would fit: {change}." for change in result.would_fit)
        shown = PlanStatus(
            summary=summary(result), placement=PlacementKind.IMPOSSIBLE, notes=suggestions[:_MOST_NOTES]
        )
    else:
        shown = _status_of(result.plan, summary(result))
    beside = {
        "rejections": rejections,
        "contender": None if result.contender is None else plan_words(result.contender),
        "better": better_plan(result.plan, result.better) if result.plan and result.better else None,
    }
    return PlanStatus.model_validate({**dict(shown), **beside}).within_limit().to_dict()


def better_plan(old: Plan, new: Plan) -> PlanBetter:
    """Give the published form of what a new plan would bring over the one in force."""
    found, growth = gain(old, new), growth_words(new.placement.node_names)
    return PlanBetter(
        plan=plan_words(new) + (f"; {growth}" if growth else ""),
        brings=found.words,
        cost_percent=found.cost_percent,
        ttft_percent=found.ttft_percent,
        tpot_percent=found.tpot_percent,
        throughput_percent=found.throughput_percent,
    )


def _status_of(plan: Plan, words: str) -> PlanStatus:
    per_node = Counter(plan.placement.node_names)
    nodes = (
        PlanNode(name=name, gpu_product=plan.gpu_product, replicas=count)
        for name, count in sorted(per_node.items())[:_MOST_NODES]
    )
    return PlanStatus(
        summary=words,
        hash=plan.digest()[:_HASH_CHARACTERS],
        model_commit=plan.model_revision or None,
        model_source=plan.model_source,
        engine_version=plan.engine_version,
        hardware_class=HardwareClass(plan.image_class),
        gpu_product=plan.gpu_product,
        gpus_per_replica=plan.gpus_per_replica,
        gpus=gpus_words(plan),
        parallel=parallel_words(plan),
        parallelism=_parallelism(plan.settings),
        precision=plan.precision,
        lossy=plan.lossy,
        **{name: getattr(plan.settings, name) for name in _SETTINGS},
        ledger=_ledger(plan),
        calibrated=plan.calibrated,
        kv_tokens=plan.ledger.kv_tokens,
        max_concurrency=plan.concurrency_served if plan.request_tokens else int(plan.ledger.max_concurrency),
        attention_backend=plan.attention_backend,
        replicas=plan.replicas,
        nodes_per_replica=plan.nodes_per_replica,
        bound=None if plan.forecast is None else bound_words(plan.forecast),
        forecast=_forecast(plan),
        cost=_cost(plan),
        shortfall=plan.shortfall[:_MOST_SHORTFALLS],
        placement=PlacementKind(plan.placement.kind),
        pools=plan.placement.pools[:_MOST_NODES],
        new_nodes=plan.placement.new_nodes or None,
        nodes=tuple(nodes),
        notes=plan.notes[:_MOST_NOTES],
    )


def _parallelism(settings: EngineSettings) -> PlanParallelism:
    return PlanParallelism(
        tensor=settings.tensor_parallel_size,
        pipeline=settings.pipeline_parallel_size,
        data=settings.data_parallel_size,
        expert_parallel=Toggle.ENABLED if settings.enable_expert_parallel else Toggle.DISABLED,
    )


def _ledger(plan: Plan) -> PlanLedger:
    ledger = plan.ledger
    band = max(
        ledger.kv_cache_bytes - ledger.kv_cache_band.low, ledger.kv_cache_band.high - ledger.kv_cache_bytes, 0
    )
    return PlanLedger(
        total=ledger.total_bytes,
        budget=max(0, ledger.budget_bytes),
        weights=ledger.weights_allocated_bytes,
        persistent=ledger.persistent_bytes,
        non_torch=ledger.non_torch_bytes + ledger.in_use_before_bytes,
        activations=ledger.activation_bytes,
        cuda_graphs=ledger.cuda_graph_bytes,
        kv_cache=max(0, ledger.kv_cache_bytes),
        margin=ledger.free_bytes,
        band=band,
    )


def _forecast(plan: Plan) -> PlanForecast | None:
    found, traffic = plan.forecast, plan.traffic
    if found is None or traffic is None:
        return None
    return PlanForecast(
        workload=traffic_words(traffic),
        ttft_seconds=_figure(found.ttft_seconds),
        tpot_seconds=_figure(found.tpot_seconds),
        output_tokens_per_second=_figure(found.output_tokens_per_second),
        requests_per_second=_figure(found.requests_per_second),
        percentile=traffic.percentile,
        ttft_percentile_seconds=_rounded(found.ttft_p95_seconds),
        tpot_percentile_seconds=_rounded(found.tpot_p95_seconds),
        prefill_percent=round(100 * found.prefill_share),
        prefill=_boundness(found.prefill),
        decode=_boundness(found.decode),
        bottleneck=found.bottleneck.sentence,
        answered_by=found.answered_by,
        method=found.method,
        unmeasured=found.unmeasured[:_MOST_UNMEASURED],
    )


def _cost(plan: Plan) -> PlanCost | None:
    if plan.cost_per_hour is None:
        return None
    per_million = plan.cost_per_million_tokens
    return PlanCost(
        unit=plan.cost_unit,
        per_hour=_rounded(plan.cost_per_hour),
        per_million_tokens=None if per_million is None else _rounded(per_million),
        default_price=plan.default_price,
    )


def _boundness(phase: Boundness) -> PlanBoundness:
    shares = {bound: round(100 * share) for bound, share in phase.shares.items()}
    return PlanBoundness(
        bound=phase.bound.value,
        compute=shares.get(Bound.COMPUTE, 0),
        memory_bandwidth=shares.get(Bound.MEMORY_BANDWIDTH, 0),
        kv_capacity=shares.get(Bound.KV_CAPACITY, 0),
        interconnect=shares.get(Bound.INTERCONNECT, 0),
        overhead=shares.get(Bound.OVERHEAD, 0),
    )


def _figure(interval: Interval) -> PlanFigure:
    return PlanFigure(
        value=_rounded(interval.central), low=_rounded(interval.low), high=_rounded(interval.high)
    )


def _rounded(value: float) -> float:
    """Round to four significant figures: no forecast is better, and status stays the same where nothing changed."""
    return float(f"{value:.4g}")
