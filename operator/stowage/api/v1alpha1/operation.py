"""spec.scaling, spec.rollout and spec.recovery: how the deployment behaves over time."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, TypeAlias

from pydantic import Field, StrictBool, StrictStr

from stowage.api.base import SET_LIST, ApiModel, Rule, matches

ReplicaCount: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=1_000)]
"""A number of replicas."""


class ScalingMode(StrEnum):
    """Who decides the number of replicas."""

    EXTERNAL = "External"
    NATIVE = "Native"


class ScalingSpec(ApiModel):
    """Who decides the number of replicas, and within which limits."""

    mode: ScalingMode = Field(
        ScalingMode.EXTERNAL,
        description=(
            "External: spec.replicas is obeyed, whoever writes it (a person, HPA, KEDA). Native: "
            "Stowage decides from "
            "tokens, queues and cold starts."
        ),
    )
    min_replicas: ReplicaCount | None = Field(None, description="Fewest replicas under mode Native.")
    max_replicas: ReplicaCount | None = Field(None, description="Most replicas under mode Native.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            message="minReplicas must not be above maxReplicas",
            holds=lambda it: (
                it.min_replicas is None or it.max_replicas is None or it.min_replicas <= it.max_replicas
            ),
        ),
        Rule(
            cel="self.mode == 'Native' || (!has(self.minReplicas) && !has(self.maxReplicas))",
            message=(
                "minReplicas and maxReplicas need mode: Native; under External set them on your autoscaler"
            ),
            holds=lambda it: (
                it.mode is ScalingMode.NATIVE or (it.min_replicas is None and it.max_replicas is None)
            ),
        ),
    )


class RolloutStrategy(StrEnum):
    """How replicas are replaced when the plan changes."""

    AUTO = "Auto"
    SURGE = "Surge"
    IN_PLACE = "InPlace"


class RolloutSpec(ApiModel):
    """How replicas are replaced when the plan changes."""

    strategy: RolloutStrategy = Field(
        RolloutStrategy.AUTO,
        description=(
            "Surge starts a new replica before an old one stops and needs spare GPUs; InPlace stops "
            "first; Auto "
            "takes Surge when spare GPUs exist and InPlace otherwise, and says which."
        ),
    )


class RecoverySpec(ApiModel):
    """What may be changed automatically after the engine ran out of memory."""

    enabled: StrictBool | None = Field(
        None,
        description=(
            "Whether settings may be stepped down after an out-of-memory exit. Unset: Stowage decides."
        ),
    )
    max_steps: Annotated[int, Field(strict=True, ge=1, le=10)] | None = Field(
        None, description="Most steps before a person has to look."
    )
    allow: tuple[
        Annotated[
            StrictStr,
            Field(min_length=1, max_length=32),
            matches(
                "[A-Z][A-Za-z0-9]*", "must be the name of a recovery step such as Context or KvCachePrecision"
            ),
        ],
        ...,
    ] = Field(
        (),
        max_length=16,
        description="Steps that may be taken although they change what is served, for example Context.",
        json_schema_extra=SET_LIST,
    )
