"""The Prometheus metrics of vLLM 0.32 that Stowage reads, with vLLM's names, labels and buckets.

Why: the agent's and the scaler's readers must work unchanged on the stand-in and on the real engine.
Names and buckets: `vllm/v1/metrics/loggers.py` and `buckets.py`.
It must never offer a metric that the real engine does not have.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

_LATENCY = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0)
_FIRST_TOKEN = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
)
_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)

HISTOGRAMS: Mapping[str, Sequence[float]] = {
    "vllm:time_to_first_token_seconds": _FIRST_TOKEN,
    "vllm:inter_token_latency_seconds": _TOKEN,
    "vllm:request_time_per_output_token_seconds": _TOKEN,
    "vllm:e2e_request_latency_seconds": _LATENCY,
    "vllm:request_queue_time_seconds": _LATENCY,
    "vllm:request_inference_time_seconds": _LATENCY,
    "vllm:request_prefill_time_seconds": _LATENCY,
    "vllm:request_decode_time_seconds": _LATENCY,
    "vllm:request_prompt_tokens": _TOKENS,
    "vllm:request_generation_tokens": _TOKENS,
}
COUNTERS: Mapping[str, Sequence[str]] = {
    "vllm:num_preemptions_total": ("",),
    "vllm:prompt_tokens_total": ("",),
    "vllm:generation_tokens_total": ("",),
    "vllm:prompt_tokens_cached_total": ("",),
    "vllm:prefix_cache_queries_total": ("",),
    "vllm:prefix_cache_hits_total": ("",),
    "vllm:request_success_total": tuple(
        f'finished_reason="{reason}"' for reason in ("stop", "length", "abort", "error", "repetition")
    ),
}


class Metrics:
    """Counters and histograms of one engine, safe to use from several threads."""

    def __init__(self, model_name: str) -> None:
        self._labels = f'engine="0",model_name="{model_name}"'
        self._lock = threading.Lock()
        self._counters = {(name, label): 0.0 for name, labels in COUNTERS.items() for label in labels}
        self._observed: dict[str, list[int]] = {name: [0] * (len(b) + 1) for name, b in HISTOGRAMS.items()}
        self._sums = dict.fromkeys(HISTOGRAMS, 0.0)

    def add(self, name: str, amount: float, label: str = "") -> None:
        """Raise a counter."""
        with self._lock:
            self._counters[name, label] += amount

    def observe(self, name: str, value: float) -> None:
        """Put one value into a histogram."""
        bounds = HISTOGRAMS[name]
        index = next((number for number, bound in enumerate(bounds) if value <= bound), len(bounds))
        with self._lock:
            self._observed[name][index] += 1
            self._sums[name] += value

    def exposition(self, gauges: Mapping[str, float], info: Mapping[str, object]) -> str:
        """Everything as Prometheus text.

        `gauges` are keyed by name or `name{label}`, `info` is the cache configuration.
        """
        with self._lock:
            lines = [*self._gauge_lines(gauges), *self._counter_lines(), *self._histogram_lines()]
        labels = ",".join(f'{name}="{value}"' for name, value in sorted({**info, "engine": "0"}.items()))
        lines += ["# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{labels}}} 1.0"]
        return "\n".join(lines) + "\n"

    def _gauge_lines(self, gauges: Mapping[str, float]) -> list[str]:
        lines: list[str] = []
        for key, value in gauges.items():
            name, _, label = key.partition("{")
            if (declaration := f"# TYPE {name} gauge") not in lines:
                lines.append(declaration)
            lines.append(self._sample(name, label.rstrip("}"), value))
        return lines

    def _counter_lines(self) -> list[str]:
        lines: list[str] = []
        for (name, label), value in self._counters.items():
            if (declaration := f"# TYPE {name} counter") not in lines:
                lines.append(declaration)
            lines.append(self._sample(name, label, value))
        return lines

    def _histogram_lines(self) -> list[str]:
        lines: list[str] = []
        for name, bounds in HISTOGRAMS.items():
            lines.append(f"# TYPE {name} histogram")
            total = 0
            for bound, count in zip([*map(float, bounds), "+Inf"], self._observed[name], strict=True):
                total += count
                lines.append(self._sample(f"{name}_bucket", f'le="{bound}"', float(total)))
            lines.append(self._sample(f"{name}_count", "", float(total)))
            lines.append(self._sample(f"{name}_sum", "", self._sums[name]))
        return lines

    def _sample(self, name: str, label: str, value: float) -> str:
        labels = f"{self._labels},{label}" if label else self._labels
        return f"{name}{{{labels}}} {value}"
