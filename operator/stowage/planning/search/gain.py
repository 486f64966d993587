"""What a new plan would change against the one in force: cost, latencies, throughput.

Only compares what two plans say of themselves. All figures are forecasts, so percentages are whole; what one of the
two does not say is not compared, and costs in different units are not either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stowage.planning.plan import Plan
from stowage.planning.speed_notes import duration, money


@dataclass(frozen=True, slots=True)
class Gain:
    """Changes in percent of the plan in force, None where they cannot be compared; `words` says them with figures."""

    cost_percent: int | None
    ttft_percent: int | None
    tpot_percent: int | None
    throughput_percent: int | None
    words: str

    @property
    def percents(self) -> tuple[int | None, ...]:
        """All changes, in a fixed order."""
        return self.cost_percent, self.ttft_percent, self.tpot_percent, self.throughput_percent


def gain(old: Plan, new: Plan) -> Gain:
    """Compare a new plan with the one in force."""
    same_unit = old.cost_unit == new.cost_unit
    cost = _percent(old.cost_per_hour, new.cost_per_hour) if same_unit else None
    before, after = old.forecast, new.forecast
    ttft = tpot = throughput = None
    if before is not None and after is not None:
        ttft = _percent(before.ttft_seconds.central, after.ttft_seconds.central)
        tpot = _percent(before.tpot_seconds.central, after.tpot_seconds.central)
        throughput = _percent(_tokens_per_second(old), _tokens_per_second(new))
    words = "; ".join(_words(old, new, (cost, ttft, tpot, throughput)))
    return Gain(cost, ttft, tpot, throughput, words or "no change of what is forecast")


def _words(old: Plan, new: Plan, percents: tuple[int | None, ...]) -> Iterator[str]:
    cost, ttft, tpot, throughput = percents
    missed = len(old.shortfall) - len(new.shortfall)
    if missed > 0:
        yield f"{missed} objective{'' if missed == 1 else 's'} met that the plan in force misses"
    if cost:
        amounts = (
            f"{money(new.cost_per_hour or 0, new.cost_unit)} instead of {money(old.cost_per_hour or 0, '')}"
        )
        yield f"cost {amounts.strip()} per hour ({cost:+d} %)"
    if old.forecast is None or new.forecast is None:
        return
    if ttft:
        first = duration(new.forecast.ttft_seconds.central), duration(old.forecast.ttft_seconds.central)
        yield f"TTFT {first[0]} instead of {first[1]} ({ttft:+d} %)"
    if tpot:
        each = duration(new.forecast.tpot_seconds.central), duration(old.forecast.tpot_seconds.central)
        yield f"TPOT {each[0]} instead of {each[1]} ({tpot:+d} %)"
    if throughput:
        rates = _tokens_per_second(new) or 0, _tokens_per_second(old) or 0
        yield f"{rates[0]:,.0f} instead of {rates[1]:,.0f} output tokens/s ({throughput:+d} %)"


def _tokens_per_second(plan: Plan) -> float | None:
    found = plan.forecast
    return None if found is None else found.output_tokens_per_second.central * plan.replicas


def _percent(old: float | None, new: float | None) -> int | None:
    """Give the change in percent of the old value; None where there is nothing to compare with."""
    return None if old is None or new is None or old <= 0 else round(100 * (new - old) / old)
