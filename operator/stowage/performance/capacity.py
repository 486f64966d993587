"""How much one replica sustains within its objectives, and what no load could undercut."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.performance.pace import pace_of
from stowage.performance.serving import Serving
from stowage.performance.steady import sketch
from stowage.performance.step_parts import StepBatch
from stowage.performance.traffic import Traffic

_ROUNDS = 14
_LOWEST = 1e-4


@dataclass(frozen=True, slots=True)
class Floor:
    """The least latencies that physics allows: one request alone, peaks reached, nothing lost, in seconds."""

    ttft_seconds: float
    tpot_seconds: float


def floor(serving: Serving, traffic: Traffic, chunks: int = 1) -> Floor:
    """Give the least TTFT and TPOT of a request that has the replica for itself.

    Its prompt passes the stages of a pipeline in so many chunks, which fill as many stages at once.
    """
    pace = pace_of(serving)
    prompt = traffic.computed_prompt_tokens
    alone = StepBatch(prompt, prompt * (traffic.prompt_tokens - prompt / 2), chunks)
    one = StepBatch(decode_sequences=1, decode_context=traffic.mean_context_tokens)
    return Floor(pace.ideal_seconds(alone), pace.ideal_seconds(one))


def max_rate(
    serving: Serving,
    traffic: Traffic,
    ttft_seconds: float | None = None,
    tpot_seconds: float | None = None,
    percentile: int = 95,
) -> float | Refusal:
    """Give the requests per second that one replica sustains within the objectives, by the closed form.

    None for an objective leaves it out. `percentile` 50 or less judges by the mean. A refusal where not even a
    single request meets them; it says the floor.
    """
    most = sketch(serving, replace(traffic, concurrency=10**6, requests_per_second=None)).request_rate

    def meets(rate: float) -> bool:
        asked = replace(traffic, concurrency=None, requests_per_second=rate, percentile=percentile)
        found = sketch(serving, asked)
        tail = percentile > 50
        ttft = found.ttft_percentile if tail else found.ttft
        tpot = found.tpot_percentile if tail else found.tpot
        return (ttft_seconds is None or ttft <= ttft_seconds) and (
            tpot_seconds is None or tpot <= tpot_seconds
        )

    if not meets(most * _LOWEST):
        return _unreachable(serving, traffic, ttft_seconds, tpot_seconds)
    low, high = most * _LOWEST, most
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low


def _unreachable(
    serving: Serving, traffic: Traffic, ttft_seconds: float | None, tpot_seconds: float | None
) -> Refusal:
    least = floor(serving, traffic)
    wanted = [
        f"{name} {value * 1000:.0f} ms"
        for name, value in (("TTFT", ttft_seconds), ("TPOT", tpot_seconds))
        if value is not None
    ]
    message = f"One replica does not reach {' and '.join(wanted)}, not even for a single request."
    hint = (
        f"The hardware's floor is TTFT {least.ttft_seconds * 1000:.1f} ms and TPOT "
        f"{least.tpot_seconds * 1000:.1f} ms; use more or faster GPUs in a replica, or relax the objective."
    )
    return Refusal(Reason.NOT_SUPPORTED, message, hint)
