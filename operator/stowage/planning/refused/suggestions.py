"""What would have to change for a model to fit: less context, fewer requests, more or other GPUs.

Computed with the same fit as the plan, over GPUs that the cluster has and over the whole catalog as
hypothetical nodes with 1, 2, 4 or 8 GPUs. Never a rule of thumb.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from stowage.hardware.catalog import catalog
from stowage.hardware.gpu import Gpu
from stowage.memory.constraints import tensor_parallel_sizes
from stowage.memory.kv.attention_backend import stated_kv_dtype
from stowage.planning.groups import GpuGroup, excluded, hypothetical_group
from stowage.planning.prices import nominal_gigabytes
from stowage.planning.search.candidate import Candidate
from stowage.planning.search.fit import Fit, Fitter, Misfit, base_settings
from stowage.planning.search.judge import cost_order
from stowage.planning.search.targets import Target

_NODE_SIZES: Final = (1, 2, 4, 8)
_MOST_SUGGESTIONS: Final = 6
_MOST_FROM_CATALOG: Final = 4
_ROUND_TOKENS: Final = 256
# Consumer and export cards, single boards and whole-rack systems are planned with where they are, but not recommended.
_NOT_RECOMMENDED: Final = frozenset(
    ("GeForce", "GB10", "Jetson", "A5000", "A800", "H800", "H20", "L20", "GH200", "GB200", "GB300")
)


def would_fit(fitter: Fitter, aims: Sequence[Target], groups: Sequence[GpuGroup]) -> tuple[str, ...]:
    """List changes that would make it fit, those within the user's own spec first, then hardware by cost."""
    found = [*_smaller_wishes(fitter, aims[-1], groups), *_more_of_the_same(fitter, aims, groups)]
    known = {group.gpu.name for group in groups}
    options = _of_each_size(fitter, aims[0], [gpu for gpu in recommended() if gpu.name not in known])
    found += [_words(each) for each in sorted(options, key=_cost)[:_MOST_FROM_CATALOG]]
    return tuple(dict.fromkeys(found))[:_MOST_SUGGESTIONS]


def _of_each_size(fitter: Fitter, target: Target, gpus: Sequence[Gpu]) -> Iterator[Candidate]:
    """Give one shape for each memory size of cards: of the card with a fast link, and the slower one of such."""
    sizes: dict[int, list[Gpu]] = {}
    for gpu in sorted(gpus, key=lambda gpu: (not gpu.has_fast_link, gpu.bf16_flops or 0, gpu.name)):
        sizes.setdefault(nominal_gigabytes(gpu), []).append(gpu)
    for alike in sizes.values():
        shapes = (_smallest(fitter, hypothetical_group(gpu), target) for gpu in alike)
        first = next((shape for shape in shapes if shape is not None), None)
        if first is not None:
            yield first


def recommended() -> Iterator[Gpu]:
    """Give the server GPUs of the catalog that one would buy or rent for this."""
    for gpu in catalog().gpus:
        if gpu.vendor == "NVIDIA" and not any(word in gpu.name.split("-") for word in _NOT_RECOMMENDED):
            yield gpu


def _smaller_wishes(fitter: Fitter, target: Target, groups: Sequence[GpuGroup]) -> Iterator[str]:
    """Suggest lower pins that the cluster's own GPUs would hold."""
    lengths: list[tuple[int, str]] = []
    counts: list[tuple[int, str]] = []
    for group in groups:
        for size in range(1, group.most_gpus_on_a_node + 1):
            candidate = _plainest(fitter, group, size)
            misfit = None if candidate is None else _fit(fitter, candidate, target)
            if isinstance(misfit, Misfit):
                where = f"on {size}x {group.gpu.name}"
                lengths.append((misfit.largest_max_model_len or 0, where))
                counts.append((misfit.concurrency or 0, where))
    longest, most = max(lengths, default=(0, "")), max(counts, default=(0, ""))
    rounded = longest[0] // _ROUND_TOKENS * _ROUND_TOKENS
    if target.context_pinned and 0 < rounded < target.context_tokens:
        yield f"spec.workload.maxModelLen ≤ {rounded:,} {longest[1]}"
    if target.concurrency and 0 < most[0] < target.concurrency:
        yield f"spec.workload.concurrencyPerReplica ≤ {most[0]} {most[1]}"


def _more_of_the_same(fitter: Fitter, aims: Sequence[Target], groups: Sequence[GpuGroup]) -> Iterator[str]:
    """Suggest larger or freer nodes with GPUs that the cluster has, with less than is aimed at if it must be."""
    for group in groups:
        for target in aims:
            best = _smallest(fitter, group, target)
            if best is not None:
                yield from _larger_node(best, target, aims[0])
                break


def _larger_node(best: Candidate, target: Target, aim: Target) -> Iterator[str]:
    size, there = best.gpus, best.group.most_gpus_on_a_node
    free = max((node.free_gpus for node in best.group.nodes), default=0)
    less = f", holding {target.kv_tokens:,} tokens" if target.kv_tokens < aim.kv_tokens else ""
    if size > there:
        yield f"{_words(best)} (the largest node has {there}{less})"
    elif size > free:
        yield f"{size} free {best.group.gpu.name} on one node (the most free now is {free}{less})"


def _smallest(fitter: Fitter, group: GpuGroup, target: Target) -> Candidate | None:
    """Find the fewest GPUs of this model that hold the target without doubt."""
    spec = fitter.spec
    if not group.nodes and excluded(
        group, fitter.profile, spec.model_copy(update={"hardware": _any_gpu(fitter)})
    ):
        return None
    for size in _NODE_SIZES:
        candidate = _plainest(fitter, group, size)
        fit = None if candidate is None else _fit(fitter, candidate, target)
        if isinstance(fit, Fit) and not fit.is_tight:
            return candidate
    return None


def _plainest(fitter: Fitter, group: GpuGroup, gpus: int) -> Candidate | None:
    """Give the plainest way to use so many GPUs of one node: layers shared by as many as may be; pins are kept."""
    parallel = fitter.spec.parallelism
    data = parallel.data or 1
    for tensor in reversed(tensor_parallel_sizes(fitter.profile, data)):
        stages = gpus // (tensor * data)
        whole = stages * tensor * data == gpus and (stages == 1 or fitter.profile.supports_pipeline)
        if whole and parallel.tensor in (None, tensor) and parallel.pipeline in (None, stages):
            return Candidate(group, tensor, stages, data)
    return None


def _fit(fitter: Fitter, candidate: Candidate, target: Target) -> Fit | Misfit:
    profile, device, version = fitter.profile, candidate.group.device, fitter.version
    cache = stated_kv_dtype(profile.architecture, version.version, device.compute_capability)
    base = replace(
        base_settings(fitter.spec, version, profile.dtype, cache),
        tensor_parallel_size=candidate.tensor_parallel_size,
        pipeline_parallel_size=candidate.pipeline_parallel_size,
        data_parallel_size=candidate.data_parallel_size,
    )
    return fitter.frugal(device, base, target)


def _cost(candidate: Candidate) -> tuple[float, ...]:
    return cost_order(candidate, _gigabytes(candidate))


def _gigabytes(candidate: Candidate) -> int:
    return nominal_gigabytes(candidate.group.gpu) * candidate.gpus


def _any_gpu(fitter: Fitter) -> object:
    return fitter.spec.hardware.model_copy(update={"gpus": ()})


def _words(candidate: Candidate) -> str:
    return f"{candidate.gpus}x {candidate.group.gpu.name} on one node"
