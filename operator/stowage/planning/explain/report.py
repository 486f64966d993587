"""`stowage explain`: everything behind a plan: ranked alternatives with their cost, every rejection, every lever.

Plain text in aligned columns. Nothing is left out for being long; the short form is `stowage plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from stowage.api.refusal import Refusal
from stowage.performance.forecast import Forecast
from stowage.performance.levers.effect import Change, Lever, LeverVerdict, percent
from stowage.performance.roofline import Roofline
from stowage.planning.explain.columns import columns
from stowage.planning.explain.document import result_document
from stowage.planning.explain.levers import lever_question, plan_levers
from stowage.planning.explain.lines import bullet, wrapped_rows
from stowage.planning.explain.speed import bound_words
from stowage.planning.explain.table import head_rows, ledger_bars
from stowage.planning.explain.words import plan_words, shape_words
from stowage.planning.plain import to_plain
from stowage.planning.result import Alternative, Plan, PlanRequest, PlanResult
from stowage.planning.speed_notes import duration, money

Row = tuple[str, ...]

_NUMBERS: Final = frozenset({0, 2, 3, 4, 5, 6, 7})
"""Columns of the ranking that end together."""

_RANKED: Final = "Ranked, the best first (all by the closed form, so that they compare)"
_INDENT: Final = "  "
_SECONDS_PER_HOUR: Final = 3600
_MILLION: Final = 1e6


def explain_report(
    request: PlanRequest,
    result: PlanResult,
    levers: Sequence[Lever] | None = None,
    width: int | None = None,
) -> str:
    """Write the whole explanation of one request; `levers` None: those of the plan are computed.

    `width` None: lines are as long as they need to be.
    """
    inner = None if width is None else width - len(_INDENT)
    lines = list(_head(request, result, width))
    lines += _section(_RANKED, list(columns(_ranked(request, result), _NUMBERS, inner)))
    lines += _section("Rejected, each with its first failing reason", list(_rejected(result, inner)))
    if result.plan is not None:
        found = plan_levers(request, result.plan) if levers is None else levers
        lines += _levers_section(found, inner)
        notes = (note for note in result.plan.notes if note not in result.plan.shortfall)
        lines += _section("Notes", [line for note in notes for line in bullet(note, inner)])
    return "\n".join(lines)


def explain_document(request: PlanRequest, result: PlanResult) -> dict[str, Any]:
    """Give the whole explanation as plain values: the document of `stowage plan`, and the levers."""
    levers = () if result.plan is None else plan_levers(request, result.plan)
    return {**result_document(result), "levers": [_lever_document(lever) for lever in levers]}


def _head(request: PlanRequest, result: PlanResult, width: int | None) -> Iterator[str]:
    """Write what `stowage plan` says too, and what the bottleneck and the forecast rest on."""
    plan = result.plan
    rows = list(head_rows(request, result))
    if plan is not None and plan.forecast is not None:
        after = next(place for place, row in enumerate(rows) if row[0] == "Bound") + 1
        rows.insert(after, ("", plan.forecast.bottleneck.sentence))
        rows += [("Assumed", assumption) for assumption in plan.forecast.assumptions]
    yield from wrapped_rows(rows, width)
    if plan is None:
        changes = [line for change in result.would_fit for line in bullet(change, width)]
        yield from _section("Would fit", changes)
    else:
        yield from ("", *ledger_bars(plan.ledger))


def _ranked(request: PlanRequest, result: PlanResult) -> list[Row]:
    plans = (
        ("1", "taken", result.plan),
        ("", "contender", result.contender),
        ("", "better, not taken over a plan in force", result.better),
        ("", "over several nodes", result.multi_node),
    )
    found = [(number, why, each) for number, why, each in plans if each is not None]
    others = result.alternatives
    units = {each.cost_unit for _, _, each in found} | {each.cost_unit for each in others}
    common = units.pop() if len(units) == 1 else ""
    rows: list[Row] = []
    for number, why, each in found:
        shape = shape_words(each) if each.lossy is None else plan_words(each)
        forecast = _closed_form(request, each)
        rows.append((number, shape, *_cells(each, forecast, common), _because(forecast, why)))
    for place, other in enumerate(others, 2):
        why = _because(other.forecast, other.message)
        rows.append((str(place), other.candidate, *_cells(other, other.forecast, common), why))
    costs = (f"{common}/hour", f"{common}/1M tokens") if common else ("per hour", "per 1M tokens")
    head = ("", "shape", "replicas", "TTFT", "TPOT", "tokens/s", *costs, "bound; why")
    return [head, *rows] if rows else []


def _because(forecast: Forecast | None, why: str) -> str:
    return why if forecast is None else f"{bound_words(forecast)}; {why}"


def _closed_form(request: PlanRequest, plan: Plan) -> Forecast | None:
    """Forecast the plan as its alternatives are, so that a difference is theirs and not the method's."""
    question = lever_question(request, plan)
    if question is None:
        return plan.forecast
    found = Roofline(fast=True).forecast(question.serving, question.traffic)
    return plan.forecast if isinstance(found, Refusal) else found


def _cells(priced: Plan | Alternative, forecast: Forecast | None, common: str) -> Row:
    """Write the numbers of a row; costs without their unit where all rows have it in common."""

    def cost(amount: float) -> str:
        words = money(amount, priced.cost_unit)
        return words.removesuffix(f" {common}") if common else words

    hourly = "" if priced.cost_per_hour is None else cost(priced.cost_per_hour)
    if forecast is None:
        return str(priced.replicas), "", "", "", hourly, ""
    rate = forecast.output_tokens_per_second.central * priced.replicas
    per_token = (priced.cost_per_hour or 0.0) / (rate * _SECONDS_PER_HOUR)
    return (
        str(priced.replicas),
        duration(forecast.ttft_seconds.central),
        duration(forecast.tpot_seconds.central),
        f"{rate:,.0f}",
        hourly,
        "" if priced.cost_per_hour is None else cost(per_token * _MILLION),
    )


def _rejected(result: PlanResult, width: int | None) -> Iterator[str]:
    rows = [(each.reason.value, each.candidate, each.message) for each in result.rejections]
    yield from columns(sorted(rows, key=lambda row: row[0]), width=width)


def _levers_section(levers: Sequence[Lever], width: int | None) -> list[str]:
    if not levers:
        return []
    rows: list[Row] = [("lever", "verdict", "tokens/s", "TTFT", "TPOT", "at once", "cost/token", "why")]
    rows += [_lever_row(lever) for lever in levers]
    lines = list(columns(rows, frozenset({2, 3, 4, 5, 6}), width))
    for lever in levers:
        if lever.assumption:
            lines += bullet(f"{lever.name} assumes: {lever.assumption}", width)
    return _section("Levers, each alone, at the same requests in flight (roofline, closed form)", lines)


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
    return ["", title, *(f"{_INDENT}{line}" for line in lines)] if lines else []
