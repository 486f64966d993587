"""A planning result in words: for the terminal, for status.plan, and whole as JSON.

Pure strings and plain values. Every figure comes from the result; nothing is computed here that planning did not
compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

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
from stowage.planning.plain import to_plain
from stowage.planning.result import Plan, PlanResult, Rejection

_MOST_NODES: Final = 8
_MOST_NOTES: Final = 16
_HASH_CHARACTERS: Final = 16


def summary(result: PlanResult) -> str:
    """Say the result in one sentence."""
    if result.plan is None:
        return result.refusal.sentence if result.refusal is not None else "Nothing fits."
    plan, settings = result.plan, result.plan.settings
    return (
        f"{shape_words(plan)}, {plan.precision}, {settings.max_model_len:,} tokens of context, "
        f"{plan.concurrency_served:,} requests of {plan.request_tokens:,} tokens at once."
    )


def shape_words(plan: Plan) -> str:
    """Name the shape, as in `4x NVIDIA-L40S (tp4)`."""
    if plan.gpu_product is None:
        return "CPU"
    return f"{gpus_words(plan)} ({parallel_words(plan)})"


def gpus_words(plan: Plan) -> str:
    """Name the GPUs of one replica, as in `4x NVIDIA-L40S`; `CPU` without GPUs."""
    return "CPU" if plan.gpu_product is None else f"{plan.gpus_per_replica}x {plan.gpu_product}"


def parallel_words(plan: Plan) -> str:
    """Name the parallelism, as in `tp4` or `tp4 pp2`."""
    stages = plan.settings.pipeline_parallel_size
    return f"tp{plan.settings.tensor_parallel_size}" + (f" pp{stages}" if stages > 1 else "")


def grouped(rejections: Iterable[Rejection]) -> Iterator[tuple[str, int, str]]:
    """Group rejections by reason, the most frequent first: reason, count, one example in words."""
    found: dict[str, list[Rejection]] = {}
    for each in rejections:
        found.setdefault(each.reason.value, []).append(each)
    for reason, members in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        yield reason, len(members), f"{members[-1].candidate}: {members[-1].message}"


def status_plan(result: PlanResult) -> dict[str, Any]:
    """Give status.plan: at most 8 KiB, camelCase keys, unset fields left out."""
    rejections = tuple(
        PlanRejection(reason=reason, count=count, example=example)
        for reason, count, example in list(grouped(result.rejections))[:MAX_REJECTIONS]
    )
    if result.plan is None:
        suggestions = tuple(f"Would fit: {change}." for change in result.would_fit)
        shown = PlanStatus(
            summary=summary(result),
            placement=PlacementKind.IMPOSSIBLE,
            notes=suggestions[:_MOST_NOTES],
            rejections=rejections,
        )
    else:
        shown = _status_of(result.plan, summary(result)).model_copy(update={"rejections": rejections})
    return shown.within_limit().to_dict()


def result_document(result: PlanResult) -> dict[str, Any]:
    """Give the whole result as plain values, for machines."""
    refusal = result.refusal
    return {
        "fits": result.plan is not None,
        "summary": summary(result),
        "reason": None if refusal is None else refusal.reason.value,
        "message": None if refusal is None else refusal.sentence,
        "plan": None if result.plan is None else to_plain(result.plan),
        "statusPlan": status_plan(result),
        "rejections": to_plain(result.rejections),
        "alternatives": to_plain(result.alternatives),
        "wouldFit": list(result.would_fit),
    }


def _status_of(plan: Plan, words: str) -> PlanStatus:
    settings, stated = plan.settings, plan.request_tokens
    per_node = Counter(plan.placement.node_names)
    nodes = (
        PlanNode(name=name, gpu_product=plan.gpu_product, replicas=count)
        for name, count in sorted(per_node.items())[:_MOST_NODES]
    )
    return PlanStatus(
        summary=words,
        hash=plan.digest()[:_HASH_CHARACTERS],
        model_commit=plan.model_revision or None,
        engine_version=plan.engine_version,
        hardware_class=HardwareClass(plan.image_class),
        gpu_product=plan.gpu_product,
        gpus_per_replica=plan.gpus_per_replica,
        gpus=gpus_words(plan),
        parallel=parallel_words(plan),
        parallelism=PlanParallelism(
            tensor=settings.tensor_parallel_size, pipeline=settings.pipeline_parallel_size
        ),
        precision=plan.precision,
        dtype=settings.dtype,
        kv_cache_dtype=settings.kv_cache_dtype,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        kv_cache_memory_bytes=settings.kv_cache_memory_bytes,
        enforce_eager=settings.enforce_eager,
        ledger=_status_ledger(plan),
        kv_tokens=plan.ledger.kv_tokens,
        max_concurrency=plan.concurrency_served if stated else int(plan.ledger.max_concurrency),
        placement=PlacementKind(plan.placement.kind),
        nodes=tuple(nodes),
        notes=plan.notes[:_MOST_NOTES],
    )


def _status_ledger(plan: Plan) -> PlanLedger:
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
