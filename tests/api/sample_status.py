"""A status with every part filled in."""

from __future__ import annotations

from datetime import UTC, datetime

from stowage.api.conditions import Condition, ConditionType, Reason, condition, merge_conditions, summarize
from stowage.api.v1alpha1 import (
    AccuracyAnswers,
    AccuracyLikelihood,
    AccuracyState,
    AccuracyStatus,
    AccuracyVerdict,
    EngineFigures,
    EngineKind,
    EngineStatus,
    HardwareClass,
    LLMDeploymentStatus,
    Placement,
    PlanBetter,
    PlanBoundness,
    PlanCost,
    PlanFigure,
    PlanForecast,
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
        bound="decode: MemoryBandwidth 81%",
        attention_backend="FLASH_ATTN (FlashAttention 3)",
        replicas=2,
        nodes_per_replica=1,
        forecast=PlanForecast(
            workload="2,000 tokens in, 200 out, 32 requests in flight",
            ttft_seconds=PlanFigure(value=0.84, low=0.525, high=1.344),
            tpot_seconds=PlanFigure(value=0.0312, low=0.024, high=0.0406),
            output_tokens_per_second=PlanFigure(value=1250, low=961.5, high=1625),
            requests_per_second=PlanFigure(value=6.25, low=4.8, high=8.1),
            percentile=95,
            ttft_percentile_seconds=2.31,
            tpot_percentile_seconds=0.0355,
            prefill_percent=36,
            prefill=PlanBoundness(bound="Compute", compute=87, memory_bandwidth=13),
            decode=PlanBoundness(bound="MemoryBandwidth", memory_bandwidth=81, overhead=19),
            bottleneck="64% of the GPU time goes into decoding.",
            answered_by="roofline",
            method="simulated",
            unmeasured=("PCIe between GPUs",),
        ),
        cost=PlanCost(unit="USD", per_hour=16.7, per_million_tokens=1.86, default_price=True),
        shortfall=("spec.objectives.tpot is 30 ms and 31.2 ms is forecast.",),
        contender="1x NVIDIA-H100-80GB-HBM3 (tp1), fp8 (fp8 weights, quantised on load)",
        calibrated="3 start-ups of LlamaForCausalLM on NVIDIA-H100-80GB-HBM3 (tp4) with vLLM 0.32",
        better=PlanBetter(
            plan="2x NVIDIA-H200 (tp2), bf16",
            brings="cost 7.60 USD instead of 16.70 per hour (-54 %)",
            take="Set spec.replan to 0a1b2c3d.",
            replan="0a1b2c3d",
            cost_percent=-54,
            ttft_percent=3,
            tpot_percent=-1,
            throughput_percent=2,
        ),
        pools=("h100",),
        new_nodes=1,
        placement=Placement.NOW,
        nodes=(PlanNode(name="gpu-0", gpu_product="NVIDIA-H100-80GB-HBM3", free_gpus=8, replicas=2),),
        notes=("maxModelLen is the model's own limit.",),
        rejections=(PlanRejection(reason=Reason.INSUFFICIENT_MEMORY, count=3, example="tp1 lacks 60 GiB."),),
    )


def full_accuracy() -> AccuracyStatus:
    return AccuracyStatus(
        candidate="fp8 weights, quantised on load",
        state=AccuracyState.JUDGED,
        verdict=AccuracyVerdict.INCONCLUSIVE,
        reason=Reason.ACCURACY_CHECK_INCONCLUSIVE,
        message="2 of 100 answers lost and 0 gained, more than 1 %, but that may be chance.",
        max_drop="1%",
        confidence_percent=95,
        prompts=100,
        needed_prompts=321,
        answers=AccuracyAnswers(
            compared=100,
            baseline_right=90,
            candidate_right=88,
            lost=2,
            gained=0,
            changed_by_noise=1,
            drop_percent=2,
            at_least_percent=-3.5,
            at_most_percent=6.2,
        ),
        likelihood=AccuracyLikelihood(
            prompts=100,
            tokens=9000,
            drop_percent=0.2,
            at_least_percent=-1_000_000,
            at_most_percent=0.25,
            noise_percent=0,
        ),
        engine="vllm",
        job="llama-acc-01234567",
        finished_time="2030-01-02T03:04:05Z",
    )


def full_status() -> LLMDeploymentStatus:
    figures = EngineFigures(kv_tokens=393216, weights_bytes=35 * GIB)
    return LLMDeploymentStatus(
        observed_generation=1,
        conditions=serving_conditions(),
        plan=full_plan(),
        accuracy=full_accuracy(),
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
