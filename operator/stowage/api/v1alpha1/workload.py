"""spec.workload and spec.objectives: what the users of the model will ask of it, and what matters to them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, TypeAlias

from pydantic import Field

from stowage.api.base import ApiModel, Rule
from stowage.api.v1alpha1.fields import Duration

TokenCount: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=16_777_216)]
"""A number of tokens."""


class TokenLengths(ApiModel):
    """How long a text typically is."""

    mean: TokenCount = Field(description="Average length in tokens.")
    p95: TokenCount | None = Field(
        None, description="95th percentile in tokens. Default: sized from the mean."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.p95) || self.p95 >= self.mean",
            message="p95 must not be below mean; exchange them or correct one",
            holds=lambda lengths: lengths.p95 is None or lengths.p95 >= lengths.mean,
        ),
    )


class WorkloadSpec(ApiModel):
    """The requests that the deployment is sized for."""

    max_model_len: TokenCount | None = Field(
        None,
        description=(
            "Longest prompt plus answer in tokens, as vLLM's max_model_len. Default: the model's own "
            "limit, reduced "
            "to what fits (status.plan says so)."
        ),
    )
    prompt_tokens: TokenLengths | None = Field(None, description="How long prompts are.")
    output_tokens: TokenLengths | None = Field(None, description="How long answers are.")
    concurrency_per_replica: Annotated[int, Field(strict=True, ge=1, le=65_536)] | None = Field(
        None, description="Requests in flight in one replica that must fit into its KV cache."
    )
    requests_per_second: Annotated[float, Field(strict=True, gt=0, le=1_000_000)] | None = Field(
        None,
        description=(
            "Arrival rate of the whole deployment. No fewer replicas run than it takes, whatever replicas says "
            "(0 stays 0). At most one of this and concurrencyPerReplica."
        ),
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.concurrencyPerReplica) && has(self.requestsPerSecond))",
            message="give concurrencyPerReplica or requestsPerSecond, not both",
            holds=lambda load: load.concurrency_per_replica is None or load.requests_per_second is None,
        ),
        Rule(
            cel=(
                "!has(self.maxModelLen) || !has(self.promptTokens) || self.promptTokens.mean < "
                "self.maxModelLen"
            ),
            message="promptTokens.mean must be below maxModelLen, which counts prompt and answer together",
            holds=lambda load: (
                load.max_model_len is None
                or load.prompt_tokens is None
                or load.prompt_tokens.mean < load.max_model_len
            ),
        ),
        Rule(
            cel=(
                "!has(self.maxModelLen) || !has(self.outputTokens) || self.outputTokens.mean < "
                "self.maxModelLen"
            ),
            message="outputTokens.mean must be below maxModelLen, which counts prompt and answer together",
            holds=lambda load: (
                load.max_model_len is None
                or load.output_tokens is None
                or load.output_tokens.mean < load.max_model_len
            ),
        ),
    )


class Priority(StrEnum):
    """What wins where objectives pull in different directions."""

    COST = "Cost"
    LATENCY = "Latency"
    THROUGHPUT = "Throughput"


class ObjectivesSpec(ApiModel):
    """What the plan should achieve."""

    ttft: Duration | None = Field(None, description="Time to first token to stay within, for example 2s.")
    tpot: Duration | None = Field(
        None, description="Time per further output token to stay within, for example 50ms."
    )
    percentile: Annotated[int, Field(strict=True, ge=50, le=99)] = Field(
        95, description="Share of requests in percent that ttft and tpot must hold for."
    )
    priority: Priority = Field(
        Priority.COST,
        description=(
            "What to prefer among shapes that meet the objectives: Cost (least per hour), Latency (fastest requests) "
            "or Throughput (most output tokens per second)."
        ),
    )
