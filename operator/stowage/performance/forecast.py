"""What a workload sees from one replica: the answer of every estimator, whoever gave it."""

from __future__ import annotations

from dataclasses import dataclass

from stowage.performance.boundness import Bottleneck, Boundness
from stowage.performance.interval import Interval
from stowage.performance.kv_queue import KvQueue


@dataclass(frozen=True, slots=True)
class Forecast:
    """Latencies in seconds, rates of one replica per second.

    TTFT and TPOT are means; the `_p95_` fields are at the percentile that the traffic asks for (95 unless it
    says otherwise). `concurrency` is the mean number of requests in flight, queue included. `prefill_share` is
    the share of GPU time that prompts take. `unmeasured` names what no measurement supports, `assumptions` are
    sentences, `method` is "simulated" (the scheduler stepped) or "closed form". `decode_batch` requests decode
    together on a data-parallel rank, and `batch_limit` keeps them from being more ("concurrency", "rate",
    "max_num_seqs", "kv_tokens"). `kv_queue`: requests that wait for room in the KV cache, where any do for long.
    """

    ttft_seconds: Interval
    tpot_seconds: Interval
    output_tokens_per_second: Interval
    requests_per_second: Interval
    ttft_p95_seconds: float
    tpot_p95_seconds: float
    concurrency: float
    prefill: Boundness
    decode: Boundness
    prefill_share: float
    bottleneck: Bottleneck
    answered_by: str
    unmeasured: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    method: str = "simulated"
    decode_batch: float = 0.0
    batch_limit: str = "concurrency"
    kv_queue: KvQueue | None = None
