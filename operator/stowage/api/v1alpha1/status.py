"""The status of an LLMDeployment: what is true now. There is no phase, and nothing here is ever an input.

Numbers that come from a measurement stand under `measured` or in `utilization`; predictions stand under
`plan` and `predicted`. Strings are shortened rather than refused, so that a long cause never blocks a write.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from stowage.api.base import ATOMIC_MAP, Sentence, StatusModel, Word, map_list
from stowage.api.conditions import Condition
from stowage.api.v1alpha1.accuracy_status import AccuracyStatus
from stowage.api.v1alpha1.plan_status import ByteCount, Count, PlanStatus


class EngineKind(StrEnum):
    """What answers requests."""

    VLLM = "vllm"
    SIMULATED = "simulated"


class EngineFigures(StatusModel):
    """Memory of one replica's engine; bytes are those of its tightest GPU."""

    kv_tokens: Count | None = Field(None, description="Tokens that the replica's KV cache holds.")
    max_concurrency: Count | None = Field(None, description="Requests of max_model_len that fit at once.")
    weights_bytes: ByteCount | None = Field(None, description="Weights.")
    kv_cache_bytes: ByteCount | None = Field(None, description="KV cache.")
    activations_bytes: ByteCount | None = Field(None, description="Peak of working memory.")
    cuda_graphs_bytes: ByteCount | None = Field(None, description="CUDA graphs.")
    non_torch_bytes: ByteCount | None = Field(None, description="Memory outside of PyTorch.")


class EngineStatus(StatusModel):
    """Predicted against measured, of the plan in force."""

    kind: EngineKind = Field(description="vllm, or simulated for a stand-in engine in a test cluster.")
    version: Word | None = Field(None, description="Release that the engine reports.")
    replicas_reporting: Count | None = Field(None, description="Replicas whose agents answered.")
    block_size: Count | None = Field(None, description="Tokens per block of the KV cache.")
    num_gpu_blocks: Count | None = Field(None, description="Blocks of the KV cache.")
    predicted: EngineFigures | None = Field(None, description="What the plan said.")
    measured: EngineFigures | None = Field(None, description="What the engine reported.")
    summary: Sentence | None = Field(None, description="The comparison in one sentence.")


class UtilizationStatus(StatusModel):
    """Measured over the agents' last window, all replicas together; rounded so that it changes rarely."""

    kv_percent: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="Used share of the KV cache in percent, the fullest replica."
    )
    running: Count | None = Field(None, description="Requests that are being worked on.")
    waiting: Count | None = Field(None, description="Requests that wait.")
    tokens_per_second: Count | None = Field(None, description="Output tokens per second.")
    prompt_tokens_per_second: Count | None = Field(None, description="Prompt tokens per second.")
    ttft_ms: Count | None = Field(None, description="Mean time to first token in milliseconds.")
    tpot_ms: Count | None = Field(None, description="Mean time per further output token in milliseconds.")
    bound: Word | None = Field(None, description="What limits throughput, as measured.")
    replicas_reporting: Count | None = Field(None, description="Replicas that the numbers come from.")
    last_update_time: Word | None = Field(
        None, description="When these numbers were written.", json_schema_extra={"format": "date-time"}
    )


class ScalingStatus(StatusModel):
    """The number of replicas that is wanted, and why."""

    desired_replicas: Count = Field(description="Replicas that are wanted.")
    reason: Word | None = Field(None, description="Why, as one word.")
    message: Sentence | None = Field(None, description="Why, as a sentence.")
    last_scale_time: Word | None = Field(
        None, description="When the number last changed.", json_schema_extra={"format": "date-time"}
    )


class LLMDeploymentStatus(StatusModel):
    """What is true about the deployment now."""

    observed_generation: Count | None = Field(
        None, description="The metadata.generation that status speaks about."
    )
    conditions: tuple[Condition, ...] = Field(
        (),
        max_length=16,
        description="What is true and why; docs/reasons.md explains every type and reason.",
        json_schema_extra=map_list("type"),
    )
    plan: PlanStatus | None = Field(
        None, description="The plan of this generation.", json_schema_extra=ATOMIC_MAP
    )
    accuracy: AccuracyStatus | None = Field(
        None, description="The check of a lossy plan.", json_schema_extra=ATOMIC_MAP
    )
    engine: EngineStatus | None = Field(
        None, description="Predicted against measured.", json_schema_extra=ATOMIC_MAP
    )
    utilization: UtilizationStatus | None = Field(
        None, description="Measured load.", json_schema_extra=ATOMIC_MAP
    )
    scaling: ScalingStatus | None = Field(
        None, description="The number of replicas that is wanted.", json_schema_extra=ATOMIC_MAP
    )
    replicas: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="Replicas that exist; read by the scale subresource."
    )
    ready_replicas: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="Replicas that are serving: their agent has seen a real completion."
    )
    replica_summary: Word | None = Field(
        None, description="Serving and wanted replicas as text, for example 1/2."
    )
    selector: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Label selector that matches exactly one pod per replica; read by autoscalers."
    )
