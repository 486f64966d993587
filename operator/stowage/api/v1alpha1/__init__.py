"""Version v1alpha1 of stowage.dev: the types of an LLMDeployment.

Fields may be added here, never renamed: there is no conversion webhook. Importers take names from this
package, not from the files in it.
"""

from __future__ import annotations

from stowage.api.v1alpha1.accuracy_status import (
    AccuracyAnswers,
    AccuracyLikelihood,
    AccuracyState,
    AccuracyStatus,
    AccuracyVerdict,
)
from stowage.api.v1alpha1.deployment import (
    API_VERSION,
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    LLMDeployment,
    ObjectMeta,
    parse_deployment,
    parse_spec,
)
from stowage.api.v1alpha1.engine import EngineSpec, LoraAdapter, ParallelismSpec, SpeculativeSpec, Toggle
from stowage.api.v1alpha1.fields import ConfigMapRef, SecretKeyRef
from stowage.api.v1alpha1.hardware import (
    HardwareClass,
    HardwareSpec,
    TaintEffect,
    Toleration,
    TolerationOperator,
)
from stowage.api.v1alpha1.model import ModelSpec
from stowage.api.v1alpha1.operation import (
    RecoverySpec,
    RolloutSpec,
    RolloutStrategy,
    ScalingMode,
    ScalingSpec,
)
from stowage.api.v1alpha1.plan_better import PlanBetter
from stowage.api.v1alpha1.plan_forecast import PlanBoundness, PlanCost, PlanFigure, PlanForecast
from stowage.api.v1alpha1.plan_status import (
    Placement,
    PlanLedger,
    PlanNode,
    PlanParallelism,
    PlanRejection,
    PlanStatus,
)
from stowage.api.v1alpha1.precision import AccuracySpec, Alternative, PrecisionPolicy, PrecisionSpec
from stowage.api.v1alpha1.runtime import EnvVar, LocalObjectReference, ResourcesSpec, RuntimeSpec
from stowage.api.v1alpha1.spec import LLMDeploymentSpec, Mode
from stowage.api.v1alpha1.status import (
    EngineFigures,
    EngineKind,
    EngineStatus,
    LLMDeploymentStatus,
    ScalingStatus,
    UtilizationStatus,
)
from stowage.api.v1alpha1.workload import ObjectivesSpec, Priority, TokenLengths, WorkloadSpec

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "AccuracyAnswers",
    "AccuracyLikelihood",
    "AccuracySpec",
    "AccuracyState",
    "AccuracyStatus",
    "AccuracyVerdict",
    "Alternative",
    "ConfigMapRef",
    "EngineFigures",
    "EngineKind",
    "EngineSpec",
    "EngineStatus",
    "EnvVar",
    "HardwareClass",
    "HardwareSpec",
    "LLMDeployment",
    "LLMDeploymentSpec",
    "LLMDeploymentStatus",
    "LocalObjectReference",
    "LoraAdapter",
    "Mode",
    "ModelSpec",
    "ObjectMeta",
    "ObjectivesSpec",
    "ParallelismSpec",
    "Placement",
    "PlanBetter",
    "PlanBoundness",
    "PlanCost",
    "PlanFigure",
    "PlanForecast",
    "PlanLedger",
    "PlanNode",
    "PlanParallelism",
    "PlanRejection",
    "PlanStatus",
    "PrecisionPolicy",
    "PrecisionSpec",
    "Priority",
    "RecoverySpec",
    "ResourcesSpec",
    "RolloutSpec",
    "RolloutStrategy",
    "RuntimeSpec",
    "ScalingMode",
    "ScalingSpec",
    "ScalingStatus",
    "SecretKeyRef",
    "SpeculativeSpec",
    "TaintEffect",
    "Toggle",
    "TokenLengths",
    "Toleration",
    "TolerationOperator",
    "UtilizationStatus",
    "WorkloadSpec",
    "parse_deployment",
    "parse_spec",
]
