"""spec.precision: how much accuracy the plan may trade for memory and speed.

Lossless unless the user allows more, and then only with a check that notices a loss.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StrictInt, StrictStr

from stowage.api.base import ApiModel, Rule, map_list, matches
from stowage.api.v1alpha1.fields import ConfigMapRef
from stowage.api.v1alpha1.model import Source

AUTO = "Auto"


class PrecisionPolicy(StrEnum):
    """How lossy the plan may get."""

    CHECKPOINT = "Checkpoint"
    EIGHT_BIT = "EightBit"
    FOUR_BIT = "FourBit"


class Alternative(ApiModel):
    """A lossy checkpoint of the same model."""

    source: Source = Field(description="Where the checkpoint comes from, as spec.model.source.")


class AccuracySpec(ApiModel):
    """The check that a lossy choice has to pass before it serves."""

    prompts_ref: ConfigMapRef = Field(
        description=(
            "ConfigMap with the prompts under the key prompts.jsonl: at least one, ideally 100 or more, with "
            "expected answers or without. Another name means another check."
        )
    )
    max_drop: Annotated[
        StrictStr,
        Field(min_length=1, max_length=8),
        matches("([0-9]|[1-9][0-9])([.][0-9]{1,3})?%|100%", "must be a percentage such as 1% or 0.5%"),
        matches(".*[1-9].*", "must be above 0%: no number of prompts shows that nothing at all is lost"),
    ] = Field("1%", description="Largest loss of accuracy that is accepted.")
    answer_tokens: Annotated[StrictInt, Field(ge=1, le=4096)] = Field(
        128, description="Longest answer in tokens, where a prompt does not state its own maxTokens."
    )

    @property
    def max_drop_share(self) -> float:
        """The accepted loss as a share: 1% is 0.01."""
        return float(self.max_drop.removesuffix("%")) / 100.0


class PrecisionSpec(ApiModel):
    """Precision of weights and KV cache."""

    policy: PrecisionPolicy = Field(
        PrecisionPolicy.CHECKPOINT,
        description=(
            "How lossy the plan may get: Checkpoint (exactly what the checkpoint holds), EightBit or "
            "FourBit. "
            "The last two need precision.accuracy."
        ),
    )
    kv_cache: Annotated[
        StrictStr,
        Field(min_length=1, max_length=32),
        matches(
            "[A-Za-z][A-Za-z0-9_]*",
            "must be Auto or one of vLLM's names of a KV cache dtype such as bfloat16",
        ),
    ] = Field(
        AUTO, description="Precision of the KV cache: Auto, or one of vLLM's kv_cache_dtype names to pin it."
    )
    alternatives: tuple[Alternative, ...] = Field(
        (),
        max_length=8,
        description="Lossy checkpoints of the same model that the policy may choose.",
        json_schema_extra=map_list("source"),
    )
    accuracy: AccuracySpec | None = Field(None, description="The accuracy check that guards a lossy choice.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.policy == 'Checkpoint' || has(self.accuracy)",
            message="policy EightBit and FourBit need precision.accuracy, so that a loss is noticed; add it",
            holds=lambda precision: (
                precision.policy is PrecisionPolicy.CHECKPOINT or precision.accuracy is not None
            ),
        ),
        Rule(
            cel="self.policy != 'Checkpoint' || !has(self.alternatives) || size(self.alternatives) == 0",
            message="alternatives are lossy checkpoints and need policy EightBit or FourBit",
            holds=lambda precision: (
                precision.policy is not PrecisionPolicy.CHECKPOINT or not precision.alternatives
            ),
        ),
    )
