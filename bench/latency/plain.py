"""A plain roofline, to be compared with: what a careful spreadsheet says, with every peak reached.

Weights, keys, values and vectors over bandwidth or operations over peak, all-reduces over the link, prompts that
take turns with decoding, and a queue where all requests come at once. No launches, latencies, chunks, host or
efficiencies. A model that is not better than this in some cell has learnt nothing there.
"""

from __future__ import annotations

from stowage.performance.efficiencies import PERFECT
from stowage.performance.pace import Pace, pace_of
from stowage.performance.serving import Serving
from stowage.performance.step_parts import StepBatch
from stowage.performance.traffic import Traffic

_ROUNDS = 20
_BUSIEST = 0.95


def plain_roofline(serving: Serving, traffic: Traffic) -> tuple[float, float]:
    """Give mean TTFT and TPOT in seconds."""
    pace = Pace(pace_of(serving).work, serving.gpu, serving.shape, True, serving.same_node, PERFECT)
    ranks, prompt = serving.shape.data_parallel_size, traffic.computed_prompt_tokens
    places = min(serving.shape.max_num_seqs, max(1.0, serving.kv_tokens / traffic.mean_context_tokens))
    alone = _seconds(pace, StepBatch(prompt, prompt * (traffic.prompt_tokens - prompt / 2), 1))
    if traffic.requests_per_second is not None:
        return alone, _at_rate(pace, traffic, alone, places, traffic.requests_per_second / ranks)
    clients = float(traffic.concurrency or 1) / ranks
    batch = min(clients, places)
    token = _token(pace, traffic, alone, batch)
    at_once = traffic.num_requests is not None and traffic.num_requests <= (traffic.concurrency or 1)
    if not at_once:
        return alone, token
    rounds = max(0.0, clients / batch - 1) / 2
    return alone * batch / 2 + rounds * token * traffic.output_tokens, token


def _at_rate(pace: Pace, traffic: Traffic, alone: float, places: float, rate: float) -> float:
    """Give TPOT where as many requests decode as the rate and their own duration bring together."""
    batch = 1.0
    for _ in range(_ROUNDS):
        busy = min(_BUSIEST, rate * alone)
        wanted = rate * traffic.output_tokens * _decode(pace, traffic, batch) / (1 - busy)
        batch = min(places, max(1.0, wanted))
    return _decode(pace, traffic, batch) / (1 - min(_BUSIEST, rate * alone))


def _token(pace: Pace, traffic: Traffic, alone: float, batch: float) -> float:
    """Give TPOT of a steady batch: a decode step, and the prompts of the others that come between two of them."""
    return _decode(pace, traffic, batch) + (batch - 1) * alone / traffic.output_tokens


def _decode(pace: Pace, traffic: Traffic, batch: float) -> float:
    context = batch * traffic.mean_context_tokens
    return _seconds(pace, StepBatch(decode_sequences=batch, decode_context=context))


def _seconds(pace: Pace, batch: StepBatch) -> float:
    step = pace.step(batch)
    work = step.weights + step.moe + step.attention + step.kv_read
    return work + step.routing + step.all_reduce + step.hand_over + step.bubble
