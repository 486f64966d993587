"""spec.parallelism and spec.engine: pins for what the plan would otherwise choose. Names are vLLM's own."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StrictBool, StrictStr

from stowage.api.base import ApiModel, Rule, map_list, matches
from stowage.api.v1alpha1.fields import LabelValue, Quantity
from stowage.api.v1alpha1.model import Source
from stowage.api.v1alpha1.workload import TokenCount


class Toggle(StrEnum):
    """A switch that Stowage sets by itself unless told."""

    AUTO = "Auto"
    ENABLED = "Enabled"
    DISABLED = "Disabled"


class ParallelismSpec(ApiModel):
    """How one replica is split over GPUs; a replica uses tensor × pipeline × data GPUs."""

    tensor: Annotated[int, Field(strict=True, ge=1, le=128)] | None = Field(
        None,
        description=(
            "Pin of vLLM's tensor_parallel_size: GPUs that share every layer. Default: the plan chooses."
        ),
    )
    pipeline: Annotated[int, Field(strict=True, ge=1, le=64)] | None = Field(
        None, description="Pin of vLLM's pipeline_parallel_size: stages of layers. Default: the plan chooses."
    )
    data: Annotated[int, Field(strict=True, ge=1, le=512)] | None = Field(
        None, description="Pin of vLLM's data_parallel_size inside one replica. Default: the plan chooses."
    )
    expert_parallel: Toggle = Field(
        Toggle.AUTO, description="Whether experts of a mixture-of-experts model are spread instead of split."
    )


class LoraAdapter(ApiModel):
    """A LoRA adapter that is served beside the base model."""

    name: LabelValue = Field(min_length=1, description="Name that clients put into requests.")
    source: Source = Field(description="Where the adapter comes from, as spec.model.source.")


class SpeculativeSpec(ApiModel):
    """Speculative decoding."""

    method: Annotated[
        StrictStr,
        Field(min_length=1, max_length=32),
        matches("[a-z][a-z0-9_]*", "must be one of vLLM's names of a method such as ngram, eagle3 or mtp"),
    ] = Field(description="vLLM's name of the method, for example ngram, eagle3 or mtp.")
    num_speculative_tokens: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(
        description="Tokens that are guessed per step."
    )
    source: Source | None = Field(None, description="The draft model, for methods that need one.")


class EngineSpec(ApiModel):
    """Pins of vLLM's settings. What is not pinned is chosen by the plan and shown in status.plan."""

    version: (
        Annotated[
            StrictStr,
            Field(min_length=1, max_length=32),
            matches(
                "[0-9]+[.][0-9]+[.][0-9]+([.]?(rc|post|dev)[0-9]+)?",
                "must be a vLLM release such as 0.32.0, without v",
            ),
        ]
        | None
    ) = Field(
        None,
        description=(
            "vLLM release. It selects the memory model and the default image; required with "
            "runtime.image. The agent "
            "compares it with the release in the image. Default: the release that this version of "
            "Stowage names."
        ),
    )
    gpu_memory_utilization: Annotated[float, Field(strict=True, gt=0, le=1)] | None = Field(
        None, description="Share of each GPU's memory that the engine may use, above 0 and at most 1."
    )
    max_num_seqs: Annotated[int, Field(strict=True, ge=1, le=65_536)] | None = Field(
        None, description="Most sequences that one engine step works on."
    )
    max_num_batched_tokens: TokenCount | None = Field(
        None, description="Most tokens that one engine step works on."
    )
    kv_cache_memory: Quantity | None = Field(
        None,
        description="Pin of the KV cache's size per GPU (vLLM's kv_cache_memory_bytes), for example 20Gi.",
    )
    enforce_eager: StrictBool | None = Field(
        None,
        description=(
            "true: no CUDA graphs (less memory, slower). false: CUDA graphs. Unset: the plan chooses."
        ),
    )
    lora_adapters: tuple[LoraAdapter, ...] = Field(
        (), max_length=64, description="LoRA adapters to serve.", json_schema_extra=map_list("name")
    )
    speculative: SpeculativeSpec | None = Field(None, description="Speculative decoding. Unset: none.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=(
                "!has(self.maxNumSeqs) || !has(self.maxNumBatchedTokens) || self.maxNumBatchedTokens "
                ">= self.maxNumSeqs"
            ),
            message=(
                "maxNumBatchedTokens must be at least maxNumSeqs: each running sequence needs "
                "one token per step"
            ),
            holds=lambda engine: (
                engine.max_num_seqs is None
                or engine.max_num_batched_tokens is None
                or engine.max_num_batched_tokens >= engine.max_num_seqs
            ),
        ),
    )
