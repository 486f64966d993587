"""From the mean steps of a run to the words that people decide by: shares of time, and the class that leads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from stowage.performance.arithmetic import Arithmetic, peak_flops
from stowage.performance.boundness import Bottleneck, Bound, Boundness
from stowage.performance.kv_queue import KvQueue
from stowage.performance.outcome import Outcome
from stowage.performance.pace import Pace, pace_of
from stowage.performance.serving import Serving
from stowage.performance.step_parts import StepBatch, StepTime
from stowage.performance.traffic import Traffic

_WORDS: Mapping[Bound, str] = MappingProxyType(
    {
        Bound.COMPUTE: "by compute",
        Bound.MEMORY_BANDWIDTH: "by memory bandwidth",
        Bound.KV_CAPACITY: "by the room for the KV cache",
        Bound.INTERCONNECT: "by the link between GPUs",
        Bound.OVERHEAD: "by launches and the host",
    }
)


def boundness(
    serving: Serving, step: StepTime, kv_share: float = 0.0, queue: KvQueue | None = None
) -> Boundness:
    """Class a mean step; `kv_share` is what a batch without the KV limit would save of its time for a token.

    Where requests wait for room in the KV cache for long, that is what bounds the phase, whatever its steps spend
    their time on; the share is then at least that of their time which they wait.
    """
    kv_share = kv_share if queue is None else max(kv_share, queue.share)
    exchange = max(0.0, step.routing + step.all_reduce + step.hand_over + step.bubble)
    overhead = max(0.0, step.overhead)
    compute = max(0.0, step.compute_seconds)
    memory = max(0.0, step.total - exchange - overhead - compute)
    parts = {
        Bound.COMPUTE: compute,
        Bound.MEMORY_BANDWIDTH: memory,
        Bound.INTERCONNECT: exchange,
        Bound.OVERHEAD: overhead,
    }
    total = sum(parts.values()) or 1.0
    shares = {bound: seconds / total * (1 - kv_share) for bound, seconds in parts.items()}
    shares[Bound.KV_CAPACITY] = kv_share
    leading = max(shares, key=lambda bound: shares[bound]) if queue is None else Bound.KV_CAPACITY
    intensity = step.flops / max(1.0, step.moved_bytes)
    return Boundness(intensity, ridge(serving), leading, MappingProxyType(shares))


def waste_by_room(serving: Serving, traffic: Traffic, outcome: Outcome) -> float:
    """Give the share of a decoded token's time that a KV cache without a limit would save by a larger batch."""
    if outcome.batch_limit != "kv_tokens" or outcome.decode_batch <= 0:
        return 0.0
    ranks, seqs = serving.shape.data_parallel_size, serving.shape.max_num_seqs
    wanted = float(seqs) if traffic.concurrency is None else min(float(seqs), traffic.concurrency / ranks)
    if wanted <= outcome.decode_batch:
        return 0.0
    free = StepBatch(decode_sequences=wanted, decode_context=wanted * traffic.mean_context_tokens)
    better = pace_of(serving).seconds(free) / wanted
    return max(0.0, 1 - better / (outcome.decode.total / outcome.decode_batch))


def ridge(serving: Serving) -> float:
    """Give the arithmetic intensity at which products of this model turn to compute, weighted by their work."""
    return _ridge(pace_of(serving))


@lru_cache(maxsize=1024)
def _ridge(pace: Pace) -> float:
    work, gpu = pace.work, pace.gpu
    seconds = flops = 0.0
    for arithmetic, elements in (
        *((entry.arithmetic, entry.count * entry.rows * entry.columns) for entry in work.linears),
        *((entry.arithmetic, entry.count * entry.chosen * entry.elements) for entry in work.experts),
        (Arithmetic.SIXTEEN_BIT, 1),
    ):
        flops += elements
        seconds += elements / peak_flops(arithmetic, gpu)
    return flops / seconds / gpu.memory_bytes_per_second


def bottleneck(outcome: Outcome, prefill: Boundness, decode: Boundness) -> Bottleneck:
    """Name what limits the replica: the phase with most of the time, and what bounds it."""
    phase, found, share = "prefill", prefill, outcome.prefill_share
    if outcome.prefill_share < 0.5:
        phase, found, share = "decode", decode, 1 - outcome.prefill_share
    part = found.shares[found.bound]
    sentence = (
        f"{share:.0%} of the GPU time goes into {'prompts' if phase == 'prefill' else 'decoding'}, "
        f"which is bound {_WORDS[found.bound]} ({part:.0%})."
    )
    if outcome.kv_queue is not None:
        sentence += f" {outcome.kv_queue.sentence}"
    return Bottleneck(phase, found.bound, share * part, sentence)
