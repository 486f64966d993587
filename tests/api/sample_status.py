"""A status with every part filled in."""

from __future__ import annotations

from datetime import UTC, datetime

from stowage.api.conditions import Condition, ConditionType, Reason, condition, merge_conditions, summarize
from stowage.api.v1alpha1 import (
    EngineFigures,
    EngineKind,
    EngineStatus,
    HardwareClass,
    LLMDeploymentStatus,
    Placement,
    PlanLedger,
    PlanNode,
    PlanParallelism,
    PlanRejection,
    PlanStatus,
    ScalingStatus,
    UtilizationStatus,
)

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
GIB = 1 << 30


def serving_conditions(generation: int = 1) -> tuple[Condition, ...]:
    rows = (
        (ConditionType.ACCEPTED, True, Reason.VALID),
        (ConditionType.PLANNED, True, Reason.FITS),
        (ConditionType.PROGRESSING, False, Reason.COMPLETE),
        (ConditionType.AVAILABLE, True, Reason.MINIMUM_REPLICAS_AVAILABLE),
        (ConditionType.ABLE_TO_SCALE, True, Reason.READY_FOR_NEW_SCALE),
        (ConditionType.SCALING_ACTIVE, False, Reason.SCALED_EXTERNALLY),
        (ConditionType.DEGRADED, False, Reason.AS_EXPECTED),
    )
    entries = tuple(
        condition(kind, status, reason, f"{reason}.", generation=generation, now=NOW)
        for kind, status, reason in rows
    )
    message = "2 replicas are serving."
    return merge_conditions(
        entries, (summarize(entries, generation=generation, now=NOW, serving_message=message),)
    )


def full_plan() -> PlanStatus:
    return PlanStatus(
        summary="4 × NVIDIA-H100-80GB-HBM3 per replica, tensor parallel 4, bf16.",
        hash="0123456789",
        model_commit="a" * 40,
        engine_version="0.32.0",
        hardware_class=HardwareClass.GPU,
        gpu_product="NVIDIA-H100-80GB-HBM3",
        gpus_per_replica=4,
        gpus="4x NVIDIA-H100-80GB-HBM3",
        parallel="tp4",
        parallelism=PlanParallelism(tensor=4),
        precision="bf16",
        dtype="bfloat16",
        kv_cache_dtype="auto",
        max_model_len=32768,
        max_num_seqs=256,
        max_num_batched_tokens=8192,
        gpu_memory_utilization=0.92,
        kv_cache_memory_bytes=30 * GIB,
        enforce_eager=False,
        ledger=PlanLedger(
            total=80 * GIB,
            budget=73 * GIB,
            weights=35 * GIB,
            kv_cache=30 * GIB,
            activations=2 * GIB,
            margin=-1,
        ),
        kv_tokens=393216,
        max_concurrency=12,
        bound="MemoryBandwidth",
        placement=Placement.NOW,
        nodes=(PlanNode(name="gpu-0", gpu_product="NVIDIA-H100-80GB-HBM3", free_gpus=8, replicas=2),),
        notes=("maxModelLen is the model's own limit.",),
        rejections=(PlanRejection(reason=Reason.INSUFFICIENT_MEMORY, count=3, example="tp1 lacks 60 GiB."),),
    )


def full_status() -> LLMDeploymentStatus:
    figures = EngineFigures(kv_tokens=393216, weights_bytes=35 * GIB)
    return LLMDeploymentStatus(
        observed_generation=1,
        conditions=serving_conditions(),
        plan=full_plan(),
        engine=EngineStatus(
            kind=EngineKind.SIMULATED, version="0.32.0", predicted=figures, measured=figures, summary="Equal."
        ),
        utilization=UtilizationStatus(
            kv_percent=35, running=4, waiting=0, tokens_per_second=900, ttft_ms=210
        ),
        scaling=ScalingStatus(desired_replicas=2, reason=Reason.SCALED_EXTERNALLY),
        replicas=2,
        ready_replicas=2,
        replica_summary="2/2",
        selector="stowage.dev/name=shown",
    )
