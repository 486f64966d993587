"""What one replica is asked to do: lengths of prompts and answers, and how requests arrive.

Exactly one of `concurrency` (a closed loop: a new request starts when one ends) and `requests_per_second` (an
open one) is set. Lengths are means in tokens; a 95th percentile says how far they spread.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """The traffic of ONE replica.

    `prefix_hit_rate` is the share of prompt tokens that the prefix cache already holds. `percentile` is the one
    that the forecast's `ttft_p95_seconds` and `tpot_p95_seconds` are given at. `num_requests` None: as many as
    benchmark clients send, ten for each request in flight. Raises ValueError for traffic that means nothing.
    """

    prompt_tokens: int
    output_tokens: int
    concurrency: int | None = None
    requests_per_second: float | None = None
    prefix_hit_rate: float = 0.0
    prompt_tokens_p95: int | None = None
    output_tokens_p95: int | None = None
    percentile: int = 95
    num_requests: int | None = None

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise ValueError("prompt_tokens and output_tokens must be at least 1")
        if (self.concurrency is None) == (self.requests_per_second is None):
            raise ValueError("exactly one of concurrency and requests_per_second must be set")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        if self.requests_per_second is not None and not self.requests_per_second > 0:
            raise ValueError("requests_per_second must be more than 0")
        if not 0 <= self.prefix_hit_rate < 1:
            raise ValueError("prefix_hit_rate must be at least 0 and less than 1")
        if not 0 < self.percentile < 100:
            raise ValueError("percentile must be between 1 and 99")

    @property
    def computed_prompt_tokens(self) -> int:
        """Prompt tokens that are computed, not found in the prefix cache; at least one always is."""
        return max(1, round(self.prompt_tokens * (1 - self.prefix_hit_rate)))

    @property
    def mean_context_tokens(self) -> float:
        """Context that a decoding request has on average."""
        return self.prompt_tokens + self.output_tokens / 2

    @property
    def peak_context_tokens(self) -> int:
        """Tokens that a request holds in the KV cache when it ends."""
        return self.prompt_tokens + self.output_tokens
