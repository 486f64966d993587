"""The forecast that is shown has the last word on objectives: where it misses what the search met, the next is tried.

The search judges by the closed form, which leaves out what order and chance do; the chosen plan's scheduler is stepped.
Both can differ, so the best few are stepped in turn until one meets the objectives. Stepping is dear: only so many are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stowage.planning.assemble import assemble
from stowage.planning.result import Plan, PlanRequest
from stowage.planning.search.judge import Score
from stowage.planning.search.shapes import Search
from stowage.planning.speed_notes import duration

MOST_STEPPED: Final = 4
"""Plans whose scheduler is stepped at most before the one that misses least is taken."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """The score to take with its plan; `passed_over` are those that were better until they were stepped, with why."""

    score: Score
    plan: Plan
    passed_over: tuple[tuple[Score, str], ...] = ()
    met: bool = True

    @property
    def meets_objectives(self) -> bool:
        """Whether both the closed form and the stepped scheduler meet what is asked for."""
        return self.met and not self.score.misses

    @property
    def note(self) -> str | None:
        """Say what happened, None where the first one was taken at once."""
        if not self.passed_over and self.met:
            return None
        tried = "; ".join(f"{score.option.candidate}: {why}" for score, why in self.passed_over)
        taken = self.score.option.candidate
        if self.met:
            return (
                f"{taken} is taken since the stepped scheduler misses objectives that the closed form meets on what "
                f"would be better otherwise ({tried})."
            )
        beside = f"; so do the next best ({tried})" if tried else ", and nothing else comes near"
        return f"The stepped scheduler misses objectives that the closed form meets on {taken}{beside}."


def step_best(
    request: PlanRequest, search: Search, first: Score, allowed: Callable[[Score], bool] = lambda _: True
) -> Stepped:
    """Take the first of the best scores whose stepped forecast meets the objectives, else the one that misses least."""
    tried: list[tuple[float, Score, Plan]] = []
    score: Score | None = first
    while score is not None:
        plan = assemble(request, search.judge, score)
        misses = 0.0 if plan.forecast is None else search.judge.speed.misses(plan.forecast)
        if not misses or first.misses or request.estimator is not None:
            return Stepped(score, plan, _words(search, tried), met=not misses or bool(first.misses))
        tried.append((misses, score, plan))
        score = _next(search, first, tried, allowed)
    best = min(tried, key=lambda entry: entry[0])
    others = [entry for entry in tried if entry is not best]
    return Stepped(best[1], best[2], _words(search, others), met=False)


def _next(
    search: Search, first: Score, tried: list[tuple[float, Score, Plan]], allowed: Callable[[Score], bool]
) -> Score | None:
    """Give the best score that was not stepped yet and meets the objectives by the closed form, as the first does."""
    if len(tried) >= MOST_STEPPED:
        return None
    without = frozenset(id(score.option) for _, score, _ in tried)
    found = search.next_best(first, without)
    while found is not None and not allowed(found):
        without |= {id(found.option)}
        found = search.next_best(first, without)
    return found


def _words(search: Search, tried: list[tuple[float, Score, Plan]]) -> tuple[tuple[Score, str], ...]:
    """Say of each what it misses."""
    return tuple((score, _missed(search, plan)) for _, score, plan in tried)


def _missed(search: Search, plan: Plan) -> str:
    asked, forecast = search.judge.objectives, plan.forecast
    if forecast is None:
        return "no forecast"
    ttft, tpot = search.judge.speed.latencies(forecast)
    rows = (("TTFT", asked.ttft_seconds, ttft), ("TPOT", asked.tpot_seconds, tpot))
    return " and ".join(
        f"{name} {duration(seen)} instead of {duration(wanted)}"
        for name, wanted, seen in rows
        if wanted is not None and seen > wanted
    )
