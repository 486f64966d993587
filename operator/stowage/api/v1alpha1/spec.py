"""The spec of an LLMDeployment: the whole wish of the user. Only the model's source is required."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StrictStr

from stowage.api.base import ApiModel, Rule, matches
from stowage.api.v1alpha1.engine import EngineSpec, ParallelismSpec
from stowage.api.v1alpha1.hardware import HardwareSpec
from stowage.api.v1alpha1.model import ModelSpec
from stowage.api.v1alpha1.operation import RecoverySpec, ReplicaCount, RolloutSpec, ScalingSpec
from stowage.api.v1alpha1.precision import PrecisionSpec
from stowage.api.v1alpha1.runtime import RuntimeSpec
from stowage.api.v1alpha1.workload import ObjectivesSpec, WorkloadSpec


class Mode(StrEnum):
    """Whether the plan is only made or also carried out."""

    SERVE = "Serve"
    PLAN = "Plan"


_STAYS_SERVING = Rule(
    cel="!(oldSelf == 'Serve' && self == 'Plan')",
    message=(
        "cannot go from Serve to Plan, which would stop a serving model; make another LLMDeployment "
        "with mode: Plan, "
        "or set replicas: 0"
    ),
    holds=None,
)


_TOKEN = matches(
    "[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?",
    "must be one word of letters, digits, '-', '_' and '.', such as the one that status.plan.better shows",
)


def _shape_gpus(spec: LLMDeploymentSpec) -> int:
    pins = spec.parallelism
    return (pins.tensor or 1) * (pins.pipeline or 1) * (pins.data or 1)


class LLMDeploymentSpec(ApiModel):
    """What to serve and under which conditions."""

    mode: Annotated[Mode, _STAYS_SERVING] = Field(
        Mode.SERVE, description="Serve, or Plan to stop after the plan. Serve cannot be changed to Plan."
    )
    model: ModelSpec = Field(description="The model to serve.")
    workload: WorkloadSpec = Field(
        default_factory=WorkloadSpec, description="The requests that the deployment is sized for."
    )
    objectives: ObjectivesSpec = Field(
        default_factory=ObjectivesSpec, description="What the plan should achieve."
    )
    precision: PrecisionSpec = Field(
        default_factory=PrecisionSpec, description="Precision of weights and KV cache."
    )
    parallelism: ParallelismSpec = Field(
        default_factory=ParallelismSpec, description="Pins of how one replica is split over GPUs."
    )
    engine: EngineSpec = Field(default_factory=EngineSpec, description="Pins of vLLM's settings.")
    hardware: HardwareSpec = Field(
        default_factory=HardwareSpec, description="The hardware that the plan may use."
    )
    scaling: ScalingSpec = Field(
        default_factory=ScalingSpec, description="Who decides the number of replicas."
    )
    replicas: ReplicaCount = Field(
        1,
        description=(
            "Number of replicas; what `kubectl scale` and autoscalers write. Under scaling.mode "
            "Native only the start."
        ),
    )
    rollout: RolloutSpec = Field(
        default_factory=RolloutSpec, description="How replicas are replaced when the plan changes."
    )
    recovery: RecoverySpec = Field(
        default_factory=RecoverySpec, description="What may be changed after the engine ran out of memory."
    )
    replan: Annotated[StrictStr, Field(min_length=1, max_length=63), _TOKEN] | None = Field(
        None,
        description=(
            "Any word; changing it has the plan made anew on the cluster as it is now. status.plan.better names the "
            "word to take what it shows."
        ),
    )
    runtime: RuntimeSpec = Field(
        default_factory=RuntimeSpec, description="The pods: image, options, environment, resources, identity."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=(
                "!has(self.runtime) || !has(self.runtime.image) || (has(self.engine) && "
                "has(self.engine.version))"
            ),
            message="runtime.image needs engine.version: the release in the image decides the memory model",
            holds=lambda spec: spec.runtime.image is None or spec.engine.version is not None,
        ),
        Rule(
            cel=(
                "!has(self.workload) || !has(self.workload.concurrencyPerReplica) || !has(self.engine) "
                "|| !has(self.engine.maxNumSeqs) || self.workload.concurrencyPerReplica <= "
                "self.engine.maxNumSeqs"
            ),
            message=(
                "workload.concurrencyPerReplica must not be above engine.maxNumSeqs, or requests would queue"
            ),
            holds=lambda spec: (
                spec.workload.concurrency_per_replica is None
                or spec.engine.max_num_seqs is None
                or spec.workload.concurrency_per_replica <= spec.engine.max_num_seqs
            ),
        ),
        Rule(
            cel=(
                "!has(self.hardware.maxGPUsPerReplica) || (has(self.parallelism.tensor) ? "
                "self.parallelism.tensor : 1) "
                "* (has(self.parallelism.pipeline) ? self.parallelism.pipeline : 1) "
                "* (has(self.parallelism.data) ? self.parallelism.data : 1) <= "
                "self.hardware.maxGPUsPerReplica"
            ),
            message="parallelism needs tensor × pipeline × data GPUs, more than hardware.maxGPUsPerReplica",
            holds=lambda spec: (
                spec.hardware.max_gpus_per_replica is None
                or _shape_gpus(spec) <= spec.hardware.max_gpus_per_replica
            ),
        ),
    )
