"""What a run of requests came to, before it is made a forecast: the common answer of both ways to work it out."""

from __future__ import annotations

from dataclasses import dataclass

from stowage.performance.kv_queue import KvQueue
from stowage.performance.step_parts import StepTime


@dataclass(frozen=True, slots=True)
class Outcome:
    """Means and percentiles in seconds, rates per second of the whole replica.

    `prefill` and `decode` are the mean steps of the two phases, `prefill_share` the first one's share of the
    time; `decode_batch` the mean number of requests that decode together on a data-parallel rank;
    `batch_limit` what keeps that from growing ("concurrency", "max_num_seqs", "kv_tokens"); `kv_queue` those that
    wait for room in the KV cache, where any do for long.
    """

    ttft: float
    ttft_percentile: float
    tpot: float
    tpot_percentile: float
    output_rate: float
    request_rate: float
    in_flight: float
    prefill: StepTime
    decode: StepTime
    prefill_share: float
    decode_batch: float
    batch_limit: str
    method: str
    kv_queue: KvQueue | None = None
