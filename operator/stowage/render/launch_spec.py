"""What the agent in the pod is told: which model, which engine, with which options, on what hardware.

The LaunchSpec is all that crosses from the operator into a pod. It depends on the spec, the plan and the operator's
settings, never on the operator's version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.hardware.gpu_sharing import find_device
from stowage.planning.plan import Plan
from stowage.render import names
from stowage.render.durations import drain_timeout_seconds, startup_timeout_seconds
from stowage.render.served_spec import served_spec
from stowage.render.vllm_args import vllm_args
from stowage.world import EngineOptions
from stowage_runtime.contract import EngineExpectation, GpuExpectation, LaunchSpec, ModelRef

# A card may show a little less memory than its fellows (retired pages, ECC); more than this is another card.
MEMORY_TOLERANCE = 0.97


def launch_spec(
    resource: Mapping[str, Any], spec: LLMDeploymentSpec, plan: Plan, options: EngineOptions
) -> LaunchSpec:
    """The launch specification of every replica of one plan."""
    spec = served_spec(spec, plan)
    metadata = resource["metadata"]
    env = {"HF_ENDPOINT": options.hub_endpoint} if options.hub_endpoint else {}
    return LaunchSpec(
        namespace=metadata["namespace"],
        name=metadata["name"],
        served_model_name=spec.model.served_name or metadata["name"],
        model=_model_ref(spec, plan),
        engine=EngineExpectation(version=plan.engine_version, hardware=plan.image_class),
        args=tuple(vllm_args(plan.settings, spec.runtime.args)),
        env=env,
        gpus=_gpu_expectation(plan),
        startup_timeout_seconds=startup_timeout_seconds(spec, plan),
        drain_timeout_seconds=drain_timeout_seconds(),
        port=names.HTTP_PORT,
        agent_port=names.AGENT_PORT,
    )


def _model_ref(spec: LLMDeploymentSpec, plan: Plan) -> ModelRef:
    if spec.model.scheme == "pvc":
        return ModelRef(kind="pvc", path=names.MODEL_DIR)
    return ModelRef(kind="hf", repo_id=spec.model.location, revision=plan.model_revision)


def _gpu_expectation(plan: Plan) -> GpuExpectation | None:
    if plan.gpu_product is None:
        return None
    gpu = find_device(plan.gpu_product)
    if gpu is None:
        raise ValueError(f"plan names GPU {plan.gpu_product}, which the catalog does not have")
    major, minor = gpu.compute_capability
    return GpuExpectation(
        count=plan.gpus_per_replica,
        product=gpu.name,
        min_total_memory_bytes=int(gpu.nvml_memory_bytes * MEMORY_TOLERANCE),
        compute_capability=f"{major}.{minor}",
    )
