"""What the deployment is asked to do and what matters about it: the spec's workload and objectives as numbers.

What nobody states is assumed here, in one place, and the assumption travels with the value, so that a plan can say
what its forecast rests on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stowage.api.duration import parse_duration_seconds
from stowage.api.v1alpha1 import LLMDeploymentSpec, Priority
from stowage.performance.traffic import Traffic
from stowage.planning.search.targets import DEFAULT_CONCURRENCY, DEFAULT_REQUEST_TOKENS

_DEFAULT_OUTPUT_SHARE: Final = 4
"""Where lengths are not stated, one token in so many is an answer's: chat and retrieval read more than they write."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests of the whole deployment.

    `rate` per second where it is stated, else `concurrency` requests are in flight in each replica; it is assumed
    where `concurrency_stated` is false, as are lengths where `lengths_stated` is.
    """

    prompt_tokens: int
    output_tokens: int
    prompt_tokens_p95: int | None
    output_tokens_p95: int | None
    rate: float | None
    concurrency: int
    percentile: int
    lengths_stated: bool
    concurrency_stated: bool

    def closed(self, concurrency: int | None = None) -> Traffic:
        """Give the traffic of one replica with so many requests in flight; those of the demand by default."""
        return self._traffic(concurrency or self.concurrency, None)

    def arriving(self, requests_per_second: float) -> Traffic:
        """Give the traffic of one replica at which requests arrive at this rate."""
        return self._traffic(None, requests_per_second)

    def _traffic(self, concurrency: int | None, rate: float | None) -> Traffic:
        return Traffic(
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            concurrency=concurrency,
            requests_per_second=rate,
            prompt_tokens_p95=self.prompt_tokens_p95,
            output_tokens_p95=self.output_tokens_p95,
            percentile=self.percentile,
        )


@dataclass(frozen=True, slots=True)
class Objectives:
    """Latencies to stay within, in seconds at `percentile` (None: none is asked for), and what to prefer then."""

    ttft_seconds: float | None
    tpot_seconds: float | None
    percentile: int
    priority: Priority

    @property
    def any(self) -> bool:
        """Whether a latency is asked for."""
        return self.ttft_seconds is not None or self.tpot_seconds is not None


def demand_of(spec: LLMDeploymentSpec, longest_tokens: int) -> Demand:
    """Read the workload; assumed lengths are kept within a context of `longest_tokens`."""
    load = spec.workload
    prompt, output = _lengths(spec, longest_tokens)
    return Demand(
        prompt_tokens=prompt,
        output_tokens=output,
        prompt_tokens_p95=load.prompt_tokens.p95 if load.prompt_tokens else None,
        output_tokens_p95=load.output_tokens.p95 if load.output_tokens else None,
        rate=load.requests_per_second,
        concurrency=load.concurrency_per_replica or DEFAULT_CONCURRENCY,
        percentile=spec.objectives.percentile,
        lengths_stated=load.prompt_tokens is not None and load.output_tokens is not None,
        concurrency_stated=load.concurrency_per_replica is not None,
    )


def objectives_of(spec: LLMDeploymentSpec) -> Objectives:
    """Read the objectives."""
    asked = spec.objectives
    return Objectives(
        ttft_seconds=parse_duration_seconds(asked.ttft) if asked.ttft else None,
        tpot_seconds=parse_duration_seconds(asked.tpot) if asked.tpot else None,
        percentile=asked.percentile,
        priority=asked.priority,
    )


def _lengths(spec: LLMDeploymentSpec, longest_tokens: int) -> tuple[int, int]:
    """Give mean prompt and answer; what is not stated takes its share of a default request."""
    prompt, output = spec.workload.prompt_tokens, spec.workload.output_tokens
    request = max(2, min(DEFAULT_REQUEST_TOKENS, longest_tokens))
    answer = output.mean if output else max(1, request // _DEFAULT_OUTPUT_SHARE)
    if output is None and prompt is not None:
        answer = max(1, min(answer, longest_tokens - prompt.mean))
    question = (
        prompt.mean
        if prompt
        else max(1, min(request - request // _DEFAULT_OUTPUT_SHARE, longest_tokens - answer))
    )
    return question, answer
