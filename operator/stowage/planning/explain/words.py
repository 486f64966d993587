"""A planning result in words, and whole as plain values for machines.

Every figure comes from the result; nothing is computed here that planning did not compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stowage.planning.placement import growth_words
from stowage.planning.result import Plan, PlanResult, Rejection
from stowage.planning.search.candidate import split_words


def summary(result: PlanResult) -> str:
    """Say the result in one sentence."""
    if result.plan is None:
        return result.refusal.sentence if result.refusal is not None else "Nothing fits."
    plan, settings = result.plan, result.plan.settings
    growth = growth_words(plan.placement.node_names)
    return (
        f"{shape_words(plan)}, {plan.precision}, {settings.max_model_len:,} tokens of context, "
        f"{plan.concurrency_served:,} requests of {plan.request_tokens:,} tokens at once"
        f"{f'; {growth}' if growth else ''}."
    )


def plan_words(plan: Plan) -> str:
    """Name a plan beside another one: shape, precision, and what is lossy."""
    lossy = f" ({plan.lossy})" if plan.lossy else ""
    return f"{shape_words(plan)}, {plan.precision}{lossy}"


def shape_words(plan: Plan) -> str:
    """Name the shape, as in `4x NVIDIA-L40S (tp4)`."""
    if plan.gpu_product is None:
        return "CPU"
    return f"{gpus_words(plan)} ({parallel_words(plan)})"


def gpus_words(plan: Plan) -> str:
    """Name the GPUs of one replica, as in `4x NVIDIA-L40S`; `CPU` without GPUs."""
    return "CPU" if plan.gpu_product is None else f"{plan.gpus_per_replica}x {plan.gpu_product}"


def parallel_words(plan: Plan) -> str:
    """Name the parallelism, as in `tp4`, `tp4 pp2` or `tp1 dp8 ep`."""
    settings = plan.settings
    return split_words(
        settings.tensor_parallel_size,
        settings.pipeline_parallel_size,
        settings.data_parallel_size,
        expert_parallel=settings.enable_expert_parallel,
    )


def grouped(rejections: Iterable[Rejection]) -> Iterator[tuple[str, int, str]]:
    """Group rejections by reason, the most frequent first: reason, count, one example in words."""
    found: dict[str, list[Rejection]] = {}
    for each in rejections:
        found.setdefault(each.reason.value, []).append(each)
    for reason, members in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        yield reason, len(members), f"{members[-1].candidate}: {members[-1].message}"
