"""The plan in force is kept while it still fits: what a better one would bring is shown, not taken.

A plan that changes because a node appeared would restart replicas that serve; only what the user changes, or what no
longer fits, makes a new one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from stowage.api.v1alpha1 import Priority
from stowage.memory.device import DeviceMemory
from stowage.planning.assemble import assemble
from stowage.planning.result import Plan, PlanRequest
from stowage.planning.search.candidate import Candidate
from stowage.planning.search.fit import Misfit
from stowage.planning.search.judge import Score, request_seconds
from stowage.planning.search.option import Option
from stowage.planning.search.shapes import Search
from stowage.planning.search.targets import Target

_STEPS: Final = 4
"""Parts of a score's key before what the priority asks for: doubt, missed objectives, places, nodes to come."""

_MARGIN: Final = 0.1
"""Share by which a new plan must be better in what the priority asks for: forecasts are no surer than that."""


def keep(request: PlanRequest, search: Search, plan: Plan, best: Score) -> tuple[Plan, Plan | None]:
    """Give the plan to take and, where that is the one in force, the new one if it would be better by the margin.

    The plan in force is judged anew with its own settings: its place, its ledger and its forecast are those of now.
    """
    old = request.in_force
    if old is None or old.digest() == plan.digest():
        return plan, None
    score = _still_fits(search, old, best)
    if score is None:
        return plan, None
    kept = assemble(request, search.judge, score, keep_settings=True)
    meets_more = len(plan.shortfall) < len(kept.shortfall)
    return kept, plan if meets_more or _is_worth_telling(best, score) else None


def _is_worth_telling(best: Score, score: Score) -> bool:
    """Whether replicas might be replaced for it: surer, closer to the objectives, placed, or a tenth better."""
    if best.order >= score.order:
        return False
    first = next(
        (
            (new, old)
            for new, old in zip(best.key[:_STEPS], score.key[:_STEPS], strict=True)
            if new < old * (1 - _MARGIN) or new > old
        ),
        None,
    )
    if first is not None:
        return first[0] < first[1]
    return _preferred_by_margin(best, score)


def _preferred_by_margin(best: Score, score: Score) -> bool:
    new, old = best.forecast, score.forecast
    if score.priority is Priority.COST or new is None or old is None:
        return best.hourly <= score.hourly * (1 - _MARGIN)
    if score.priority is Priority.LATENCY:
        output = score.traffic.output_tokens
        return request_seconds(new, output) <= request_seconds(old, output) * (1 - _MARGIN)
    rates = (
        new.output_tokens_per_second.central * best.replicas,
        old.output_tokens_per_second.central * score.replicas,
    )
    return rates[0] >= rates[1] * (1 + _MARGIN)


def _still_fits(search: Search, old: Plan, best: Score) -> Score | None:
    option = next((each for each in search.options if _is_of(each, old)), None)
    same_model = (
        old.model_revision == search.judge.variant.profile.revision
        and old.lossy == search.judge.variant.lossy
    )
    if option is None or option.nowhere is not None or not same_model:
        return None
    if old.engine_version != search.judge.version.version:
        return None
    rank = best.target.per_rank(old.settings.data_parallel_size)
    if best.target.context_pinned and old.settings.max_model_len != best.target.context_tokens:
        return None
    device, fitter = option.candidate.group.device, search.judge.fitter
    if not _same_cache(search, old, device, best.target):
        return None
    fit = fitter.check(device, old.settings, rank)
    if isinstance(fit, Misfit) or (fit.is_tight and not best.fit.is_tight):
        return None
    found = search.judge.judged(option, best.target, fit)
    worse = isinstance(found, Misfit) or (found.misses > 0 and not best.misses) or _pins_changed(search, old)
    return None if worse or isinstance(found, Misfit) else found


def _same_cache(search: Search, old: Plan, device: DeviceMemory, target: Target) -> bool:
    """Whether the old plan's KV bytes are those that the spec pins, or that a plan of today would pin by itself."""
    pinned = search.judge.base(search.options[0].candidate).kv_cache_memory_bytes
    if pinned is not None or old.settings.kv_cache_memory_bytes is None:
        return pinned == old.settings.kv_cache_memory_bytes
    fitter, free = search.judge.fitter, replace(old.settings, kv_cache_memory_bytes=None)
    fit = fitter.check(device, free, target.per_rank(free.data_parallel_size))
    if isinstance(fit, Misfit):
        return False
    return (
        fitter.certain(device, fit, target).settings.kv_cache_memory_bytes
        == old.settings.kv_cache_memory_bytes
    )


def _pins_changed(search: Search, old: Plan) -> bool:
    """Whether a setting that the spec pins is another one in the old plan."""
    engine, settings = search.judge.spec.engine, old.settings
    base = search.judge.base(search.options[0].candidate)
    pairs = (
        (engine.max_num_seqs, settings.max_num_seqs),
        (engine.max_num_batched_tokens, settings.max_num_batched_tokens),
        (engine.gpu_memory_utilization, settings.gpu_memory_utilization),
        (engine.enforce_eager, settings.enforce_eager),
    )
    same = (base.kv_cache_dtype, base.quantization) == (settings.kv_cache_dtype, settings.quantization)
    return not same or any(pin is not None and pin != value for pin, value in pairs)


def _is_of(option: Option, old: Plan) -> bool:
    candidate: Candidate = option.candidate
    settings = old.settings
    split = (settings.tensor_parallel_size, settings.pipeline_parallel_size, settings.data_parallel_size)
    return (
        candidate.group.gpu.name == old.gpu_product
        and candidate.group.resource_name == old.gpu_resource
        and dict(option.needs.node_selector) == dict(old.node_selector)
        and (candidate.tensor_parallel_size, candidate.pipeline_parallel_size, candidate.data_parallel_size)
        == split
        and candidate.expert_parallel == settings.enable_expert_parallel
        and candidate.nodes == old.nodes_per_replica
    )
