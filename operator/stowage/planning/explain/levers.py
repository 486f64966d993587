"""The levers of a plan: the question to the performance model, put together from the plan and its request."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from stowage.api.refusal import Refusal
from stowage.hardware.catalog import catalog
from stowage.hardware.gpu import Gpu
from stowage.hardware.gpu_sharing import find_device
from stowage.memory.release.engine_version import engine_version
from stowage.model.profile import ModelProfile
from stowage.performance.levers import levers
from stowage.performance.levers.effect import Lever
from stowage.performance.levers.question import LeverQuestion
from stowage.performance.serving import Serving
from stowage.planning.refused.suggestions import recommended
from stowage.planning.result import Plan, PlanRequest

_NO_PRICE: Final = "its price"


def plan_levers(request: PlanRequest, plan: Plan) -> tuple[Lever, ...]:
    """Give what each lever alone would bring to the plan; none for a plan that has no forecast."""
    question = lever_question(request, plan)
    if question is None:
        return ()
    unpriced = {gpu.name for gpu in question.others if request.prices.of(gpu) is None}
    found = levers(question, request.spec.objectives.priority.value)
    return tuple(_marked(lever, unpriced) for lever in found)


def lever_question(request: PlanRequest, plan: Plan) -> LeverQuestion | None:
    """Give the question for a plan, None where it has no forecast."""
    gpu = None if plan.gpu_product is None else find_device(plan.gpu_product)
    serving = None if gpu is None else _serving(request, plan, gpu)
    if serving is None or plan.traffic is None or plan.forecast is None:
        return None
    return LeverQuestion(
        serving=serving,
        traffic=plan.traffic,
        total_memory_bytes=plan.ledger.total_bytes,
        hourly=request.prices.rank,
        others=usual_gpus(),
        keeps_kv_bytes=request.spec.engine.kv_cache_memory is not None,
        calibration=request.calibration,
    )


def usual_gpus() -> tuple[Gpu, ...]:
    """Give the GPUs that a plan is compared with: server cards that clouds rent out, the older ones first."""
    known = catalog()
    rented = {*known.gke.values(), *known.karpenter.values()}
    found = [gpu for gpu in recommended() if gpu.name in rented and gpu.has_bf16]
    return tuple(sorted(found, key=lambda gpu: (gpu.compute_capability, gpu.name)))


def _serving(request: PlanRequest, plan: Plan, gpu: Gpu) -> Serving | None:
    version = engine_version(plan.engine_version)
    profile = _profile(request, plan)
    if isinstance(version, Refusal) or profile is None:
        return None
    settings = plan.settings
    return Serving(
        profile=profile,
        shape=settings.shape(version.default_gpu_memory_utilization),
        gpu=gpu,
        version=version,
        kv_tokens=max(1, plan.ledger.kv_tokens),
        same_node=settings.tensor_parallel_size <= plan.gpus_per_replica // plan.nodes_per_replica,
    )


def _profile(request: PlanRequest, plan: Plan) -> ModelProfile | None:
    if plan.model_source is None:
        return request.profile
    found = (option.profile for option in request.alternatives if option.source == plan.model_source)
    return next(found, None)


def _marked(lever: Lever, unpriced: set[str]) -> Lever:
    """Mark a GPU whose price nobody stated: it is ranked by its memory."""
    if lever.is_other_gpu and any(lever.name.endswith(f"x {name}") for name in unpriced):
        return replace(lever, unmeasured=(*lever.unmeasured, _NO_PRICE))
    return lever
