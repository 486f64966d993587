"""From the best score to a plan: the longest context that fits, the forecast in full, costs, placement and notes.

Nothing is chosen here any more, with one exception: what the chosen shape leaves free (a longer context, fewer
sequences where TPOT asks for it) is settled now, since it is not worth settling for shapes that lose.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from stowage.api.refusal import Refusal
from stowage.performance.estimator import Estimator
from stowage.performance.forecast import Forecast
from stowage.performance.roofline import Roofline
from stowage.planning.attention import attention_choice
from stowage.planning.calibrated import calibrated_words
from stowage.planning.demand import Demand
from stowage.planning.notes import gpu_notes
from stowage.planning.precision import precision_words
from stowage.planning.prices import GPU_HOURS, Prices
from stowage.planning.result import Plan, PlanRequest
from stowage.planning.search.fit import Caps, Fit
from stowage.planning.search.judge import Judge, Score
from stowage.planning.search.solve import largest
from stowage.planning.speed_notes import shortfall_sentences, speed_notes

_LOSSLESS_CACHES: Final = frozenset({"auto", "bfloat16", "float16", "float32"})
_MILLION: Final = 10**6
_SECONDS_PER_HOUR: Final = 3600


def assemble(request: PlanRequest, judge: Judge, score: Score, *, keep_settings: bool = False) -> Plan:
    """Make the plan of a score; `keep_settings` leaves everything as it was judged."""
    if not keep_settings:
        score = _finished(request, judge, score)
    option, fit, group = score.option, score.fit, score.option.candidate.group
    profile = score.variant.profile
    forecast = _forecast(request.estimator or Roofline(), judge, score)
    attention = attention_choice(profile, fit.settings, group.device, judge.version)
    calibrated = calibrated_words(request.calibration, profile, fit.settings, group.device, judge.version)
    placement = option.placement(score.replicas)
    placed = len(placement.node_names) // option.candidate.nodes
    plan = Plan(
        engine_version=judge.version.version,
        image_class="GPU",
        gpu_product=group.gpu.name,
        gpu_resource=group.resource_name,
        gpus_per_replica=option.candidate.gpus,
        node_selector=dict(option.needs.node_selector),
        settings=fit.settings,
        ledger=fit.ledger,
        requests=option.container.requests,
        shm_bytes=option.container.shm_bytes,
        concurrency_served=fit.concurrency,
        placement=placement,
        model_revision=profile.revision,
        precision=_precision(score),
        notes=(
            *gpu_notes(
                replace(request, replicas=score.replicas), judge.version, group, fit, score.target, placed
            ),
            *((attention.warning,) if attention.warning else ()),
            *((f"The memory ledger is calibrated by {calibrated}.",) if calibrated else ()),
            *_pinned_cache(request, score),
        ),
        request_tokens=fit.request_tokens,
        tolerations=option.needs.tolerations,
        replicas=score.replicas,
        nodes_per_replica=option.candidate.nodes,
        model_source=score.variant.source,
        lossy=score.variant.lossy,
        attention_backend=attention.words or None,
        traffic=score.traffic,
        forecast=forecast,
        shortfall=shortfall_sentences(judge, score, forecast),
        calibrated=calibrated,
    )
    priced = with_costs(plan, request.prices, judge.demand)
    return replace(priced, notes=(*priced.notes, *speed_notes(request, judge.demand, priced)))


def with_costs(plan: Plan, prices: Prices, demand: Demand) -> Plan:
    """Add what the plan costs: in the currency of the prices, or in GPU-hours where its GPU has none."""
    name, gpus = plan.gpu_product or "", plan.gpus_per_replica * plan.replicas
    price = prices.per_gpu_hour.get(name)
    hourly = float(gpus) if price is None else gpus * price
    per_second = None
    if plan.forecast is not None:
        per_second = plan.forecast.output_tokens_per_second.central * plan.replicas
    if demand.rate is not None and per_second is not None:
        per_second = min(per_second, demand.rate * demand.output_tokens)
    return replace(
        plan,
        cost_per_hour=hourly,
        cost_per_million_tokens=hourly / (per_second * _SECONDS_PER_HOUR) * _MILLION if per_second else None,
        cost_unit=GPU_HOURS if price is None else prices.currency,
        default_price=price is not None and name in prices.defaults,
    )


def _finished(request: PlanRequest, judge: Judge, score: Score) -> Score:
    """Settle what the shape leaves free."""
    group, target = score.option.candidate.group, score.target
    limit = min(
        max(request.profile.default_max_model_len, target.context_tokens), request.profile.max_model_len
    )
    for fit in (_within_tpot(judge, score), judge.settle(score, Caps())):
        longest = judge.fitter.longer(group.device, fit, target, limit)
        found = judge.judged(score.option, target, longest)
        if isinstance(found, Score) and (found.replicas, found.misses) <= (score.replicas, score.misses):
            return _certain(judge, found)
    return _certain(judge, score)


def _certain(judge: Judge, score: Score) -> Score:
    """Pin a small KV cache, unless the plan would serve less for it."""
    fit = judge.fitter.certain(score.option.candidate.group.device, score.fit, score.target)
    found = judge.judged(score.option, score.target, fit)
    better = isinstance(found, Score) and (found.replicas, found.misses) <= (score.replicas, score.misses)
    return found if isinstance(found, Score) and better else score


def _within_tpot(judge: Judge, score: Score) -> Fit:
    """Lower max_num_seqs to what still answers within the TPOT objective: more would queue rather than slow all."""
    fit, engine = judge.settle(score, Caps()), judge.spec.engine
    ranks = fit.settings.data_parallel_size
    least = max(1, -(-judge.demand.concurrency // ranks)) if judge.demand.rate is None else 1
    if judge.objectives.tpot_seconds is None or engine.max_num_seqs is not None or score.misses:
        return fit

    def slack(seqs: int) -> float:
        return 1 - judge.speed.tpot_ratio(score.option.candidate, fit, seqs * ranks)

    most = fit.settings.max_num_seqs
    seqs = largest(slack, min(least, most), most)
    return fit if seqs >= most else judge.settle(score, Caps(seqs=max(seqs, least)))


def _forecast(estimator: Estimator, judge: Judge, score: Score) -> Forecast | None:
    """Ask for the forecast that is shown; where the estimator has no answer, that of the search stands."""
    serving = judge.speed.serving(score.option.candidate, score.fit.settings, score.fit.ledger.kv_tokens)
    found = estimator.forecast(serving, score.traffic)
    return score.forecast if isinstance(found, Refusal) else found


def _pinned_cache(request: PlanRequest, score: Score) -> tuple[str, ...]:
    """Say that a format which the user pins is lossy: no accuracy check guards a pin."""
    pinned = request.spec.precision.kv_cache
    if pinned.lower() in _LOSSLESS_CACHES or score.variant.profile.kv_cache_dtype == pinned:
        return ()
    return (
        f"spec.precision.kvCache pins {pinned}, which is lossy; a pin is obeyed without an accuracy check.",
    )


def _precision(score: Score) -> str:
    variant, settings = score.variant, score.fit.settings
    if variant.quantization is not None:
        return "fp8"
    return precision_words(variant.profile, settings.dtype)
