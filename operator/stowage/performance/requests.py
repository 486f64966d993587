"""The requests of a run: their lengths, and when they come where a rate says so.

Arrivals of a rate are spread as a Poisson process spreads them, by a sequence instead of by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Final

from stowage.performance.lengths import GOLDEN, SILVER, spread_lengths
from stowage.performance.traffic import Traffic

_WAVES: Final = 10
"""Requests of a run for each one in flight, as benchmark clients send them."""

_DEFAULT_SPREAD: Final = 1.09
"""95th percentile of lengths over their mean where nobody states one: even within 10 %, so that requests which
started together do not stay in step for ever."""

_PLASTIC: Final = 0.7548776662466927
"""Step of the sequence for arrivals: the inverse of the plastic number, which goes along with neither length."""

_MOST_REQUESTS: Final = 1500
"""Requests, or groups of them, of a run at most: a queue is long enough to be steady then."""

_LATEST_GAP: Final = 0.9999
_OPEN_REQUESTS: Final = 300
"""Requests of a run at a rate: enough for a 95th percentile that fifteen requests lie beyond."""


@dataclass(slots=True)
class Request:
    """A request, and how far it has come. Times in seconds; `started_at` and `ends_at` count decode steps."""

    arrival: float
    prompt: int
    output: int
    computed: int
    generated: int = 0
    first: float = -1.0
    started_at: int = 0
    order: int = 0
    ends_at: int = 0


def requests_of(traffic: Traffic, ranks: int, weight: float, clients: int) -> list[Request]:
    """Give the requests of one of `ranks` data-parallel ranks; each stands for `weight` equal ones."""
    asked = traffic.num_requests or _WAVES * (traffic.concurrency or 0) or _OPEN_REQUESTS
    count = max(1, clients, min(_MOST_REQUESTS, round(asked / ranks / weight)))
    prompts = _lengths(traffic.prompt_tokens, traffic.prompt_tokens_p95, count, GOLDEN)
    outputs = _lengths(traffic.output_tokens, traffic.output_tokens_p95, count, SILVER)
    missed, rate, at = 1 - traffic.prefix_hit_rate, (traffic.requests_per_second or 0.0) / ranks, 0.0
    made = []
    for number, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        if rate:
            at += -log(1 - min(_LATEST_GAP, (0.37 + number * _PLASTIC) % 1.0)) / rate
        made.append(Request(at, prompt, output, max(1, round(prompt * missed))))
    return made


def _lengths(mean: int, p95: int | None, count: int, step: float) -> list[int]:
    return spread_lengths(mean, round(mean * _DEFAULT_SPREAD) if p95 is None else p95, count, step)
