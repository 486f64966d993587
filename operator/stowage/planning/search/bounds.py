"""The best that an option could be, before it is judged: what lets the search stop early and still be right.

Every bound is what speed or memory decides with the other out of the way: no settings that fit do better. A bound that
were too high would make the search wrong, so each is physics, or a forecast with limits that no plan exceeds; tests
compare the search with one that judges everything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import Priority
from stowage.memory.release.batch_limits import default_batch_limits
from stowage.performance.bands import unmeasured
from stowage.performance.capacity import Floor
from stowage.performance.pace import pace_of
from stowage.performance.serving import Serving
from stowage.performance.steady import Sketch
from stowage.performance.step_parts import StepBatch
from stowage.performance.traffic import Traffic
from stowage.planning.search.candidate import Candidate
from stowage.planning.search.fit import LEAST_BATCHED_TOKENS, MOST_SEQUENCES, Misfit
from stowage.planning.search.judge import DOUBT, Judge, Key, cost_order, grade
from stowage.planning.search.option import Option
from stowage.planning.search.targets import Target
from stowage.planning.settings import EngineSettings

_BOUNDLESS: Final = 10**9
_ENDLESS: Final = 10**6
_MOST_BATCHED_TOKENS: Final = 16_384
_BUDGETS: Final = (LEAST_BATCHED_TOKENS, 2048, _MOST_BATCHED_TOKENS)
_FEW_RUNNING: Final = 256
"""Requests beyond which small budgets of tokens per step bring no more: steps are full of answers anyway."""

_MARGIN: Final = 1.07
"""What a rate with boundless memory is widened by, since it need not be monotonic to the last digit."""

_PIPELINE_MARGIN: Final = 1.15
"""The same where chunks fill the stages of a pipeline more or less evenly."""

_LATENCY_MARGIN: Final = 1.1
"""The same for latencies, of which only the ends of the range of budgets are tried."""

_EXACT: Final = 1 + 1e-9


def bound(judge: Judge, option: Option) -> Key:
    """Give a key that no score of this option is below."""
    candidate, rate = option.candidate, judge.demand.rate
    misses = judge.speed.least_misses(candidate, ideal_settings(judge, candidate))
    if rate is None:
        return (0.0, misses, *_place(judge, option), *_preference(judge, option, judge.asked_replicas))
    return (0.0, misses, 0.0, 0.0, *_preference(judge, option, _replicas(judge, candidate, rate, _BOUNDLESS)))


def quick_bound(judge: Judge, option: Option) -> Key:
    """Give a lower bound that costs next to nothing: of a rate only the arithmetic of its prompts is counted."""
    rate, priority = judge.demand.rate, judge.objectives.priority
    if rate is None and priority is Priority.COST:
        return (0.0, 0.0, *_place(judge, option), *judge.cheapest(option, judge.asked_replicas))
    if rate is None or priority is Priority.LATENCY:
        return ()
    candidate, prompt = option.candidate, judge.demand.prompt_tokens
    requests = max(1.0, _MOST_BATCHED_TOKENS / prompt)
    batch = StepBatch(requests * prompt, requests * prompt * prompt / 2, requests)
    stages = candidate.pipeline_parallel_size * candidate.data_parallel_size
    most = stages * requests / max(1e-12, pace_of(_ideal(judge, candidate)).ideal_seconds(batch))
    return (0.0, 0.0, 0.0, 0.0, *_preference(judge, option, judge.speed.replicas_for(most, rate)))


def is_beaten(judge: Judge, option: Option, target: Target, beat: Key) -> bool:
    """Tell whether it is certain that no score of the option at this target is as low as `beat`.

    First by what latencies are at least, then, where a rate says how many replicas there are, by the most tokens of KV
    cache that any settings leave: those of the most frugal ones.
    """
    if beat < _least_key(judge, option, target):
        return True
    rate, candidate = judge.demand.rate, option.candidate
    if rate is None or judge.objectives.priority is Priority.LATENCY:
        return False
    frugal = judge.frugal(candidate, target)
    if isinstance(frugal, Misfit):
        return False
    replicas = _replicas(judge, candidate, rate, frugal.ledger.kv_tokens)
    return beat < (0.0, 0.0, 0.0, 0.0, *_preference(judge, option, replicas))


def ideal_settings(judge: Judge, candidate: Candidate) -> EngineSettings:
    """Give settings that no memory limits."""
    known = judge.ideals.get(id(candidate))
    if known is None:
        engine, base = judge.spec.engine, judge.base(candidate)
        seqs = engine.max_num_seqs or MOST_SEQUENCES
        tokens = max(seqs, engine.max_num_batched_tokens or _MOST_BATCHED_TOKENS)
        found = replace(base, max_model_len=1, max_num_seqs=seqs, max_num_batched_tokens=tokens)
        known = judge.ideals[id(candidate)] = candidate, found
    return known[1]


def _ideal(judge: Judge, candidate: Candidate) -> Serving:
    return judge.speed.serving(candidate, ideal_settings(judge, candidate), _BOUNDLESS)


def _floor(judge: Judge, candidate: Candidate) -> Floor:
    return judge.speed.floor(candidate, ideal_settings(judge, candidate), candidate.pipeline_parallel_size)


def _place(judge: Judge, option: Option) -> Key:
    """Grade the places of the replicas that are asked for: how many are missing, and whether any is to come."""
    asked = judge.asked_replicas
    placed = min(option.placed, asked)
    return 1 - placed / asked, float(option.to_come(placed) > 0)


def _replicas(judge: Judge, candidate: Candidate, rate: float, kv_tokens: int) -> int:
    """Give the fewest replicas that a rate takes where a rank has so many tokens of KV cache."""
    most = _most_rate(judge, candidate, kv_tokens, judge.demand.closed(_ENDLESS))
    return judge.asked_replicas if most is None else judge.speed.replicas_for(most, rate)


def _margin(judge: Judge, candidate: Candidate) -> float:
    """Widen a saturated rate by what fewer requests in flight could do better.

    Answers do not wait for their own prompt, so that with as many requests as an answer has tokens one step in so
    many is spared; it is worth more the shorter answers are.
    """
    answers = max(1, judge.demand.output_tokens - 1)
    margin = _MARGIN if candidate.pipeline_parallel_size == 1 else _PIPELINE_MARGIN
    return margin * (1 + answers) ** 2 / (1 + answers + answers**2)


def _preference(judge: Judge, option: Option, replicas: int) -> Key:
    """Bound what the priority asks for, with so many replicas or more."""
    demand, priority, candidate = judge.demand, judge.objectives.priority, option.candidate
    if priority is Priority.COST:
        return judge.cheapest(option, replicas)
    serving = _ideal(judge, candidate)
    doubt = DOUBT ** len(unmeasured(serving))
    if priority is Priority.LATENCY:
        least = _floor(judge, candidate)
        seconds = least.ttft_seconds + least.tpot_seconds * max(0, demand.output_tokens - 1)
        return (grade(seconds * doubt / _EXACT),)
    if demand.rate is not None:
        brought = demand.rate * demand.output_tokens / doubt * _EXACT
        return (-grade(brought), *cost_order(candidate, option.hourly * replicas))
    load = demand.closed(demand.concurrency if demand.concurrency_stated else _ENDLESS)
    most = _most_rate(judge, candidate, _BOUNDLESS, load)
    if most is None:
        return (float("-inf"),)
    return (-grade(most * demand.output_tokens * replicas / doubt),)


def _most_rate(judge: Judge, candidate: Candidate, kv_tokens: int, traffic: Traffic) -> float | None:
    """Give requests per second that no budget of tokens per step exceeds.

    Large budgets waste least on prompts; with few requests in flight small ones bring more, since answers go on beside
    chunks of the others' prompts. Between those that are tried the rate is a few percent higher at most.
    """
    ideal, rates = ideal_settings(judge, candidate), list[float]()
    running = min(
        ideal.max_num_seqs, kv_tokens / traffic.mean_context_tokens, traffic.concurrency or _ENDLESS
    )
    many = running > _FEW_RUNNING or judge.spec.engine.max_num_batched_tokens is not None
    for tokens in (ideal.max_num_batched_tokens,) if many else _BUDGETS:
        settings = replace(ideal, max_num_batched_tokens=max(ideal.max_num_seqs, tokens))
        found = judge.speed.sketch(candidate, settings, kv_tokens, traffic)
        if isinstance(found, Refusal):
            return None
        rates.append(found.request_rate)
    return max(rates) * _margin(judge, candidate)


def _least_key(judge: Judge, option: Option, target: Target) -> Key:
    known = judge.leasts.get((id(option), target))
    if known is None:
        known = judge.leasts[id(option), target] = option, _key_of_latencies(judge, option, target)
    return known[1]


def _key_of_latencies(judge: Judge, option: Option, target: Target) -> Key:
    """Bound a key by latencies that no budget of tokens per step goes below, with memory out of the way.

    TTFT and TPOT pull the budget to different ends, so each is taken at the end that suits it.
    """
    asked, demand = judge.objectives, judge.demand
    latency = asked.priority is Priority.LATENCY
    if not latency and (not asked.any or demand.rate is not None):
        return ()
    ends = _at_both_ends(judge, option.candidate, target)
    if not ends:
        return ()
    ratios = [judge.speed.ratios(found) for found in ends]
    worst = max(min(ttft for ttft, _ in ratios), min(tpot for _, tpot in ratios)) / _LATENCY_MARGIN
    misses = worst if worst > 1 else 0.0
    if not latency:
        return (0.0, misses)
    answers = max(0, demand.output_tokens - 1)
    seconds = min(found.ttft for found in ends) + answers * min(found.tpot for found in ends)
    doubt = DOUBT ** len(unmeasured(_ideal(judge, option.candidate)))
    place = _place(judge, option) if demand.rate is None else (0.0, 0.0)
    return (0.0, misses, *place, grade(seconds * doubt / _LATENCY_MARGIN))


def _at_both_ends(judge: Judge, candidate: Candidate, target: Target) -> list[Sketch]:
    """Sketch the fewest and the most tokens per step that come into question, at the least load that is certain."""
    demand, engine = judge.demand, judge.spec.engine
    least_tokens = max(target.kv_tokens, target.concurrency * target.request_tokens)
    held = least_tokens >= demand.concurrency * demand.closed().peak_context_tokens
    own_load = judge.objectives.priority is Priority.THROUGHPUT and not demand.concurrency_stated
    is_certain = demand.rate is None and held and not own_load
    load = demand.closed() if is_certain else demand.closed(1)
    most = engine.max_num_batched_tokens
    default = default_batch_limits(candidate.group.device, judge.version)[1]
    seqs = engine.max_num_seqs or MOST_SEQUENCES
    base = replace(judge.base(candidate), max_model_len=target.context_tokens, max_num_seqs=seqs)
    found: list[Sketch] = []
    least = _floor(judge, candidate).ttft_seconds
    for tokens in {most} if most is not None else (LEAST_BATCHED_TOKENS, default):
        settings = replace(base, max_num_batched_tokens=tokens)
        sketched = judge.speed.sketch(candidate, settings, _BOUNDLESS, load)
        if isinstance(sketched, Refusal):
            return []
        if candidate.pipeline_parallel_size > 1 and not is_certain:
            # More requests than one fill the stages better, which it says nothing of.
            sketched = replace(sketched, ttft=least, ttft_percentile=least)
        found.append(sketched)
    return found
