"""The default estimator: the step model with its few fitted efficiencies, answering for every GPU of the catalog."""

from __future__ import annotations

from dataclasses import dataclass

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.performance.bands import band_share, unmeasured
from stowage.performance.forecast import Forecast
from stowage.performance.interval import Interval
from stowage.performance.outcome import Outcome
from stowage.performance.pace import pace_of
from stowage.performance.serving import Serving
from stowage.performance.simulated import simulated
from stowage.performance.steady import steady
from stowage.performance.traffic import Traffic
from stowage.performance.verdict import bottleneck, boundness, waste_by_room


@dataclass(frozen=True, slots=True)
class Roofline:
    """Forecasts by arithmetic. `fast` takes the closed form, for searches; else the scheduler is stepped."""

    fast: bool = False

    @property
    def name(self) -> str:
        """Who answers."""
        return "roofline"

    def forecast(self, serving: Serving, traffic: Traffic) -> Forecast | Refusal:
        """Give what this traffic sees from this replica."""
        refusal = refusal_of(serving, traffic)
        if refusal is not None:
            return refusal
        outcome = steady(serving, traffic) if self.fast else simulated(serving, traffic)
        return forecast_of(serving, traffic, outcome)


def refusal_of(serving: Serving, traffic: Traffic) -> Refusal | None:
    """Refuse traffic that the replica could not serve at all."""
    need, room = traffic.peak_context_tokens, serving.kv_tokens
    if need <= room:
        return None
    message = (
        f"One request of {traffic.prompt_tokens} + {traffic.output_tokens} tokens needs {need} tokens of KV cache; "
        f"there is room for {room}."
    )
    return Refusal(
        Reason.CONTEXT_TOO_LONG, message, "Use more or larger GPUs in a replica, or shorter requests."
    )


def forecast_of(serving: Serving, traffic: Traffic, outcome: Outcome) -> Forecast:
    """Dress an outcome with bands, verdicts and what no measurement supports."""
    missing = unmeasured(serving)
    share = band_share(missing)
    prefill = boundness(serving, outcome.prefill)
    decode = boundness(
        serving, outcome.decode, waste_by_room(serving, traffic, outcome), queue=outcome.kv_queue
    )
    tpot = Interval.around(outcome.tpot, share.tpot)
    rate = Interval.around(outcome.request_rate, share.tpot)
    return Forecast(
        ttft_seconds=Interval.around(outcome.ttft, share.ttft),
        tpot_seconds=tpot,
        output_tokens_per_second=rate.map(lambda value: value * traffic.output_tokens),
        requests_per_second=rate,
        ttft_p95_seconds=outcome.ttft_percentile,
        tpot_p95_seconds=outcome.tpot_percentile,
        concurrency=outcome.in_flight,
        prefill=prefill,
        decode=decode,
        prefill_share=outcome.prefill_share,
        bottleneck=bottleneck(outcome, prefill, decode),
        answered_by="roofline",
        unmeasured=missing,
        assumptions=_assumptions(serving, traffic),
        method=outcome.method,
        decode_batch=outcome.decode_batch,
        batch_limit=outcome.batch_limit,
        kv_queue=outcome.kv_queue,
    )


def _assumptions(serving: Serving, traffic: Traffic) -> tuple[str, ...]:
    """Say what the figures take for granted about this load and these machines."""
    shape = serving.shape
    found = (
        (
            "all clients start at once and each sends its next request as soon as one ends"
            if traffic.concurrency is not None
            else "requests come independently of each other"
        ),
        ("tokens choose experts without preference" if pace_of(serving).work.experts else ""),
        ("400 Gb/s of network for each GPU" if not serving.same_node else ""),
        ("guessed tokens are neither computed nor gained" if shape.speculative is not None else ""),
    )
    return tuple(sentence for sentence in found if sentence)
