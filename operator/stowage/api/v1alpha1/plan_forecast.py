"""The part of status.plan about speed and cost: what is forecast for one replica, what bounds it, what it costs.

Every number is an estimate and says so by its band. Like the rest of status.plan it is never read back as an input.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from stowage.api.base import Sentence, StatusModel, Word

Amount: TypeAlias = Annotated[float, Field(ge=0, le=1e15)]
"""An amount in the unit that its field names."""

Percent: TypeAlias = Annotated[int, Field(ge=0, le=100)]
"""A share in percent."""


class PlanFigure(StatusModel):
    """A forecast number with the band that it is expected in."""

    value: Amount = Field(description="The central estimate.")
    low: Amount = Field(description="Lower end of the band.")
    high: Amount = Field(description="Upper end of the band.")


class PlanBoundness(StatusModel):
    """What a phase spends its time on; shares in percent of the phase."""

    bound: Word = Field(description="The largest share's name.")
    compute: Percent = Field(0, description="Matrix units are busy.")
    memory_bandwidth: Percent = Field(0, description="Weights and KV cache are read.")
    kv_capacity: Percent = Field(0, description="What a batch without the limit of the KV cache would save.")
    interconnect: Percent = Field(0, description="GPUs exchange vectors or wait for each other.")
    overhead: Percent = Field(0, description="Launches and the host.")


class PlanForecast(StatusModel):
    """What the stated workload sees from one replica."""

    workload: Sentence = Field(description="The requests that the forecast is made for.")
    ttft_seconds: PlanFigure = Field(description="Mean time to first token.")
    tpot_seconds: PlanFigure = Field(description="Mean time per output token.")
    output_tokens_per_second: PlanFigure = Field(description="Output tokens of one replica.")
    requests_per_second: PlanFigure = Field(description="Requests of one replica.")
    percentile: Percent | None = Field(None, description="The percentile of the two fields below.")
    ttft_percentile_seconds: Amount | None = Field(None, description="Time to first token at the percentile.")
    tpot_percentile_seconds: Amount | None = Field(
        None, description="Time per output token at the percentile."
    )
    prefill_percent: Percent | None = Field(None, description="Share of the GPU time that prompts take.")
    prefill: PlanBoundness | None = Field(None, description="What bounds prompts.")
    decode: PlanBoundness | None = Field(None, description="What bounds decoding.")
    bottleneck: Sentence | None = Field(None, description="What limits the replica, in words.")
    answered_by: Word | None = Field(None, description="The estimator that answered.")
    method: Word | None = Field(None, description="How it answered: simulated or closed form.")
    unmeasured: tuple[Word, ...] = Field((), max_length=8, description="What no measurement supports.")


class PlanCost(StatusModel):
    """What all replicas of the plan cost."""

    unit: Word = Field(description="A currency, or GPU-hours where the GPU has no price.")
    per_hour: Amount = Field(description="Cost of an hour.")
    per_million_tokens: Amount | None = Field(None, description="Cost of a million output tokens.")
    default_price: bool | None = Field(
        None, description="Whether the price is a default rather than stated by somebody."
    )
