"""The closed form: what a steady load comes to, by a fixed point instead of stepping the scheduler.

In a steady state every request in flight brings its prompt once and then decodes. Cheap enough for a search over
thousands of shapes; it leaves out what order and chance do, which `simulation` knows. Both agree within 15 % in TPOT
and, as waiting is what chance is about, within 55 % in TTFT (tests/performance/test_schedule.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stowage.performance.kv_queue import KvQueue, kv_queue
from stowage.performance.load import Loads, State
from stowage.performance.outcome import Outcome
from stowage.performance.pace import Pace
from stowage.performance.serving import Serving
from stowage.performance.step_parts import StepBatch
from stowage.performance.traffic import Traffic

_WAVES: Final = 10
"""Requests of a run for each one in flight, as benchmark clients send them: the first wave is one of so many."""

_LATEST: Final = 0.8
"""What the 95th percentile of a first wave waits beyond its mean, in means: waits are spread evenly up to twice."""

_TPOT_TAIL: Final = 1.1
"""The 95th percentile of TPOT over its mean in stepped runs of requests with lengths within 10 %."""

_QUEUE_LIMIT: Final = 0.98
_FEW_REQUESTS: Final = 100


@dataclass(frozen=True, slots=True)
class Sketch:
    """What a search asks of a steady state: seconds at the mean and in the tail, and rates of the whole replica."""

    ttft: float
    ttft_percentile: float
    tpot: float
    tpot_percentile: float
    request_rate: float
    decode_batch: float


@dataclass(frozen=True, slots=True)
class _Figures:
    """A state with the rates and waits of the whole replica."""

    state: State
    rate: float
    ttft: float
    tail: float
    in_flight: float
    limit: str


def sketch(serving: Serving, traffic: Traffic) -> Sketch:
    """Work out the latencies and the rate of this traffic, without what they are made of."""
    found = _figures(Loads(serving, traffic), serving, traffic)
    load = found.state.load
    return Sketch(
        ttft=found.ttft,
        ttft_percentile=max(found.ttft, found.tail),
        tpot=load.tpot,
        tpot_percentile=load.tpot * _TPOT_TAIL,
        request_rate=found.rate,
        decode_batch=load.decoding,
    )


def steady(serving: Serving, traffic: Traffic) -> Outcome:
    """Work out the steady state of this traffic."""
    loads = Loads(serving, traffic)
    found = _figures(loads, serving, traffic)
    state, load = found.state, found.state.load
    plain = loads.pace.step(loads.decode_batch(load.decoding))
    prompts = state.chunk_seconds * load.chunks
    answers = plain.total * max(0, traffic.output_tokens - 1) / max(1.0, load.decoding)
    return Outcome(
        ttft=found.ttft,
        ttft_percentile=max(found.ttft, found.tail),
        tpot=load.tpot,
        tpot_percentile=load.tpot * _TPOT_TAIL,
        output_rate=found.rate * traffic.output_tokens,
        request_rate=found.rate,
        in_flight=found.in_flight,
        prefill=loads.pace.step(loads.chunk_batch(load)),
        decode=plain,
        prefill_share=prompts / max(1e-12, prompts + answers),
        decode_batch=load.decoding,
        batch_limit=found.limit,
        method="closed form",
        kv_queue=_queue(found, load.batch * serving.shape.data_parallel_size),
    )


def _queue(found: _Figures, fit: float) -> KvQueue | None:
    if found.limit != "kv_tokens":
        return None
    return kv_queue(fit, found.in_flight, 1 - fit / max(fit, found.in_flight))


def batch_limit(serving: Serving, traffic: Traffic) -> tuple[float, str]:
    """Give the most requests that one data-parallel rank runs at once, and the setting that says so."""
    by_kv = max(1.0, serving.kv_tokens / max(1.0, traffic.mean_context_tokens))
    if by_kv < serving.shape.max_num_seqs:
        return by_kv, "kv_tokens"
    return float(serving.shape.max_num_seqs), "max_num_seqs"


def lag(pace: Pace, step_seconds: float) -> float:
    """Give what a request waits besides its own steps: client and server, and the steps already under way.

    Half a step on average until the engine plans one; and one more where that was planned already.
    """
    return pace.table.request_seconds + step_seconds * (1.5 if pace.schedules_ahead else 0.5)


def _figures(loads: Loads, serving: Serving, traffic: Traffic) -> _Figures:
    limit = batch_limit(serving, traffic)
    if traffic.concurrency is not None:
        return _closed_loop(loads, serving, traffic, limit)
    return _open_loop(loads, serving, traffic, limit)


def _closed_loop(loads: Loads, serving: Serving, traffic: Traffic, limit: tuple[float, str]) -> _Figures:
    ranks = serving.shape.data_parallel_size
    asked = (traffic.concurrency or 1) / ranks
    running = min(asked, limit[0])
    state = loads.state(max(1.0, running))
    rate = running / state.load.service
    queued = (asked - running) / rate
    first = _first_wave(serving, traffic, loads.pace, state.load.batch)
    calm = state.load.ttft + lag(loads.pace, state.load.tpot) + queued
    burst = max(calm, first + loads.pace.table.request_seconds + queued / 2)
    return _Figures(
        state=state,
        rate=rate * ranks,
        ttft=(burst + (_WAVES - 1) * calm) / _WAVES,
        tail=burst + first * _LATEST * (1 - 1 / max(1.0, state.load.batch)),
        in_flight=asked * ranks,
        limit=limit[1] if asked > limit[0] else "concurrency",
    )


def _first_wave(serving: Serving, traffic: Traffic, pace: Pace, batch: float) -> float:
    """Give the mean wait when `batch` requests come at once: prompts are taken a budget at a time."""
    prompt, budget = traffic.computed_prompt_tokens, serving.shape.max_num_batched_tokens
    steps = max(1.0, batch * prompt / budget)
    tokens = min(float(budget), batch * prompt)
    requests = tokens / prompt
    mean_pairs = tokens * (traffic.prompt_tokens - prompt / 2)
    full = pace.seconds(StepBatch(tokens, mean_pairs, requests))
    return full * (steps + 1) / 2


def _open_loop(loads: Loads, serving: Serving, traffic: Traffic, limit: tuple[float, str]) -> _Figures:
    ranks = serving.shape.data_parallel_size
    wanted = (traffic.requests_per_second or 0.0) / ranks
    most = limit[0] / loads.at(limit[0]).service
    state = loads.state(loads.for_rate(wanted, limit[0]))
    load = state.load
    busy = min(_QUEUE_LIMIT, wanted * state.chunk_seconds * load.chunks)
    wait = lag(loads.pace, load.tpot) + busy / (2 * (1 - busy)) * load.ttft
    ttft, rate = load.ttft + wait, min(wanted, most)
    if wanted > most:
        ttft += (traffic.num_requests or _FEW_REQUESTS) / 2 * (1 / most - 1 / wanted) / ranks
    return _Figures(
        state=state,
        rate=rate * ranks,
        ttft=ttft,
        tail=load.ttft + 3 * wait,
        in_flight=rate * (ttft + load.service - load.ttft) * ranks,
        limit=limit[1] if wanted > most else "rate",
    )
