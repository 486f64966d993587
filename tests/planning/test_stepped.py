"""The stepped forecast has the last word: what it misses is passed over for the next best, up to a bound, and said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.api.refusal import Refusal
from stowage.performance.forecast import Forecast
from stowage.planning.assemble import assemble as assemble_plan
from stowage.planning.demand import objectives_of
from stowage.planning.plan import Plan, PlanResult
from stowage.planning.search import stepped
from stowage.planning.search.stepped import MOST_STEPPED
from tests.hardware.objects import gpu_node
from tests.planning.builders import chosen, inventory_of, llama_8b, make_plan, mixed_nodes, spec_of

SPREAD = {
    "promptTokens": {"mean": 1000, "p95": 3000},
    "outputTokens": {"mean": 300, "p95": 900},
    "requestsPerSecond": 3.0,
}
TIGHT = {"tpot": "60ms", "ttft": "1500ms", "percentile": 99}


def misses(plan: Plan, objectives: dict[str, Any]) -> bool:
    asked, forecast = objectives_of(spec_of(objectives=objectives)), plan.forecast
    assert forecast is not None
    tail = asked.percentile > 50
    ttft = forecast.ttft_p95_seconds if tail else forecast.ttft_seconds.central
    tpot = forecast.tpot_p95_seconds if tail else forecast.tpot_seconds.central
    return (asked.ttft_seconds is not None and ttft > asked.ttft_seconds) or (
        asked.tpot_seconds is not None and tpot > asked.tpot_seconds
    )


def test_a_shape_that_misses_once_stepped_is_passed_over_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), workload=SPREAD, objectives=TIGHT))
    assembled = counted(monkeypatch, slower=100.0, only=1)
    result = make_plan(llama_8b(), inventory_of(mixed_nodes()), workload=SPREAD, objectives=TIGHT)
    plan = chosen(result)
    assert len(assembled) == 2
    assert assembled[0].settings == usual.settings
    assert plan.digest() != usual.digest()
    assert not misses(plan, TIGHT)
    assert plan.shortfall == ()
    notes = [note for note in plan.notes if "since the stepped scheduler misses objectives" in note]
    assert len(notes) == 1
    assert "TTFT" in notes[0] or "TPOT" in notes[0]
    passed_over = [each for each in result.alternatives if "once its scheduler is stepped" in each.message]
    assert passed_over
    assert all(each.candidate in notes[0] for each in passed_over)
    assert all((each.cost_per_hour or 0) <= (plan.cost_per_hour or 0) for each in passed_over)


def test_where_nothing_else_meets_it_either_the_least_miss_is_taken_and_said() -> None:
    nodes = inventory_of([gpu_node("n", "NVIDIA-L4", 1)])
    free = chosen(make_plan(llama_8b(), nodes, workload={**SPREAD, "requestsPerSecond": 0.5}))
    assert free.forecast is not None
    plan = found = None
    for share in (0.99, 0.9, 0.8, 0.7, 0.6, 0.5):
        asked = {"ttft": f"{free.forecast.ttft_p95_seconds * share * 1000:.0f}ms"}
        found = make_plan(llama_8b(), nodes, workload={**SPREAD, "requestsPerSecond": 0.5}, objectives=asked)
        if found.plan is not None and misses(found.plan, asked):
            plan = found.plan
            break
    assert plan is not None, found
    assert plan.shortfall
    assert any("and nothing else comes near" in note or "so do the next best" in note for note in plan.notes)


def test_no_objectives_no_second_step(monkeypatch: pytest.MonkeyPatch) -> None:
    assembled = counted(monkeypatch)
    chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), workload=SPREAD))
    assert len(assembled) == 1


def test_no_more_than_so_many_are_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    assembled = counted(monkeypatch, slower=100.0)
    plan = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), workload=SPREAD, objectives=TIGHT))
    assert len(assembled) == MOST_STEPPED
    assert any("so do the next best" in note for note in plan.notes)


def counted(monkeypatch: pytest.MonkeyPatch, slower: float = 1.0, only: int = MOST_STEPPED) -> list[Plan]:
    """Count the plans that are stepped; the first so many have a forecast that is so much slower than it was."""
    found: list[Plan] = []
    real = assemble_plan

    def assemble(*arguments: Any, **options: Any) -> Plan:
        plan = real(*arguments, **options)
        assert isinstance(plan.forecast, Forecast)
        worse = with_latency(plan, slower if len(found) < only else 1.0)
        found.append(worse)
        return worse

    monkeypatch.setattr(stepped, "assemble", assemble)
    return found


def with_latency(plan: Plan, factor: float) -> Plan:
    forecast = plan.forecast
    assert forecast is not None
    slower = replace(forecast, ttft_p95_seconds=forecast.ttft_p95_seconds * factor)
    return replace(plan, forecast=slower)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([0.5, 2.0, 6.0]), st.sampled_from(["300ms", "800ms", "2s"]), st.sampled_from([50, 95, 99])
)
def test_a_plan_that_misses_says_so_and_one_that_meets_does_not(
    rate: float, ttft: str, percentile: int
) -> None:
    asked = {"ttft": ttft, "tpot": "60ms", "percentile": percentile}
    result: PlanResult = make_plan(
        llama_8b(),
        inventory_of(mixed_nodes()),
        workload={**SPREAD, "requestsPerSecond": rate},
        objectives=asked,
    )
    if result.plan is None:
        assert isinstance(result.refusal, Refusal)
        return
    assert misses(result.plan, asked) == bool(result.plan.shortfall)
    assert (
        not any("and nothing else comes near" in note for note in result.plan.notes) or result.plan.shortfall
    )
