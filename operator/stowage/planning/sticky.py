"""Whether a plan in force still fits: its memory, the limits of the spec, and a place for at least one replica.

A serving plan is kept while this holds, so that nothing restarts because a better plan has become possible.
When a changed spec asks for something else is not judged here beyond hard conflicts; who calls decides when
to plan anew.
"""

from __future__ import annotations

from stowage.api.conditions import Reason
from stowage.api.quantity import parse_quantity_bytes
from stowage.api.refusal import Refusal
from stowage.hardware.catalog import find_gpu
from stowage.hardware.inventory import Inventory
from stowage.memory.budget import ledger
from stowage.memory.device import DeviceMemory
from stowage.memory.engine_version import engine_version
from stowage.planning.candidates import is_allowed
from stowage.planning.placement import needs_of, places, why_nowhere
from stowage.planning.result import Plan, PlanRequest


def still_fits(plan: Plan, request: PlanRequest, inventory: Inventory) -> Refusal | None:
    """Tell why a plan cannot be kept for this request and snapshot; None where it can.

    The inventory must count the plan's own replicas as free (`hardware.inventory.release`).
    """
    return _contradicts(plan, request) or _outgrown(plan, request) or _homeless(plan, inventory)


def _contradicts(plan: Plan, request: PlanRequest) -> Refusal | None:
    """Compare the plan with what the spec pins."""
    spec, settings = request.spec, plan.settings
    pairs = (
        ("spec.engine.version", spec.engine.version, plan.engine_version),
        ("spec.hardware.class", spec.hardware.hardware_class.value, plan.image_class),
        ("spec.parallelism.tensor", spec.parallelism.tensor, settings.tensor_parallel_size),
        ("spec.workload.maxModelLen", spec.workload.max_model_len, settings.max_model_len),
        ("spec.engine.maxNumSeqs", spec.engine.max_num_seqs, settings.max_num_seqs),
        (
            "spec.engine.maxNumBatchedTokens",
            spec.engine.max_num_batched_tokens,
            settings.max_num_batched_tokens,
        ),
        (
            "spec.engine.gpuMemoryUtilization",
            spec.engine.gpu_memory_utilization,
            settings.gpu_memory_utilization,
        ),
        ("spec.engine.enforceEager", spec.engine.enforce_eager, settings.enforce_eager),
        ("spec.engine.kvCacheMemory", _pinned_bytes(request), settings.kv_cache_memory_bytes),
        ("the model's revision", request.profile.revision, plan.model_revision),
    )
    for field, asked, planned in pairs:
        if asked is not None and asked != planned:
            return _gone(f"{field} is {asked} and the plan in force was made for {planned}.")
    gpu = find_gpu(plan.gpu_product) if plan.gpu_product else None
    if gpu is not None and not is_allowed(gpu, spec):
        return _gone(f"spec.hardware.gpus does not allow {gpu.name}, which the plan in force uses.")
    if any(plan.node_selector.get(key) != value for key, value in spec.hardware.node_selector.items()):
        return _gone("spec.hardware.nodeSelector differs from that of the plan in force.")
    concurrency = spec.workload.concurrency_per_replica
    if concurrency is not None and concurrency > plan.concurrency_served:
        return _gone(
            f"The plan in force serves {plan.concurrency_served} requests at once, not {concurrency}."
        )
    return None


def _pinned_bytes(request: PlanRequest) -> int | None:
    pinned = request.spec.engine.kv_cache_memory
    return None if pinned is None else parse_quantity_bytes(pinned)


def _outgrown(plan: Plan, request: PlanRequest) -> Refusal | None:
    """Compute the ledger of the plan's own settings anew, on the memory that it was made for."""
    version = engine_version(plan.engine_version)
    if isinstance(version, Refusal):
        return version
    gpu = find_gpu(plan.gpu_product) if plan.gpu_product else None
    capability = gpu.compute_capability if gpu is not None else (0, 0)
    device = DeviceMemory(plan.gpu_product or "CPU", plan.ledger.total_bytes, capability, plan.image_class)
    shape = plan.settings.shape(version.default_gpu_memory_utilization)
    result = ledger(request.profile, shape, device, version)
    if isinstance(result, Refusal):
        return result
    return result.refusal if result.verdict == "DoesNotFit" else None


def _homeless(plan: Plan, inventory: Inventory) -> Refusal | None:
    needs = needs_of(plan)
    if places(needs, inventory.nodes, inventory.quotas, 1):
        return None
    what = f"{plan.gpus_per_replica}x {plan.gpu_product} on one node" if plan.gpu_product else "a replica"
    nodes = tuple(node for node in inventory.nodes if _is_kind(plan, node.facts.is_gpu_node))
    return _gone(why_nowhere(needs, nodes, inventory.quotas, what).message)


def _is_kind(plan: Plan, is_gpu_node: bool) -> bool:
    return is_gpu_node == (plan.gpu_product is not None)


def _gone(message: str) -> Refusal:
    return Refusal(Reason.PLAN_NO_LONGER_FITS, message)
