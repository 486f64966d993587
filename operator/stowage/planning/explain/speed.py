"""A forecast and its costs in words: one vocabulary for the table, for status.plan and for comparisons.

Numbers are rounded to what their bands justify. Nothing is computed here that planning did not compute.
"""

from __future__ import annotations

from typing import Literal

from stowage.performance.boundness import Boundness
from stowage.performance.forecast import Forecast
from stowage.performance.interval import Interval
from stowage.performance.traffic import Traffic
from stowage.planning.result import Plan
from stowage.planning.speed_notes import duration, money

Phase = Literal["prefill", "decode"]


def bound_words(forecast: Forecast) -> str:
    """Say what limits first, as in `decode: MemoryBandwidth 81%`: the phase, its class and the class's share of it."""
    phase = forecast.bottleneck.phase
    return f"{phase}: {_class(forecast.prefill if phase == 'prefill' else forecast.decode)}"


def both_bounds(forecast: Forecast) -> str:
    """Say what bounds each phase, the shares of GPU time, and the arithmetic intensities against the ridge."""
    share = forecast.prefill_share
    prefill, decode = forecast.prefill, forecast.decode
    return (
        f"prefill: {_class(prefill)} ({share:.0%} of the time), decode: {_class(decode)} ({1 - share:.0%}); "
        f"{intensity(prefill)} and {intensity(decode)} FLOP/B, ridge {prefill.ridge_flops_per_byte:,.0f}"
    )


def phase_words(forecast: Forecast, phase: Phase) -> str:
    """Say of one phase what bounds it, its share of GPU time, and its intensity, each as in `both_bounds`."""
    found = forecast.prefill if phase == "prefill" else forecast.decode
    share = forecast.prefill_share if phase == "prefill" else 1 - forecast.prefill_share
    return f"{_class(found)}, {share:.0%} of the time, {intensity(found)} FLOP/B"


def intensity(phase: Boundness) -> str:
    """Write the arithmetic intensity of a phase to two figures where it is small."""
    value = phase.intensity_flops_per_byte
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def latency_words(seconds: Interval) -> str:
    """Write a time with its band, as in `820 ms (510 ms to 1.3 s)`."""
    return f"{duration(seconds.central)} ({duration(seconds.low)} to {duration(seconds.high)})"


def rate_words(rate: Interval) -> str:
    """Write a rate with its band, as in `1,250 (960 to 1,630)`."""
    return f"{_rate(rate.central)} ({_rate(rate.low)} to {_rate(rate.high)})"


def traffic_words(traffic: Traffic) -> str:
    """Say what one replica is asked, as in `2,000 tokens in, 200 out, 32 requests in flight`."""
    if traffic.concurrency is not None:
        plural = "" if traffic.concurrency == 1 else "s"
        load = f"{traffic.concurrency:,} request{plural} in flight"
    else:
        load = f"{_rate(traffic.requests_per_second or 0.0)} requests/s"
    hits = f", {traffic.prefix_hit_rate:.0%} of the prompt cached" if traffic.prefix_hit_rate else ""
    return f"{traffic.prompt_tokens:,} tokens in, {traffic.output_tokens:,} out, {load}{hits}"


def cost_words(plan: Plan) -> str:
    """Say what all replicas cost, and what a million output tokens do."""
    if plan.cost_per_hour is None:
        return ""
    text = f"{money(plan.cost_per_hour, plan.cost_unit)} per hour"
    if plan.cost_per_million_tokens is not None:
        text += f", {money(plan.cost_per_million_tokens, plan.cost_unit)} per 1M output tokens"
    if plan.replicas > 1:
        text += f" for {plan.replicas} replicas"
    return text + (" (default price)" if plan.default_price else "")


def answered_words(forecast: Forecast) -> str:
    """Say who answered and what nobody has measured."""
    missing = f"; unmeasured: {', '.join(forecast.unmeasured)}" if forecast.unmeasured else ""
    method = f", {forecast.method}" if forecast.answered_by == "roofline" else ""
    return f"{forecast.answered_by}{method}{missing}"


def _class(phase: Boundness) -> str:
    return f"{phase.bound.value} {phase.shares[phase.bound]:.0%}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
