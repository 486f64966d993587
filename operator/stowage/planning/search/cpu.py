"""Planning for hardware class CPU: one process tree per replica on a node without GPUs, KV bytes always pinned.

The engine's CPU build would otherwise take a share of the whole node. The KV cache is sized for the same
targets as on GPUs, and halved where no node has that much memory left. This class is only ever used when
the spec asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.quantity import parse_quantity_bytes
from stowage.api.refusal import Refusal
from stowage.hardware.inventory import Inventory
from stowage.hardware.room import NodeRoom, PodNeeds, closed, matches_selector
from stowage.memory.device import DeviceMemory
from stowage.memory.release.engine_version import EngineVersion
from stowage.planning.demand import objectives_of
from stowage.planning.notes import certainty_notes, context_notes, host_note, replica_notes
from stowage.planning.placement import places, tolerations_of, why_nowhere
from stowage.planning.precision import precision_words
from stowage.planning.requests import ContainerNeeds, cpu_needs, limit_below
from stowage.planning.result import Placement, Plan, PlanRequest, PlanResult, Rejection
from stowage.planning.search.fit import Fit, Fitter, Misfit, base_settings
from stowage.planning.search.targets import Target, targets
from stowage.planning.settings import EngineSettings

_DEFAULT_MAX_NUM_SEQS: Final = 8
_DEFAULT_MAX_NUM_BATCHED_TOKENS: Final = 2_048
_KV_STEP_BYTES: Final = 256 * 2**20
_KV_ATTEMPTS: Final = 8
CPU_DEVICE: Final = "CPU"


@dataclass(frozen=True, slots=True)
class _Host:
    """What the search needs to know: the request, the snapshot, the nodes in question and the largest of them."""

    request: PlanRequest
    inventory: Inventory
    nodes: tuple[NodeRoom, ...]
    version: EngineVersion
    fitter: Fitter
    device: DeviceMemory


def plan_on_cpus(request: PlanRequest, inventory: Inventory) -> PlanResult:
    """Plan for hardware class CPU."""
    version = request.engine()
    if isinstance(version, Refusal):
        return PlanResult(None, version)
    aims = targets(request.profile, request.spec)
    if isinstance(aims, Refusal):
        return PlanResult(None, aims)
    nodes = tuple(node for node in inventory.nodes if _comes_into_question(node, request))
    if not nodes:
        return PlanResult(None, _no_nodes(inventory, request))
    device = DeviceMemory(
        CPU_DEVICE, max(node.facts.allocatable.memory_bytes for node in nodes), (0, 0), "CPU"
    )
    fitter = Fitter(request.profile, request.spec, version)
    return _search(_Host(request, inventory, nodes, version, fitter, device), aims)


def _search(host: _Host, aims: tuple[Target, ...]) -> PlanResult:
    """Take the highest target that fits a node and has a place; report the last failure where none does."""
    problem = Refusal(Reason.INSUFFICIENT_MEMORY, "No node has memory for this model.")
    rejections: list[Rejection] = []
    for target in aims:
        fit = _fit(host, target)
        if isinstance(fit, Misfit):
            problem = fit.refusal
            rejections.append(_rejection(target, problem))
            continue
        fit = host.fitter.longer(host.device, fit, target, host.request.profile.default_max_model_len)
        needs = cpu_needs(fit.ledger.host_memory_bytes, host.request.spec)
        conflict = limit_below(fit.ledger.host_memory_bytes, host.request.spec)
        found = conflict or _place(host, needs)
        if isinstance(found, Refusal):
            problem = found
            rejections.append(_rejection(target, problem))
            continue
        return PlanResult(_plan(host, fit, needs, found), None, tuple(rejections))
    return PlanResult(None, problem, tuple(rejections))


def _fit(host: _Host, target: Target) -> Fit | Misfit:
    """Find the smallest round KV size that holds the target; a pinned size is taken as it is."""
    attempt: Fit | Misfit = Misfit(Refusal(Reason.INSUFFICIENT_MEMORY, "No KV cache size holds the target."))
    for kv_bytes in _kv_sizes(host, target):
        attempt = host.fitter.check(host.device, _settings(host, target, kv_bytes), target)
        if isinstance(attempt, Fit):
            return attempt
    return attempt


def _kv_sizes(host: _Host, target: Target) -> Iterator[int]:
    pinned = host.request.spec.engine.kv_cache_memory
    if pinned is not None:
        yield parse_quantity_bytes(pinned)
        return
    probe = host.fitter.ledger(host.device, _settings(host, target, _KV_STEP_BYTES))
    if isinstance(probe, Refusal):
        yield _KV_STEP_BYTES
        return
    at_once = target.concurrency * (target.request_tokens + probe.block_size)
    tokens = max(target.kv_tokens, at_once) + 2 * probe.block_size
    size = max(probe.kv_needed_bytes, probe.kv_bytes_per_token * tokens)
    steps = -(-size // _KV_STEP_BYTES)
    for extra in range(_KV_ATTEMPTS):
        yield (steps + extra) * _KV_STEP_BYTES


def _settings(host: _Host, target: Target, kv_bytes: int) -> EngineSettings:
    engine = host.request.spec.engine
    base = base_settings(host.request.spec, host.version, host.request.profile.dtype)
    floor = max(target.concurrency, 1 if engine.max_num_batched_tokens else _DEFAULT_MAX_NUM_SEQS)
    seqs = engine.max_num_seqs or floor
    return replace(
        base,
        tensor_parallel_size=host.request.spec.parallelism.tensor or 1,
        pipeline_parallel_size=host.request.spec.parallelism.pipeline or 1,
        data_parallel_size=host.request.spec.parallelism.data or 1,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        max_model_len=target.context_tokens,
        max_num_seqs=seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens or max(_DEFAULT_MAX_NUM_BATCHED_TOKENS, seqs),
        enforce_eager=engine.enforce_eager is not False,
        kv_cache_memory_bytes=kv_bytes,
    )


def _place(host: _Host, needs: ContainerNeeds) -> tuple[str, ...] | Refusal:
    wanted = _pod_needs(host, needs)
    names = places(wanted, host.nodes, host.inventory.quotas, max(1, host.request.replicas))
    return names or why_nowhere(wanted, host.nodes, host.inventory.quotas, "a replica")


def _pod_needs(host: _Host, needs: ContainerNeeds) -> PodNeeds:
    spec = host.request.spec
    return PodNeeds(needs.requests, dict(spec.hardware.node_selector), tolerations_of(spec, False))


def _plan(host: _Host, fit: Fit, needs: ContainerNeeds, names: tuple[str, ...]) -> Plan:
    request = host.request
    return Plan(
        engine_version=host.version.version,
        image_class="CPU",
        gpu_product=None,
        gpu_resource=None,
        gpus_per_replica=0,
        node_selector=dict(request.spec.hardware.node_selector),
        settings=fit.settings,
        ledger=fit.ledger,
        requests=needs.requests,
        shm_bytes=needs.shm_bytes,
        concurrency_served=fit.concurrency,
        placement=Placement("Now", names, "free CPU and memory of nodes without GPUs"),
        model_revision=request.profile.revision,
        precision=precision_words(request.profile, fit.settings.dtype),
        notes=(*_notes(host, fit, needs, len(names)),),
        request_tokens=fit.request_tokens,
        tolerations=_pod_needs(host, needs).tolerations,
    )


def _notes(host: _Host, fit: Fit, needs: ContainerNeeds, placed: int) -> Iterator[str]:
    engine, kv_bytes = host.request.spec.engine, fit.settings.kv_cache_memory_bytes or 0
    yield "Class CPU is for trying things out: a GPU is one to two orders of magnitude faster."
    if engine.kv_cache_memory is None:
        yield f"The KV cache is set to {kv_bytes / 2**20:,.0f} MiB; spec.engine.kvCacheMemory changes it."
    if engine.enforce_eager is None:
        yield "enforce_eager is on, as compiling takes minutes on CPUs; spec.engine.enforceEager changes it."
    spec = host.request.spec
    if objectives_of(spec).any or spec.workload.requests_per_second is not None:
        yield "Speed is not forecast on CPUs: spec.objectives and requestsPerSecond decide nothing there."
    yield host_note(needs.requests)
    yield from context_notes(host.request, fit)
    yield from certainty_notes(host.version, fit)
    yield from replica_notes(host.request, placed)
    yield from host.request.profile.notes


def _comes_into_question(node: NodeRoom, request: PlanRequest) -> bool:
    return not node.facts.is_gpu_node and matches_selector(node.facts, request.spec.hardware.node_selector)


def _no_nodes(inventory: Inventory, request: PlanRequest) -> Refusal:
    bare = [node for node in inventory.nodes if not node.facts.is_gpu_node]
    if not bare:
        return Refusal(
            Reason.NO_CPU_NODES,
            "The cluster has no node without GPUs.",
            "Add one, or use spec.hardware.class: GPU.",
        )
    labels = ", ".join(f"{key}={value}" for key, value in sorted(request.spec.hardware.node_selector.items()))
    open_nodes = [node for node in bare if closed(node.facts, tolerations_of(request.spec, False)) is None]
    return Refusal(
        Reason.NO_CPU_NODES,
        f"None of the {len(bare)} nodes without GPUs ({len(open_nodes)} of them schedulable) has the labels of "
        f"spec.hardware.nodeSelector ({labels}).",
        "Correct the labels.",
    )


def _rejection(target: Target, why: Refusal) -> Rejection:
    return Rejection(f"CPU with {target.kv_tokens:,} tokens of KV cache", why.reason, why.message)
