"""The closed form: what a steady load comes to, by a fixed point instead of stepping the scheduler.

In a steady state every request in flight brings its prompt once and then decodes, so that the mean step mixes
prompts and decoding in the ratio of their tokens. Cheap enough for a search over thousands of shapes; it
leaves out what order and chance do, which `simulation` knows. Both agree within 15 % in TPOT and, as waiting is what
chance is about, within 55 % in TTFT (tests/performance/test_schedule.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from stowage.performance.outcome import Outcome
from stowage.performance.pace import Pace, pace_of
from stowage.performance.serving import Serving
from stowage.performance.step_parts import StepBatch, StepTime
from stowage.performance.traffic import Traffic

_ROUNDS: Final = 8
_SEARCH_ROUNDS: Final = 18
_SEARCH_DEPTH: Final = 3
_WAVES: Final = 10
"""Requests of a run for each one in flight, as benchmark clients send them: the first wave is one of so many."""

_LATEST: Final = 0.8
"""What the 95th percentile of a first wave waits beyond its mean, in means: waits are spread evenly up to twice."""

_TPOT_TAIL: Final = 1.1
"""The 95th percentile of TPOT over its mean in stepped runs of requests with lengths within 10 %."""

_QUEUE_LIMIT: Final = 0.98
_FEW_REQUESTS: Final = 100
_LEAST: Final = 1e-3


@dataclass(frozen=True, slots=True)
class _State:
    """A steady state: requests in flight inside the engine, and the mean steps that it is made of."""

    batch: float
    load: _Load
    plain: StepTime
    prompt: StepTime
    chunk_seconds: float


def steady(serving: Serving, traffic: Traffic) -> Outcome:
    """Work out the steady state of this traffic."""
    pace, limit = pace_of(serving), batch_limit(serving, traffic)
    if traffic.concurrency is not None:
        return _closed_loop(serving, traffic, pace, limit)
    return _open_loop(serving, traffic, pace, limit)


def batch_limit(serving: Serving, traffic: Traffic) -> tuple[float, str]:
    """Give the most requests that one data-parallel rank runs at once, and the setting that says so."""
    by_kv = max(1.0, serving.kv_tokens / max(1.0, traffic.mean_context_tokens))
    if by_kv < serving.shape.max_num_seqs:
        return by_kv, "kv_tokens"
    return float(serving.shape.max_num_seqs), "max_num_seqs"


@dataclass(frozen=True, slots=True)
class _Load:
    """One data-parallel rank with so many requests in flight: prompts in `chunks`, in a `share` of the steps."""

    decoding: float
    chunks: int
    share: float
    tpot: float
    ttft: float
    service: float


def _load(serving: Serving, traffic: Traffic, pace: Pace, batch: float, rounds: int = _ROUNDS) -> _Load:
    """Find the load at which requests that leave are replaced at once, with token counts rounded a little."""
    decoding, found = batch, None
    for _ in range(rounds):
        plain = pace.quick(*_fields(_decode_batch(traffic, decoding)))
        chunks = _chunks(serving, traffic, decoding)
        mixed = pace.quick(*_fields(_mixed_batch(traffic, decoding, chunks)))
        found = _mixture(serving, traffic, batch, (decoding, plain, mixed))
        answering = found.service - found.ttft
        decoding = 0.5 * (decoding + batch * answering / found.service)
    return replace(found, decoding=decoding) if found else _Load(batch, 1, 0.0, 0.0, 0.0, 0.0)


def _mixture(serving: Serving, traffic: Traffic, batch: float, steps: tuple[float, float, float]) -> _Load:
    """Mix plain and mixed steps; `steps` are the requests that decode, and the seconds of both kinds.

    A request meets the prompts of all others while it answers. Where every step has a prompt and more come than
    the token budget takes, the budget sets the pace.
    """
    decoding, plain, mixed = steps
    prompt, output = traffic.computed_prompt_tokens, traffic.output_tokens
    chunks, answers = _chunks(serving, traffic, decoding), max(0, output - 1)
    share = max(0.0, batch - 1) * chunks / (chunks + max(1, answers))
    room = max(1.0, serving.shape.max_num_batched_tokens - decoding)
    overload = max(1.0, batch * prompt / (output * room)) if share >= 1.0 else 1.0
    share = min(1.0, share)
    tpot, ttft = overload * (share * mixed + (1 - share) * plain), chunks * mixed
    return _Load(decoding, chunks, share, tpot, ttft, ttft + answers * tpot)


def _state(serving: Serving, traffic: Traffic, pace: Pace, batch: float) -> _State:
    """Work the steady state out exactly, once its load is found."""
    load = _load(serving, traffic, pace, batch)
    plain = pace.step(_decode_batch(traffic, load.decoding))
    mixed = pace.step(_mixed_batch(traffic, load.decoding, load.chunks))
    found = _mixture(serving, traffic, batch, (load.decoding, plain.total, mixed.total))
    prompt = pace.step(_mixed_batch(traffic, 0.0, found.chunks))
    return _State(batch, found, plain, prompt, max(0.0, mixed.total - plain.total))


def _chunks(serving: Serving, traffic: Traffic, decoding: float) -> int:
    room = max(1.0, serving.shape.max_num_batched_tokens - decoding)
    return ceil(traffic.computed_prompt_tokens / room)


def _fields(batch: StepBatch) -> tuple[float, float, float, float, float]:
    return (
        batch.prefill_tokens,
        batch.prefill_pairs,
        batch.prefill_sequences,
        batch.decode_sequences,
        batch.decode_context,
    )


def _decode_batch(traffic: Traffic, decoding: float) -> StepBatch:
    return StepBatch(decode_sequences=decoding, decode_context=decoding * traffic.mean_context_tokens)


def _mixed_batch(traffic: Traffic, decoding: float, chunks: int) -> StepBatch:
    chunk = traffic.computed_prompt_tokens / chunks
    cached = traffic.prompt_tokens - traffic.computed_prompt_tokens
    pairs = chunk * (cached + traffic.computed_prompt_tokens / 2)
    return StepBatch(chunk, pairs, 1 / chunks, decoding, decoding * traffic.mean_context_tokens)


def _closed_loop(serving: Serving, traffic: Traffic, pace: Pace, limit: tuple[float, str]) -> Outcome:
    ranks = serving.shape.data_parallel_size
    asked = (traffic.concurrency or 1) / ranks
    state = _state(serving, traffic, pace, min(asked, limit[0]))
    rate = state.batch / state.load.service
    queued = max(0.0, asked - state.batch) / rate
    first = _first_wave(serving, traffic, pace, state.batch)
    calm = state.load.ttft + lag(pace, state.load.tpot) + queued
    burst = max(calm, first + pace.table.request_seconds + queued / 2)
    figures = _Figures(
        rate=rate * ranks,
        ttft=(burst + (_WAVES - 1) * calm) / _WAVES,
        tail=burst + first * _LATEST,
        in_flight=asked * ranks,
        limit=limit[1] if asked > limit[0] else "concurrency",
    )
    return _outcome(traffic, state, figures)


def lag(pace: Pace, step_seconds: float) -> float:
    """Give what a request waits besides its own steps: client and server, and the steps already under way.

    Half a step on average until the engine plans one; and one more where that was planned already.
    """
    return pace.table.request_seconds + step_seconds * (1.5 if pace.schedules_ahead else 0.5)


def _first_wave(serving: Serving, traffic: Traffic, pace: Pace, batch: float) -> float:
    """Give the mean wait when `batch` requests come at once: prompts are taken a budget at a time."""
    prompt, budget = traffic.computed_prompt_tokens, serving.shape.max_num_batched_tokens
    steps = max(1.0, batch * prompt / budget)
    tokens = min(float(budget), batch * prompt)
    requests = tokens / prompt
    mean_pairs = tokens * (traffic.prompt_tokens - prompt / 2)
    full = pace.seconds(StepBatch(tokens, mean_pairs, requests))
    return full * (steps + 1) / 2


def _open_loop(serving: Serving, traffic: Traffic, pace: Pace, limit: tuple[float, str]) -> Outcome:
    ranks = serving.shape.data_parallel_size
    wanted = (traffic.requests_per_second or 0.0) / ranks
    top = _load(serving, traffic, pace, limit[0])
    most = limit[0] / top.service
    state = _state(serving, traffic, pace, _batch_for(serving, traffic, pace, (wanted, limit[0])))
    busy = min(_QUEUE_LIMIT, wanted * state.chunk_seconds * state.load.chunks)
    wait = lag(pace, state.load.tpot) + busy / (2 * (1 - busy)) * state.load.ttft
    ttft, rate = state.load.ttft + wait, min(wanted, most)
    if wanted > most:
        ttft += (traffic.num_requests or _FEW_REQUESTS) / 2 * (1 / most - 1 / wanted) / ranks
    figures = _Figures(
        rate=rate * ranks,
        ttft=ttft,
        tail=state.load.ttft + 3 * wait,
        in_flight=rate * (ttft + state.load.service - state.load.ttft) * ranks,
        limit=limit[1] if wanted > most else "rate",
    )
    return _outcome(traffic, state, figures)


def _batch_for(serving: Serving, traffic: Traffic, pace: Pace, asked: tuple[float, float]) -> float:
    """Search the requests in flight at which a rate is served; `asked` are the rate and the most of them."""
    rate, high = asked
    low = 0.0
    for _ in range(_SEARCH_ROUNDS):
        middle = max(_LEAST, (low + high) / 2)
        served = middle / _load(serving, traffic, pace, middle, _SEARCH_DEPTH).service
        low, high = (middle, high) if served < rate else (low, middle)
    return max(high, _LEAST)


@dataclass(frozen=True, slots=True)
class _Figures:
    """Rates and waits of the whole replica."""

    rate: float
    ttft: float
    tail: float
    in_flight: float
    limit: str


def _outcome(traffic: Traffic, state: _State, figures: _Figures) -> Outcome:
    load = state.load
    prompts = state.chunk_seconds * load.chunks
    answers = state.plain.total * max(0, traffic.output_tokens - 1) / max(1.0, load.decoding)
    return Outcome(
        ttft=figures.ttft,
        ttft_percentile=max(figures.ttft, figures.tail),
        tpot=load.tpot,
        tpot_percentile=load.tpot * _TPOT_TAIL,
        output_rate=figures.rate * traffic.output_tokens,
        request_rate=figures.rate,
        in_flight=figures.in_flight,
        prefill=state.prompt,
        decode=state.plain,
        prefill_share=prompts / max(1e-12, prompts + answers),
        decode_batch=load.decoding,
        batch_limit=figures.limit,
        method="closed form",
    )
