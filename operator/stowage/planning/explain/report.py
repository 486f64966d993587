"""`stowage explain`: everything behind a plan: ranked alternatives with their cost, every rejection, every lever.

Plain text in aligned columns. Nothing is left out for being long; the short form is `stowage plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from stowage.performance.forecast import Forecast
from stowage.performance.levers.effect import Change, Lever, LeverVerdict, percent
from stowage.planning.explain.columns import columns
from stowage.planning.explain.document import result_document
from stowage.planning.explain.levers import plan_levers
from stowage.planning.explain.speed import both_bounds, bound_words, cost_words
from stowage.planning.explain.words import plan_words, shape_words, summary
from stowage.planning.plain import to_plain
from stowage.planning.result import Plan, PlanRequest, PlanResult
from stowage.planning.speed_notes import duration, money

Row = tuple[str, ...]

_HEAD: Final[Row] = (
    "", "shape", "replicas", "TTFT", "TPOT", "tokens/s", "per hour", "per million tokens", "bound", "why",
)  # fmt: skip
_NUMBERS: Final = frozenset({0, 2, 3, 4, 5, 6, 7})
"""Columns of the ranking that end together."""

_SECONDS_PER_HOUR: Final = 3600
_MILLION: Final = 1e6


def explain_report(request: PlanRequest, result: PlanResult, levers: Sequence[Lever] | None = None) -> str:
    """Write the whole explanation of one request; `levers` None: those of the plan are computed."""
    lines = [f"Model      {request.profile.source}"]
    if result.plan is None:
        reason = f"{result.refusal.reason.value}: " if result.refusal else ""
        lines.append(f"Refused    {reason}{summary(result)}")
        lines += _section("Would fit", [f"- {change}" for change in result.would_fit])
    else:
        lines += _plan_lines(result.plan)
    lines += _section(
        "Ranked, the best first (alternatives are forecast by the closed form)",
        list(columns(_ranked(result), _NUMBERS)),
    )
    lines += _section("Rejected, each with its first failing reason", list(_rejected(result)))
    if result.plan is not None:
        lines += _levers_section(plan_levers(request, result.plan) if levers is None else levers)
        lines += _section("Notes", [f"- {note}" for note in result.plan.notes])
    return "\n".join(lines)


def explain_document(request: PlanRequest, result: PlanResult) -> dict[str, Any]:
    """Give the whole explanation as plain values: the document of `stowage plan`, and the levers."""
    levers = () if result.plan is None else plan_levers(request, result.plan)
    return {**result_document(result), "levers": [_lever_document(lever) for lever in levers]}


def _plan_lines(plan: Plan) -> Iterator[str]:
    yield f"Plan       {plan_words(plan)}, {plan.replicas} replica{'' if plan.replicas == 1 else 's'}"
    if plan.forecast is not None:
        yield f"Bound      {both_bounds(plan.forecast)}"
        yield f"           {plan.forecast.bottleneck.sentence}"
        for assumption in plan.forecast.assumptions:
            yield f"           Assumed: {assumption}"
    if plan.cost_per_hour is not None:
        yield f"Cost       {cost_words(plan)}"


def _ranked(result: PlanResult) -> list[Row]:
    plans = (
        ("1", "taken", result.plan),
        ("", "contender", result.contender),
        ("", "better, not taken over a plan in force", result.better),
        ("", "over several nodes", result.multi_node),
    )
    rows: list[Row] = [
        (
            number,
            shape_words(each) if each.lossy is None else plan_words(each),
            *_cells(each.forecast, each.replicas, each.cost_per_hour, each.cost_unit),
            why,
        )
        for number, why, each in plans
        if each is not None
    ]
    for place, other in enumerate(result.alternatives, 2):
        cells = _cells(other.forecast, other.replicas, other.cost_per_hour, other.cost_unit)
        rows.append((str(place), other.candidate, *cells, other.message))
    return [_HEAD, *rows] if rows else []


def _cells(forecast: Forecast | None, replicas: int, per_hour: float | None, unit: str) -> Row:
    hourly = "" if per_hour is None else money(per_hour, unit)
    if forecast is None:
        return str(replicas), "", "", "", hourly, "", ""
    rate = forecast.output_tokens_per_second.central * replicas
    per_million = "" if per_hour is None else money(per_hour / (rate * _SECONDS_PER_HOUR) * _MILLION, unit)
    return (
        str(replicas),
        duration(forecast.ttft_seconds.central),
        duration(forecast.tpot_seconds.central),
        f"{rate:,.0f}",
        hourly,
        per_million,
        bound_words(forecast),
    )


def _rejected(result: PlanResult) -> Iterator[str]:
    rows = [(each.reason.value, each.candidate, each.message) for each in result.rejections]
    yield from columns(sorted(rows, key=lambda row: row[0]))


def _levers_section(levers: Sequence[Lever]) -> list[str]:
    rows: list[Row] = [("lever", "verdict", "tokens/s", "TTFT", "TPOT", "at once", "cost/token", "why")]
    rows += [_lever_row(lever) for lever in levers]
    if not levers:
        return []
    lines = list(columns(rows, frozenset({2, 3, 4, 5, 6})))
    assumed = [f"{lever.name}: {lever.assumption}" for lever in levers if lever.assumption]
    return [
        *_section("Levers, each alone, at the same requests in flight (roofline, closed form)", lines),
        *assumed,
    ]


def _lever_row(lever: Lever) -> Row:
    marks = [
        *(("lossy",) if lever.lossy and lever.effect else ()),
        *((f"unmeasured: {', '.join(lever.unmeasured)}",) if lever.unmeasured else ()),
    ]
    why = lever.reason + (f" ({'; '.join(marks)})" if marks else "")
    effect = lever.effect
    if effect is None:
        return (lever.name, lever.verdict.value, "", "", "", "", "", why)
    changes: tuple[Change, ...] = (
        effect.output_tokens_per_second,
        effect.ttft_seconds,
        effect.tpot_seconds,
        effect.requests_at_once,
        effect.cost_per_million_tokens,
    )
    return (lever.name, lever.verdict.value, *(percent(change.share) for change in changes), why)


def _lever_document(lever: Lever) -> dict[str, Any]:
    document: dict[str, Any] = to_plain(lever)
    document["helps"] = lever.verdict is LeverVerdict.HELPS
    return document


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []
