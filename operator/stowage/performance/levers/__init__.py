"""What each change alone would bring to a replica: recomputed memory, recomputed forecast, sorted by benefit.

Users ask which technique to adopt; the answer follows from the bottleneck, so each lever carries the reason along.
Levers are never combined here, and nothing is recommended for being fashionable: useless ones are in the list, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import Final, Literal

from stowage.api.refusal import Refusal
from stowage.performance.forecast import Forecast
from stowage.performance.levers.attempt import Attempt
from stowage.performance.levers.effect import (
    Change,
    Effect,
    Lever,
    LeverVerdict,
    percent,
    verdict_of,
)
from stowage.performance.levers.kv import kv_levers, longer_batch
from stowage.performance.levers.precision import precision_levers
from stowage.performance.levers.question import LeverQuestion
from stowage.performance.levers.shape import shape_levers
from stowage.performance.levers.work import work_levers
from stowage.performance.roofline import Roofline
from stowage.performance.serving import Serving
from stowage.performance.traffic import Traffic

Aim = Literal["Cost", "Latency", "Throughput"]
"""What levers are sorted by: cost per token, TTFT and TPOT, or tokens per second of a replica."""

_ORDER: Final = (
    LeverVerdict.HELPS,
    LeverVerdict.TRADES,
    LeverVerdict.USELESS,
    LeverVerdict.HARMS,
    LeverVerdict.IMPOSSIBLE,
)
_SECONDS_PER_HOUR: Final = 3600
_MILLION: Final = 1e6


def levers(question: LeverQuestion, aim: Aim = "Cost") -> tuple[Lever, ...]:
    """List all levers, those that help most first, then trades, the useless, the harmful, the impossible.

    None where the replica cannot serve the traffic at all.
    """
    if isinstance(question.answer, Refusal):
        return ()
    attempts = (
        *precision_levers(question),
        *kv_levers(question),
        *work_levers(question),
        *shape_levers(question),
    )
    found = [judged(question, attempt) for attempt in attempts]
    return tuple(sorted(found, key=lambda lever: _key(lever, aim)))


def judged(question: LeverQuestion, attempt: Attempt) -> Lever:
    """Forecast one attempt and judge what it changes."""
    serving = attempt.serving
    if isinstance(serving, Refusal):
        return _impossible(attempt, serving)
    found: list[Forecast] = []
    for load in _shared(attempt.traffic or question.load, attempt.replicas):
        answer = Roofline(fast=True).forecast(serving, load)
        if isinstance(answer, Refusal):
            return _impossible(attempt, answer)
        found.append(answer)
    effect = _effect(question, attempt, serving, found)
    new = tuple(name for name in found[0].unmeasured if name not in question.base.unmeasured)
    return Lever(
        attempt.name,
        attempt.changes,
        effect,
        verdict_of(effect),
        attempt.why + (_together(question, attempt, serving) if attempt.frees_kv else ""),
        attempt.lossy,
        tuple(dict.fromkeys((*attempt.unmeasured, *new))),
        attempt.assumption,
        attempt.is_other_gpu,
    )


def _together(question: LeverQuestion, attempt: Attempt, freed: Serving) -> str:
    """Say what the freed room would bring with longer batches as well, where these are what stands in the way."""
    wider = longer_batch(question, freed)
    if wider is None:
        return ""
    found = Roofline(fast=True).forecast(wider, attempt.traffic or question.load)
    if isinstance(found, Refusal):
        return ""
    share = found.output_tokens_per_second.central / question.base.output_tokens_per_second.central - 1
    return f"; with max_num_seqs {wider.shape.max_num_seqs} as well: {percent(share)}"


def _impossible(attempt: Attempt, why: Refusal) -> Lever:
    return Lever(
        attempt.name,
        attempt.changes,
        None,
        LeverVerdict.IMPOSSIBLE,
        why.message.rstrip("."),
        attempt.lossy,
        is_other_gpu=attempt.is_other_gpu,
    )


def _shared(load: Traffic, replicas: int) -> list[Traffic]:
    """Give what each of several replicas gets of the requests in flight; one that gets none is left out."""
    whole, rest = divmod(load.concurrency or 1, replicas)
    parts = [whole + (number < rest) for number in range(replicas)]
    return [replace(load, concurrency=part) for part in parts if part]


def _effect(question: LeverQuestion, attempt: Attempt, serving: Serving, found: Sequence[Forecast]) -> Effect:
    """Compare; `decode_factor` shortens what decoding takes of the time in rate and TPOT, prompts taking as long."""
    base, now = question.base, question.serving
    factors = [each.prefill_share + (1 - each.prefill_share) * attempt.decode_factor for each in found]
    pairs = list(zip(found, factors, strict=True))
    rate = sum(each.output_tokens_per_second.central / factor for each, factor in pairs)
    ttft = sum(each.ttft_seconds.central for each in found) / len(found)
    tpot = sum(each.tpot_seconds.central * factor for each, factor in pairs) / len(found)
    hourly = question.hourly(serving.gpu) * serving.shape.world_size * attempt.replicas
    hourly_now = question.hourly(now.gpu) * now.shape.world_size
    rate_now = base.output_tokens_per_second.central
    per_million = _MILLION / _SECONDS_PER_HOUR
    return Effect(
        Change(rate_now, rate),
        Change(base.ttft_seconds.central, ttft),
        Change(base.tpot_seconds.central, tpot),
        Change(question.requests_at_once(now), question.requests_at_once(serving) * attempt.replicas),
        Change(hourly_now, hourly),
        Change(hourly_now / rate_now * per_million, hourly / rate * per_million),
    )


def _key(lever: Lever, aim: Aim) -> tuple[int, float, str]:
    return _ORDER.index(lever.verdict), -_benefit(lever.effect, aim), lever.name


def _benefit(effect: Effect | None, aim: Aim) -> float:
    """Give the logarithm of how many times better it becomes, so that halves and doubles weigh the same."""
    if effect is None:
        return 0.0
    if aim == "Throughput":
        return _times(effect.output_tokens_per_second)
    if aim == "Latency":
        return -_times(effect.ttft_seconds) - _times(effect.tpot_seconds)
    return -_times(effect.cost_per_million_tokens)


def _times(change: Change) -> float:
    return round(log(change.after / change.before), 9) if change.after > 0 and change.before > 0 else 0.0
