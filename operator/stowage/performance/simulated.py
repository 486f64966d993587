"""From a stepped run to an outcome: the figures that a benchmark client would print, and the mean steps behind them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from stowage.performance.kv_queue import NOTABLE, KvQueue, kv_queue
from stowage.performance.outcome import Outcome
from stowage.performance.pace import pace_of
from stowage.performance.run import Run
from stowage.performance.serving import Serving
from stowage.performance.simulation import simulate
from stowage.performance.step_parts import StepBatch
from stowage.performance.traffic import Traffic


@lru_cache(maxsize=256)
def simulated(serving: Serving, traffic: Traffic) -> Outcome:
    """Step the scheduler for this traffic; remembered, since the same plan is asked for again and again."""
    run, ranks = simulate(serving, traffic), serving.shape.data_parallel_size
    pace, share = pace_of(serving), traffic.percentile / 100
    batch = run.decoded / max(1.0, run.decode_steps)
    context = run.context / max(1.0, run.decode_steps)
    steps = max(1.0, run.prompt_steps)
    prompts = run.prompt_tokens / steps / traffic.computed_prompt_tokens
    tpot = run.tpot or [0.0]
    return Outcome(
        ttft=_mean(run.ttft),
        ttft_percentile=quantile(run.ttft, share),
        tpot=_mean(tpot),
        tpot_percentile=quantile(tpot, share),
        output_rate=ranks * run.output_tokens / run.seconds,
        request_rate=ranks * run.output_tokens / run.seconds / traffic.output_tokens,
        in_flight=ranks * run.in_flight_seconds / max(1e-12, run.busy),
        prefill=pace.step(StepBatch(run.prompt_tokens / steps, run.prompt_pairs / steps, prompts)),
        decode=pace.step(StepBatch(decode_sequences=batch, decode_context=context)),
        prefill_share=min(1.0, max(0.0, run.prompt_seconds / max(1e-12, run.busy))),
        decode_batch=batch,
        batch_limit=_limit(serving, traffic, run),
        method="simulated",
        kv_queue=_queue(serving, traffic, run),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """Give a quantile by linear interpolation; `values` must not be empty."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _queue(serving: Serving, traffic: Traffic, run: Run) -> KvQueue | None:
    """Give the requests that run and that would, on average over the time in which any waits for room."""
    if run.waiting_for_room <= NOTABLE * run.busy:
        return None
    ranks, seconds = serving.shape.data_parallel_size, run.waiting_for_room
    fit = ranks * run.running_beside / seconds
    asked = float(traffic.concurrency or fit + ranks * run.queued_for_room / seconds)
    return kv_queue(fit, asked, run.queued_for_room / max(1e-12, run.in_flight_seconds))


def _limit(serving: Serving, traffic: Traffic, run: Run) -> str:
    """Name what keeps the batch from growing."""
    if run.waiting_for_room > NOTABLE * run.busy:
        return "kv_tokens"
    clients = traffic.concurrency
    if clients is None:
        return "rate"
    ranks = serving.shape.data_parallel_size
    return "max_num_seqs" if clients / ranks > serving.shape.max_num_seqs else "concurrency"
