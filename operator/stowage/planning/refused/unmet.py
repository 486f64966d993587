"""When objectives cannot be met: below what physics allows, or only out of reach of what the cluster has.

Pins are obeyed and objectives then only reported on. A forecast that misses by less than its own band is not a reason
to refuse: the plan says so instead.
"""

from __future__ import annotations

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.performance.forecast import Forecast
from stowage.planning.pins import pinned_fields
from stowage.planning.search.bounds import ideal_settings
from stowage.planning.search.judge import Judge, Score
from stowage.planning.search.option import Option
from stowage.planning.search.shapes import Search
from stowage.planning.speed_notes import duration


def below_floor(search: Search) -> Refusal | None:
    """Compare each objective with the least latency of any option: one request alone, and peaks reached."""
    judge, asked = search.judge, search.judge.objectives
    placed = _largest([option for option in search.options if option.nowhere is None])
    if not asked.any or not placed or pinned_fields(judge.spec):
        return None
    for name, wanted in (("ttft", asked.ttft_seconds), ("tpot", asked.tpot_seconds)):
        if wanted is None:
            continue
        found = _all_above(judge, placed, name, wanted)
        if found:
            least, where = min(found)
            prompt = f" for a prompt of {judge.demand.prompt_tokens:,} tokens" if name == "ttft" else ""
            return Refusal(
                Reason.OBJECTIVES_BELOW_FLOOR,
                f"spec.objectives.{name} is {duration(wanted)}, below what any usable GPU can reach{prompt}: the floor "
                f"is {duration(least)}, on {where}.",
                f"Ask for more than {duration(least)}, or allow faster GPUs.",
            )
    return None


def _all_above(judge: Judge, placed: list[Option], name: str, wanted: float) -> list[tuple[float, str]]:
    """Give every option's floor with its name; nothing as soon as one is not above what is wanted."""
    found: list[tuple[float, str]] = []
    for each in sorted(placed, key=_power):
        least = _least(judge, each, name)
        if least <= wanted:
            return []
        found.append((least, str(each.candidate)))
    return found


def _power(option: Option) -> float:
    """Order by what all GPUs read in a second, the most first: the likeliest to be fast enough."""
    return -option.candidate.group.gpu.memory_bytes_per_second * option.candidate.gpus


def _largest(options: list[Option]) -> list[Option]:
    """Keep the shapes with the most GPUs of each group: no other shape has a lower floor."""
    most: dict[int, int] = {}
    for option in options:
        key = id(option.candidate.group)
        most[key] = max(most.get(key, 0), option.candidate.gpus)
    return [option for option in options if option.candidate.gpus == most[id(option.candidate.group)]]


def unmet(judge: Judge, best: Score | None) -> Refusal | None:
    """Give the refusal where the best shape misses an objective though nothing is pinned, else None."""
    if best is None or not best.misses or best.forecast is None or pinned_fields(judge.spec):
        return None
    return _out_of_reach(judge, best, best.forecast)


def _least(judge: Judge, option: Option, name: str) -> float:
    found = judge.speed.floor(option.candidate, ideal_settings(judge, option.candidate))
    return found.ttft_seconds if name == "ttft" else found.tpot_seconds


def _out_of_reach(judge: Judge, best: Score, forecast: Forecast) -> Refusal | None:
    asked, tail = judge.objectives, judge.objectives.percentile > 50
    ttft = forecast.ttft_p95_seconds if tail else forecast.ttft_seconds.central
    tpot = forecast.tpot_p95_seconds if tail else forecast.tpot_seconds.central
    rows = (
        ("TTFT", asked.ttft_seconds, ttft, forecast.ttft_seconds),
        ("TPOT", asked.tpot_seconds, tpot, forecast.tpot_seconds),
    )
    missed = [
        f"{name} {duration(seen)} instead of {duration(wanted)}"
        for name, wanted, seen, band in rows
        if wanted is not None and seen * band.low / band.central > wanted
    ]
    if not missed:
        return None
    load = (
        f"{judge.demand.rate:g} requests per second"
        if judge.demand.rate is not None
        else f"{judge.demand.concurrency} requests in flight in a replica"
    )
    where = f"at the {asked.percentile}th percentile" if tail else "on average"
    return Refusal(
        Reason.OBJECTIVES_NOT_MET,
        f"No shape that has a place meets spec.objectives with {load}: the closest is "
        f"{best.option.candidate}, forecast at {' and '.join(missed)} {where}.",
        "Relax the objective, lower the load of a replica, or allow faster GPUs.",
    )
