"""The best that an option could be, before any memory is computed: what lets the search stop early and still be right.

Every bound is what speed decides with memory out of the way: no settings that fit do better. A bound that were too
high would make the search wrong, so each is physics, or a forecast with limits that no plan exceeds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import Priority
from stowage.performance.capacity import floor as physics
from stowage.performance.forecast import Forecast
from stowage.performance.pace import pace_of
from stowage.performance.step_parts import StepBatch
from stowage.performance.traffic import Traffic
from stowage.planning.candidate import Candidate
from stowage.planning.fit import MOST_SEQUENCES
from stowage.planning.judge import Judge, Key, grade
from stowage.planning.option import Option
from stowage.planning.settings import EngineSettings

_BOUNDLESS: Final = 10**9
_ENDLESS: Final = 10**6
_MOST_BATCHED_TOKENS: Final = 16_384
_MARGIN: Final = 1.05
"""What a forecast with boundless memory is widened by, since it need not be monotonic to the last digit."""


def bound(judge: Judge, option: Option) -> Key:
    """Give a key that no score of this option is below."""
    candidate, rate = option.candidate, judge.demand.rate
    misses = judge.speed.least_misses(candidate, ideal_settings(judge, candidate))
    if rate is None:
        asked = judge.asked_replicas
        placed = min(option.placed, asked)
        known = (0.0, misses, 1 - placed / asked, float(option.to_come(placed) > 0))
        return (*known, *_preference(judge, option, asked))
    most = _optimistic(judge, candidate, judge.demand.closed(_ENDLESS))
    found = 0.0 if most is None else most.requests_per_second.central * _MARGIN
    replicas = judge.speed.replicas_for(found, rate) if found else judge.asked_replicas
    return (0.0, misses, 0.0, 0.0, *_preference(judge, option, replicas))


def quick_bound(judge: Judge, option: Option) -> Key:
    """Give a lower bound that costs next to nothing: of a rate only the arithmetic of its prompts is counted."""
    rate, priority = judge.demand.rate, judge.objectives.priority
    if rate is None:
        return () if priority is Priority.THROUGHPUT else bound(judge, option)
    if priority is not Priority.COST:
        return ()
    candidate, prompt = option.candidate, judge.demand.prompt_tokens
    serving = judge.speed.serving(candidate, ideal_settings(judge, candidate), _BOUNDLESS)
    requests = max(1.0, _MOST_BATCHED_TOKENS / prompt)
    batch = StepBatch(requests * prompt, requests * prompt * prompt / 2, requests)
    stages = candidate.pipeline_parallel_size * candidate.data_parallel_size
    most = stages * requests / max(1e-12, pace_of(serving).ideal_seconds(batch))
    return (0.0, 0.0, 0.0, 0.0, *judge.cheapest(option, judge.speed.replicas_for(most, rate)))


def ideal_settings(judge: Judge, candidate: Candidate) -> EngineSettings:
    """Give settings that no memory limits."""
    engine = judge.spec.engine
    seqs = engine.max_num_seqs or MOST_SEQUENCES
    tokens = engine.max_num_batched_tokens or _MOST_BATCHED_TOKENS
    return replace(
        judge.base(candidate), max_model_len=1, max_num_seqs=seqs, max_num_batched_tokens=max(seqs, tokens)
    )


def _preference(judge: Judge, option: Option, replicas: int) -> Key:
    demand, priority = judge.demand, judge.objectives.priority
    if priority is Priority.COST:
        return judge.cheapest(option, replicas)
    candidate = option.candidate
    if priority is Priority.LATENCY:
        serving = judge.speed.serving(candidate, ideal_settings(judge, candidate), _BOUNDLESS)
        least = physics(serving, demand.closed(1))
        return (grade(least.ttft_seconds + least.tpot_seconds * max(0, demand.output_tokens - 1)),)
    if demand.rate is not None:
        return (-grade(demand.rate * demand.output_tokens * _MARGIN),)
    load = demand.closed(demand.concurrency if demand.concurrency_stated else _ENDLESS)
    most = _optimistic(judge, candidate, load)
    if most is None:
        return (float("-inf"),)
    return (-grade(most.output_tokens_per_second.central * replicas * _MARGIN),)


def _optimistic(judge: Judge, candidate: Candidate, traffic: Traffic) -> Forecast | None:
    found = judge.speed.forecast(candidate, ideal_settings(judge, candidate), _BOUNDLESS, traffic)
    return None if isinstance(found, Refusal) else found
