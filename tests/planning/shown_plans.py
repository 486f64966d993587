"""Plans with every number written by hand, so that what is shown of them changes only when the showing does."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.resources import Resources
from stowage.memory.band import Band
from stowage.memory.ledger import Ledger
from stowage.performance.boundness import Bottleneck, Bound, Boundness
from stowage.performance.forecast import Forecast
from stowage.performance.interval import Interval
from stowage.performance.levers.effect import Change, Effect, Lever, LeverVerdict
from stowage.performance.traffic import Traffic
from stowage.planning.plan import (
    Alternative,
    EngineSettings,
    Placement,
    Plan,
    PlanRequest,
    PlanResult,
    Rejection,
)
from tests.planning.builders import llama_8b, spec_of

GIB = 2**30
H100 = "NVIDIA-H100-80GB-HBM3"


def boundness(intensity: float, leading: Bound, share: float, other: Bound) -> Boundness:
    shares = dict.fromkeys(Bound, 0.0) | {leading: share, other: 1 - share}
    return Boundness(intensity, 295.2, leading, MappingProxyType(shares))


def forecast() -> Forecast:
    return Forecast(
        ttft_seconds=Interval.around(0.84, 0.6),
        tpot_seconds=Interval.around(0.0312, 0.3),
        output_tokens_per_second=Interval.around(1250.0, 0.3),
        requests_per_second=Interval.around(6.25, 0.3),
        ttft_p95_seconds=2.31,
        tpot_p95_seconds=0.0355,
        concurrency=32.0,
        prefill=boundness(1089.0, Bound.COMPUTE, 0.87, Bound.MEMORY_BANDWIDTH),
        decode=boundness(7.04, Bound.MEMORY_BANDWIDTH, 0.81, Bound.OVERHEAD),
        prefill_share=0.36,
        bottleneck=Bottleneck(
            "decode",
            Bound.MEMORY_BANDWIDTH,
            0.52,
            "64% of the GPU time goes into decoding, which is bound by memory bandwidth (81%).",
        ),
        answered_by="roofline",
        unmeasured=("PCIe between GPUs",),
        assumptions=("All prompts are as long as the mean.",),
    )


def ledger() -> Ledger:
    return Ledger(
        rank="rank 0 of tp2",
        total_bytes=79 * GIB,
        budget_bytes=72 * GIB,
        in_use_before_bytes=GIB // 2,
        weights_bytes=8 * GIB,
        weights_allocated_bytes=8 * GIB,
        persistent_bytes=GIB // 4,
        non_torch_bytes=GIB // 4,
        activation_bytes=GIB,
        cuda_graph_bytes=GIB,
        kv_cache_bytes=62 * GIB,
        kv_cache_band=Band(61 * GIB, 63 * GIB),
        block_size=16,
        num_gpu_blocks=63488,
        kv_tokens=1_015_808,
        kv_bytes_per_token=65536,
        max_concurrency=7.75,
        verdict="Fits",
        refusal=None,
        largest_max_model_len=131072,
        safe_max_model_len=131072,
        kv_needed_bytes=8 * GIB,
        kv_cache_pinned=False,
        cuda_graphs_counted=True,
        in_use_before_counted=True,
    )


def shown_plan() -> Plan:
    """Give a plan of two GPUs with everything that can be shown."""
    return Plan(
        engine_version="0.32.0",
        image_class="GPU",
        gpu_product=H100,
        gpu_resource="nvidia.com/gpu",
        gpus_per_replica=2,
        node_selector={"nvidia.com/gpu.product": H100},
        settings=EngineSettings(2, 1, "bfloat16", "auto", 0.92, 131072, 256, 8192, False),
        ledger=ledger(),
        requests=Resources(3000, 12 * GIB, 0, {"nvidia.com/gpu": 2}),
        shm_bytes=4 * GIB,
        concurrency_served=461,
        placement=Placement("Now", ("a", "b"), "GPU model known by a label"),
        model_revision="c" * 40,
        precision="bf16",
        notes=("The first note.", ("The second note is longer. " * 8).strip()),
        request_tokens=2200,
        replicas=2,
        attention_backend="FLASH_ATTN (FlashAttention 3)",
        traffic=Traffic(2000, 200, 32),
        forecast=forecast(),
        cost_per_hour=16.70,
        cost_per_million_tokens=1.86,
        cost_unit="USD",
        default_price=True,
        shortfall=("spec.objectives.tpot is 30 ms and 31.2 ms is forecast.",),
    )


def shown_levers() -> tuple[Lever, ...]:
    same = Change(1.0, 1.0)

    def effect(rate: float) -> Effect:
        return Effect(Change(1.0, rate), same, Change(1.0, 1 / rate), same, same, Change(1.0, 1 / rate))

    bigger = Effect(Change(1.0, 2.1), same, same, Change(1.0, 2.0), Change(1.0, 1.5), Change(1.0, 0.71))
    return (
        Lever("1x NVIDIA-B200", "", bigger, LeverVerdict.HELPS, "2.3 times the FLOP/s", is_other_gpu=True),
        Lever("2x NVIDIA-H200", "", effect(1.2), LeverVerdict.HELPS, "more memory", is_other_gpu=True),
        Lever("W8A8 fp8", "", effect(1.32), LeverVerdict.HELPS, "products run in 8 bits", lossy=True),
        Lever("W8A8 int8", "", effect(1.32), LeverVerdict.HELPS, "products run in 8 bits", lossy=True),
        Lever(
            "KV capacity ×4", "", effect(1.0), LeverVerdict.USELESS,
            "the batch is bound by max_num_seqs 256, not by KV", True, ("KV compression",), "none but this",
        ),
        Lever("max_num_seqs ×2", "", effect(1.01), LeverVerdict.USELESS, "32 requests are in flight"),
        Lever("PP instead of TP", "", None, LeverVerdict.IMPOSSIBLE, "it does not fit"),
    )  # fmt: skip


def shown_result() -> PlanResult:
    """Give a result with a plan, a contender, many alternatives and many rejections."""
    plan = shown_plan()
    contender = replace(
        plan, gpus_per_replica=1, precision="fp8", lossy="fp8 weights, quantised on load", cost_per_hour=8.35
    )
    alternatives = tuple(
        Alternative(
            f"tp{2 * n} on NVIDIA-H200", f"It costs {5 * n}.00 USD per hour.", 5.0 * n, "USD", 2, forecast()
        )
        for n in range(4, 10)
    )
    rejections = tuple(
        Rejection(f"tp{n} on NVIDIA-L4", Reason.INSUFFICIENT_MEMORY, "Weights leave no room for a KV cache.")
        for n in (1, 2, 4)
    )
    return PlanResult(
        plan,
        None,
        (*rejections, Rejection("node old", Reason.UNKNOWN_GPU, "Its GPU is not known.")),
        (),
        alternatives,
        contender,
    )


def shown_refusal() -> PlanResult:
    why = Refusal(
        Reason.INSUFFICIENT_MEMORY, "The closest shape is tp4 on NVIDIA-L4: it lacks 9 GiB.", "Add GPUs."
    )
    rejections = shown_result().rejections
    return PlanResult(None, why, rejections, ("8x NVIDIA-L4 on one node", "4x NVIDIA-L40S on one node"))


def shown_request() -> PlanRequest:
    return PlanRequest(spec_of(), llama_8b(), 2)
