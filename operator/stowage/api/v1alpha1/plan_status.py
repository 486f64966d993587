"""status.plan: the plan of this generation, short enough to be read in `kubectl get -o yaml`.

It is written as a whole (atomic) and never read back as an input; what has to be remembered is recorded on
the workload object. The full plan comes from the command line.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

from pydantic import Field

from stowage.api.base import Sentence, StatusModel, Word
from stowage.api.v1alpha1.engine import Toggle
from stowage.api.v1alpha1.hardware import HardwareClass
from stowage.api.v1alpha1.plan_better import PlanBetter
from stowage.api.v1alpha1.plan_forecast import PlanCost, PlanForecast

PLAN_MAX_BYTES: Final = 8 * 1024
"""Largest JSON form of status.plan."""

MAX_REJECTIONS: Final = 10

_LISTS: Final = ("notes", "rejections", "nodes", "pools", "shortfall")
_BESIDE: Final = ("better", "contender", "calibrated", "forecast", "lossy", "model_source")
"""What a plan can be shown without, in the order in which it is left out where it would be too long."""

ByteCount: TypeAlias = Annotated[int, Field(ge=0, le=2**62)]
"""A number of bytes."""

Count: TypeAlias = Annotated[int, Field(ge=0, le=2**62)]
"""A number of things."""


class Placement(StrEnum):
    """Whether the replicas can be placed."""

    NOW = "Now"
    AFTER_SCALE_UP = "AfterScaleUp"
    IMPOSSIBLE = "Impossible"


class PlanParallelism(StatusModel):
    """How one replica is split over GPUs."""

    tensor: Count = Field(description="vLLM's tensor_parallel_size.")
    pipeline: Count = Field(1, description="vLLM's pipeline_parallel_size.")
    data: Count = Field(1, description="vLLM's data_parallel_size inside one replica.")
    expert_parallel: Toggle = Field(
        Toggle.DISABLED, description="Whether experts are spread instead of split."
    )


class PlanLedger(StatusModel):
    """Predicted memory of the tightest GPU of a replica, in bytes."""

    total: ByteCount = Field(description="Memory of the GPU.")
    budget: ByteCount = Field(description="What the engine may use of it.")
    weights: ByteCount = Field(description="The model's weights on this GPU.")
    persistent: ByteCount = Field(0, description="Buffers that stay, besides weights and KV cache.")
    non_torch: ByteCount = Field(0, description="CUDA context, NCCL and other memory outside of PyTorch.")
    activations: ByteCount = Field(0, description="Peak of working memory of one step.")
    cuda_graphs: ByteCount = Field(0, description="Captured CUDA graphs.")
    kv_cache: ByteCount = Field(description="The KV cache.")
    margin: Annotated[int, Field(ge=-(2**62), le=2**62)] = Field(
        0, description="What stays free of the GPU beyond everything listed."
    )
    band: ByteCount = Field(
        0, description="The prediction of the KV cache may be off by this much in either direction."
    )


class PlanNode(StatusModel):
    """A node that the plan was made on."""

    name: Annotated[str, Field(max_length=253)] = Field(description="Name of the node.")
    gpu_product: Word | None = Field(None, description="Its GPU, as in the label nvidia.com/gpu.product.")
    free_gpus: Count | None = Field(None, description="GPUs that no running pod had asked for.")
    replicas: Count | None = Field(None, description="Replicas that the plan places there.")


class PlanRejection(StatusModel):
    """Candidates that were refused for the same reason."""

    reason: Word = Field(description="The reason, from docs/reasons.md.")
    count: Count = Field(description="Number of candidates.")
    example: Sentence = Field(description="One of them, in words.")


class PlanStatus(StatusModel):
    """The chosen shape and why; where no shape fits, why not."""

    summary: Sentence = Field(description="The plan in one sentence.")
    hash: Word | None = Field(None, description="Identifies the plan; replicas carry it.")
    model_commit: Word | None = Field(
        None, description="The commit that the model's revision was resolved to."
    )
    engine_version: Word | None = Field(None, description="vLLM release that the plan is made for.")
    hardware_class: HardwareClass | None = Field(None, description="GPU or CPU.")
    gpu_product: Word | None = Field(None, description="The chosen GPU.")
    gpus_per_replica: Count | None = Field(None, description="GPUs of one replica.")
    gpus: Word | None = Field(None, description="GPUs of one replica as text, for example 4x NVIDIA-L40S.")
    parallel: Word | None = Field(None, description="Parallelism as text, for example tp4.")
    parallelism: PlanParallelism | None = Field(None, description="How one replica is split over GPUs.")
    precision: Word | None = Field(None, description="Precision of the weights as text, for example bf16.")
    dtype: Word | None = Field(None, description="vLLM's dtype.")
    quantization: Word | None = Field(None, description="vLLM's quantization; unset for unquantised weights.")
    kv_cache_dtype: Word | None = Field(None, description="vLLM's kv_cache_dtype.")
    max_model_len: Count | None = Field(None, description="vLLM's max_model_len.")
    max_num_seqs: Count | None = Field(None, description="vLLM's max_num_seqs.")
    max_num_batched_tokens: Count | None = Field(None, description="vLLM's max_num_batched_tokens.")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="vLLM's gpu_memory_utilization."
    )
    kv_cache_memory_bytes: ByteCount | None = Field(
        None, description="vLLM's kv_cache_memory_bytes; unset when the engine derives it from utilisation."
    )
    enforce_eager: bool | None = Field(None, description="Whether CUDA graphs are off.")
    ledger: PlanLedger | None = Field(None, description="Predicted memory of the tightest GPU of a replica.")
    calibrated: Sentence | None = Field(
        None, description="The measured start-ups that the ledger was corrected by; unset: none."
    )
    kv_tokens: Count | None = Field(None, description="Predicted tokens that one replica's KV cache holds.")
    max_concurrency: Count | None = Field(
        None,
        description="Requests of the stated lengths (else of maxModelLen) that fit at once into one replica.",
    )
    attention_backend: Word | None = Field(
        None, description="Kernels that the engine will use for attention."
    )
    model_source: Sentence | None = Field(
        None, description="The checkpoint that is served, where it is an allowed alternative."
    )
    lossy: Sentence | None = Field(None, description="What about the precision is lossy; unset: nothing.")
    replicas: Count | None = Field(None, description="Replicas that the plan is made for.")
    nodes_per_replica: Count | None = Field(None, description="Nodes that one replica spans.")
    bound: Word | None = Field(
        None,
        description="What limits the plan first, with its share, for example decode: MemoryBandwidth 81%.",
    )
    forecast: PlanForecast | None = Field(None, description="What the workload sees from one replica.")
    cost: PlanCost | None = Field(None, description="What all replicas cost.")
    shortfall: tuple[Sentence, ...] = Field(
        (), max_length=4, description="Objectives that are not met, and the least that physics allows."
    )
    contender: Sentence | None = Field(
        None, description="A lossy plan that is taken once its accuracy check has passed."
    )
    better: PlanBetter | None = Field(
        None, description="What a new plan would be and bring, where the one in force is kept."
    )
    placement: Placement | None = Field(None, description="Now, AfterScaleUp or Impossible.")
    pools: tuple[Sentence, ...] = Field(
        (), max_length=8, description="Node pools that have to grow first, or may grow for more replicas."
    )
    new_nodes: Count | None = Field(None, description="Nodes that do not exist yet and that the plan needs.")
    nodes: tuple[PlanNode, ...] = Field((), max_length=8, description="Nodes that the plan was made on.")
    notes: tuple[Sentence, ...] = Field(
        (),
        max_length=16,
        description="Defaults that were chosen and why, and what to know about the prediction.",
    )
    rejections: tuple[PlanRejection, ...] = Field(
        (), max_length=MAX_REJECTIONS, description="What else was tried, grouped by reason."
    )

    @property
    def size_bytes(self) -> int:
        """Size of the JSON form."""
        return len(json.dumps(self.to_dict(), separators=(",", ":"), ensure_ascii=False).encode())

    def within_limit(self) -> PlanStatus:
        """Give the plan within 8 KiB: lists are shortened from the end, then what is only said beside the choice."""
        plan = self
        while plan.size_bytes > PLAN_MAX_BYTES:
            longest = max(_LISTS, key=lambda name: _size(plan, name))
            entries = getattr(plan, longest)
            if entries:
                plan = plan.model_copy(update={longest: entries[:-1]})
                continue
            said = next((name for name in _BESIDE if getattr(plan, name) is not None), None)
            if said is None:
                raise ValueError("a plan without lists and remarks is above its limit")
            plan = plan.model_copy(update=dict.fromkeys((said,)))
        return plan


def _size(plan: PlanStatus, name: str) -> int:
    return len(json.dumps(plan.model_dump(mode="json", include={name})))
