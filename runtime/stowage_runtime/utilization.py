"""From scrapes of the engine's metrics to what it does: totals now, rates and means over a short window.

Counters are summed over the data-parallel engines of a replica, and a counter that went backwards counts from
zero again. Pure: the times of the scrapes are given, nothing is read here. A figure that nothing supports is
None.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from stowage_runtime.contract import Utilization
from stowage_runtime.prometheus_text import Exposition

WINDOW_SECONDS = 60.0

_TTFT = ("vllm:time_to_first_token_seconds",)
# Releases before 0.11 had only the histogram of gaps between tokens.
_TPOT = ("vllm:request_time_per_output_token_seconds", "vllm:time_per_output_token_seconds")
_COUNTERS = {
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "generation_tokens": ("vllm:generation_tokens_total",),
    "ttft_sum": tuple(f"{name}_sum" for name in _TTFT),
    "ttft_count": tuple(f"{name}_count" for name in _TTFT),
    "tpot_sum": tuple(f"{name}_sum" for name in _TPOT),
    "tpot_count": tuple(f"{name}_count" for name in _TPOT),
}


@dataclass(frozen=True)
class _Scrape:
    at_seconds: float
    counters: dict[str, float]


class UtilizationWindow:
    """Remembers the scrapes of the last WINDOW_SECONDS."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
        self._scrapes: deque[_Scrape] = deque()

    def add(self, exposition: Exposition, at_seconds: float) -> Utilization | None:
        """Take in a scrape made at a monotonic time; None when it has no figures of an engine."""
        kv_usage = exposition.mean("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
        running = exposition.total("vllm:num_requests_running")
        if kv_usage is None or running is None:
            return None
        counters = {key: exposition.total(*names) or 0.0 for key, names in _COUNTERS.items()}
        self._scrapes.append(_Scrape(at_seconds, counters))
        while len(self._scrapes) > 2 and self._scrapes[1].at_seconds <= at_seconds - self._window_seconds:
            self._scrapes.popleft()
        span = at_seconds - self._scrapes[0].at_seconds
        return Utilization(
            kv_usage=min(max(kv_usage, 0.0), 1.0),
            running=int(running),
            waiting=int(exposition.total("vllm:num_requests_waiting") or 0),
            preemptions_total=int(exposition.total("vllm:num_preemptions_total") or 0),
            prompt_tokens_total=int(counters["prompt_tokens"]),
            generation_tokens_total=int(counters["generation_tokens"]),
            request_success_total=int(exposition.total("vllm:request_success_total") or 0),
            prompt_tokens_per_second=self._growth("prompt_tokens") / span if span > 0 else None,
            generation_tokens_per_second=self._growth("generation_tokens") / span if span > 0 else None,
            ttft_seconds_mean=self._mean("ttft"),
            tpot_seconds_mean=self._mean("tpot"),
            window_seconds=span,
        )

    def _growth(self, key: str) -> float:
        values = [scrape.counters[key] for scrape in self._scrapes]
        return sum(after - before if after >= before else after for before, after in zip(values, values[1:]))

    def _mean(self, key: str) -> float | None:
        count = self._growth(f"{key}_count")
        return self._growth(f"{key}_sum") / count if count > 0 else None
