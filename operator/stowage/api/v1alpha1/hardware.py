"""spec.hardware: where the deployment may run and how much it may take."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StrictStr

from stowage.api.base import ATOMIC_LIST, SET_LIST, ApiModel, Rule, matches
from stowage.api.v1alpha1.fields import LabelValue


class HardwareClass(StrEnum):
    """The kind of machine. CPU is never chosen silently."""

    GPU = "GPU"
    CPU = "CPU"


class TolerationOperator(StrEnum):
    """How a toleration compares its key."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """A node taint that the pods tolerate, as in a pod's spec."""

    key: Annotated[StrictStr, Field(max_length=317)] | None = Field(
        None, description="Key of the taint. Unset with operator Exists: every taint."
    )
    operator: TolerationOperator = Field(
        TolerationOperator.EQUAL, description="Equal compares key and value, Exists the key only."
    )
    value: Annotated[StrictStr, Field(max_length=63)] | None = Field(
        None, description="Value of the taint, with operator Equal."
    )
    effect: TaintEffect | None = Field(None, description="Effect of the taint. Unset: all effects.")
    toleration_seconds: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] | None = Field(
        None, description="How long a NoExecute taint is tolerated. Unset: for ever."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.operator != 'Exists' || !has(self.value)",
            message="a toleration with operator Exists takes no value",
            holds=lambda it: it.operator is not TolerationOperator.EXISTS or it.value is None,
        ),
        Rule(
            cel="self.operator == 'Exists' || has(self.key)",
            message="a toleration without a key needs operator: Exists",
            holds=lambda it: it.operator is TolerationOperator.EXISTS or it.key is not None,
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            message="tolerationSeconds needs effect: NoExecute",
            holds=lambda it: it.toleration_seconds is None or it.effect is TaintEffect.NO_EXECUTE,
        ),
    )


class HardwareSpec(ApiModel):
    """The hardware that the plan may use."""

    hardware_class: HardwareClass = Field(
        HardwareClass.GPU,
        alias="class",
        description="GPU, or CPU for a node without GPUs (vLLM's CPU build; for trying things out).",
    )
    gpus: tuple[
        Annotated[
            StrictStr,
            Field(min_length=1, max_length=63),
            matches(
                "[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?",
                "must be a GPU product as in the node label nvidia.com/gpu.product, for example NVIDIA-L40S",
            ),
        ],
        ...,
    ] = Field(
        (),
        max_length=16,
        description="GPU products to choose from, as in the node label nvidia.com/gpu.product. Unset: any.",
        json_schema_extra=SET_LIST,
    )
    node_selector: dict[Annotated[str, Field(max_length=317)], LabelValue] = Field(
        default_factory=dict, max_length=16, description="Labels that a node must have."
    )
    tolerations: tuple[Toleration, ...] = Field(
        (),
        max_length=16,
        description="Taints that are tolerated, besides the usual taint nvidia.com/gpu.",
        json_schema_extra=ATOMIC_LIST,
    )
    max_gpus: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = Field(
        None, alias="maxGPUs", description="Most GPUs that all replicas together may take."
    )
    max_gpus_per_replica: Annotated[int, Field(strict=True, ge=1, le=1_024)] | None = Field(
        None, alias="maxGPUsPerReplica", description="Most GPUs that one replica may take."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=(
                "self.class != 'CPU' || (!(has(self.gpus) && size(self.gpus) > 0) && !has(self.maxGPUs) "
                "&& !has(self.maxGPUsPerReplica))"
            ),
            message="class CPU takes no gpus, maxGPUs or maxGPUsPerReplica; remove them or use class: GPU",
            holds=lambda it: (
                it.hardware_class is not HardwareClass.CPU
                or (not it.gpus and it.max_gpus is None and it.max_gpus_per_replica is None)
            ),
        ),
        Rule(
            cel=(
                "!has(self.maxGPUs) || !has(self.maxGPUsPerReplica) || self.maxGPUsPerReplica <= self.maxGPUs"
            ),
            message="maxGPUsPerReplica must not be above maxGPUs, which counts all replicas",
            holds=lambda it: (
                it.max_gpus is None
                or it.max_gpus_per_replica is None
                or it.max_gpus_per_replica <= it.max_gpus
            ),
        ),
    )
