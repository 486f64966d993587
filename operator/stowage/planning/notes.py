"""The sentences that go with a plan: which defaults were chosen and why, and how sure the prediction is.

Everything that a user did not ask for and still gets is named here, with the field that changes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from stowage.hardware.resources import Resources
from stowage.memory.release.engine_version import EngineVersion
from stowage.planning.groups import GpuGroup, needs_float16
from stowage.planning.result import PlanRequest
from stowage.planning.search.fit import Fit
from stowage.planning.search.targets import (
    DEFAULT_CONCURRENCY,
    DEFAULT_KV_TOKENS,
    DEFAULT_REQUEST_TOKENS,
    Target,
)


def gpu_notes(
    request: PlanRequest, version: EngineVersion, group: GpuGroup, fit: Fit, target: Target, placed: int
) -> tuple[str, ...]:
    """Collect the notes of a GPU plan."""
    return (
        *context_notes(request, fit),
        *_size_notes(request, target),
        *_batch_notes(request, fit),
        *_share_notes(request, version, fit),
        *_cache_notes(request, fit),
        *_gpu_notes(request, group),
        *certainty_notes(version, fit),
        *replica_notes(request, placed),
        *request.profile.notes,
    )


def context_notes(request: PlanRequest, fit: Fit) -> Iterator[str]:
    """Say how the context length came about, where nobody asked for it."""
    if request.spec.workload.max_model_len is not None:
        return
    got, limit = fit.settings.max_model_len, request.profile.default_max_model_len
    if got >= limit:
        yield f"max_model_len is {got:,}, the model's own limit; spec.workload.maxModelLen changes it."
    else:
        yield (
            f"max_model_len is {got:,} of the model's {limit:,}: what fits. "
            "Set spec.workload.maxModelLen to ask for more, which may take more or larger GPUs."
        )


def _cache_notes(request: PlanRequest, fit: Fit) -> Iterator[str]:
    """Say that the plan itself pins the KV cache."""
    pinned = fit.settings.kv_cache_memory_bytes
    if pinned is not None and request.spec.engine.kv_cache_memory is None:
        yield (
            f"The KV cache is pinned to {pinned / 2**30:.2f} GiB (--kv-cache-memory-bytes): it is a small part of the "
            "card, so its size would be uncertain otherwise; spec.engine.kvCacheMemory changes it."
        )


def certainty_notes(version: EngineVersion, fit: Fit) -> Iterator[str]:
    """Say what the prediction rests on, where that is less than usual."""
    if fit.is_tight:
        yield (
            fit.ledger.caution or "It fits only if the estimated parts of the ledger do not turn out larger."
        )
    if version.note is not None:
        yield version.note


def replica_notes(request: PlanRequest, placed: int) -> Iterator[str]:
    """Say when fewer replicas have a place than are asked for."""
    if placed < request.replicas:
        have = "has" if placed == 1 else "have"
        wanted = "asked for" if request.spec.workload.requests_per_second is None else "needed"
        yield f"{request.replicas} replicas are {wanted} and {placed or 'none'} {have} a place now."


def host_note(requests: Resources) -> str:
    """Say what a replica requests of its node's host."""
    cores = requests.cpu_millicores / 1000
    unit = "core" if cores == 1 else "cores"
    return f"Requests {cores:g} {unit} and {requests.memory_bytes / 2**30:.1f} GiB of memory."


def _size_notes(request: PlanRequest, target: Target) -> Iterator[str]:
    if target.concurrency:
        if not target.request_stated:
            yield (
                f"Requests are taken to be {target.request_tokens:,} tokens long on average; "
                "state spec.workload.promptTokens and outputTokens."
            )
        return
    if target.kv_tokens >= DEFAULT_KV_TOKENS:
        if request.spec.workload.requests_per_second is not None:
            return
        yield (
            f"No concurrency is stated: sized for {DEFAULT_KV_TOKENS:,} tokens of KV cache "
            f"({DEFAULT_CONCURRENCY} requests of {DEFAULT_REQUEST_TOKENS:,}); set spec.workload.concurrencyPerReplica."
        )
    else:
        yield (
            f"No usable GPU holds the {DEFAULT_KV_TOKENS:,} tokens of KV cache that are aimed at by default; "
            f"sized for {target.kv_tokens:,}."
        )


def _batch_notes(request: PlanRequest, fit: Fit) -> Iterator[str]:
    engine, now = request.spec.engine, fit.settings
    rows = (
        ("max_num_seqs", engine.max_num_seqs, fit.defaults[0], now.max_num_seqs),
        (
            "max_num_batched_tokens",
            engine.max_num_batched_tokens,
            fit.defaults[1],
            now.max_num_batched_tokens,
        ),
    )
    changes = [
        f"{name} {before:,} → {after:,}"
        for name, pinned, before, after in rows
        if pinned is None and before not in (0, after)
    ]
    if changes:
        yield (
            f"{' and '.join(changes)} (engine's default → plan): as many sequences as the cache holds requests, and "
            "the tokens per step that leave it that much."
        )


def _share_notes(request: PlanRequest, version: EngineVersion, fit: Fit) -> Iterator[str]:
    share, default = fit.settings.gpu_memory_utilization, version.default_gpu_memory_utilization
    if request.spec.engine.gpu_memory_utilization is None and share is not None and share != default:
        yield (
            f"gpu_memory_utilization {default:g} → {share:g} (engine's default → plan): so much is sure to be free "
            "when the engine starts."
        )


def _gpu_notes(request: PlanRequest, group: GpuGroup) -> Iterator[str]:
    if needs_float16(group.gpu, request.profile):
        yield f"{group.gpu.name} does not compute in bfloat16: the bfloat16 checkpoint runs as float16."
    if not group.gpu.cuda_total_measured:
        yield f"The memory that CUDA sees on {group.gpu.name} is estimated from the driver's figure."
