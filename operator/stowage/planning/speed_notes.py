"""The sentences that go with a plan's forecast and costs: what was assumed, what is missed, what prices rest on."""

from __future__ import annotations

from collections.abc import Iterator

from stowage.performance.capacity import floor
from stowage.performance.forecast import Forecast
from stowage.planning.demand import Demand
from stowage.planning.result import Plan, PlanRequest
from stowage.planning.search.judge import Judge, Score


def speed_notes(request: PlanRequest, demand: Demand, plan: Plan) -> tuple[str, ...]:
    """Collect what to know about speed and cost."""
    return (
        *plan.shortfall,
        *_queue_notes(plan),
        *_load_notes(request, demand, plan),
        *_price_notes(request, plan),
    )


def shortfall_sentences(judge: Judge, score: Score, forecast: Forecast | None) -> tuple[str, ...]:
    """Say of each objective that is not met what is forecast instead, and what no load could undercut."""
    if forecast is None:
        return ()
    asked, option = judge.objectives, score.option
    serving = judge.speed.serving(option.candidate, score.fit.settings, score.fit.ledger.kv_tokens)
    least = floor(serving, judge.demand.closed(1))
    tail = asked.percentile > 50
    rows = (
        (
            "ttft",
            asked.ttft_seconds,
            forecast.ttft_p95_seconds,
            forecast.ttft_seconds.central,
            least.ttft_seconds,
        ),
        (
            "tpot",
            asked.tpot_seconds,
            forecast.tpot_p95_seconds,
            forecast.tpot_seconds.central,
            least.tpot_seconds,
        ),
    )
    where = f"at the {asked.percentile}th percentile" if tail else "on average"
    return tuple(
        f"spec.objectives.{name} is {duration(wanted)} and {duration(seen)} {where} is forecast on "
        f"{option.candidate}; no load could bring it below {duration(least_seconds)} there."
        for name, wanted, percentile, mean, least_seconds in rows
        if wanted is not None and (seen := percentile if tail else mean) > wanted
    )


def duration(seconds: float) -> str:
    """Write a time as people do: `850 ms` or `2.4 s`."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def money(amount: float, unit: str) -> str:
    """Write an amount with its unit: three significant figures, never in scientific notation."""
    digits = 2 if amount >= 0.1 else 4
    return f"{amount:,.{digits}f} {unit}"


def _queue_notes(plan: Plan) -> Iterator[str]:
    """Say that requests wait for room in the KV cache, which no other figure of a plan tells."""
    if plan.forecast is not None and plan.forecast.kv_queue is not None:
        yield (
            f"{plan.forecast.kv_queue.sentence} More or larger GPUs in a replica, more replicas or a KV cache in "
            "8 bits would let more of them run."
        )


def _load_notes(request: PlanRequest, demand: Demand, plan: Plan) -> Iterator[str]:
    if demand.rate is not None and plan.replicas > request.replicas:
        yield (
            f"{demand.rate:g} requests per second take {plan.replicas} replicas; "
            f"spec.replicas asks for {request.replicas}."
        )
    missing = [
        what
        for what, known in (
            (
                f"prompts of {demand.prompt_tokens:,} and answers of {demand.output_tokens:,} tokens",
                demand.lengths_stated,
            ),
            (
                f"{demand.concurrency} requests in flight",
                demand.concurrency_stated or demand.rate is not None,
            ),
        )
        if not known
    ]
    if missing and plan.forecast is not None:
        yield f"Speed is forecast for {' and '.join(missing)}, which spec.workload does not state."


def _price_notes(request: PlanRequest, plan: Plan) -> Iterator[str]:
    if plan.gpu_product is None or plan.cost_per_hour is None:
        return
    price = request.prices.per_gpu_hour.get(plan.gpu_product)
    if price is None:
        yield f"{plan.gpu_product} has no price: costs are in GPU-hours."
    elif plan.default_price:
        unit = request.prices.currency
        yield f"Costs rest on the default price of {money(price, unit)} per {plan.gpu_product} hour; state your own."
