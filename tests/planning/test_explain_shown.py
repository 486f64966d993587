"""What is shown of a plan, byte for byte, from plans whose numbers are written by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.api.v1alpha1.plan_better import PlanBetter
from stowage.api.v1alpha1.plan_status import PLAN_MAX_BYTES, PlanStatus
from stowage.commands.plan.picture import picture
from stowage.performance.boundness import Bound
from stowage.performance.interval import Interval
from stowage.performance.traffic import Traffic
from stowage.planning.explain import parallel_words, result_document, status_plan
from stowage.planning.explain.columns import columns
from stowage.planning.explain.report import explain_document, explain_report
from stowage.planning.explain.speed import both_bounds, bound_words, cost_words, rate_words, traffic_words
from stowage.planning.explain.table import plan_table
from stowage.planning.plan import Plan, PlanResult
from tests.planning.shown_plans import (
    boundness,
    forecast,
    shown_levers,
    shown_plan,
    shown_refusal,
    shown_request,
    shown_result,
)

GOLDEN = Path(__file__).parent / "golden"


def table() -> str:
    return plan_table(shown_request(), shown_result(), shown_levers())


def refused_table() -> str:
    return plan_table(shown_request(), shown_refusal())


def report() -> str:
    return explain_report(shown_request(), shown_result(), shown_levers())


def refused_report() -> str:
    return explain_report(shown_request(), shown_refusal())


def status() -> str:
    return json.dumps(status_plan(shown_result()), indent=2, ensure_ascii=False)


def drawn() -> str:
    return picture("hf://meta-llama/Llama-3.1-8B", shown_plan())


@pytest.mark.parametrize(
    ("name", "show"),
    [
        pytest.param("plan.txt", table, id="the table of a plan"),
        pytest.param("refusal.txt", refused_table, id="the table of a refusal"),
        pytest.param("explained.txt", report, id="the explanation of a plan"),
        pytest.param("explained-refusal.txt", refused_report, id="the explanation of a refusal"),
        pytest.param("status.json", status, id="status.plan"),
        pytest.param("plan.svg", drawn, id="the picture"),
    ],
)
def test_what_is_shown_is_the_golden_one(name: str, show: Callable[[], str]) -> None:
    text, path = show() + "\n", GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "set UPDATE_GOLDEN=1 and look at the difference"
    assert show() + "\n" == text


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 400))
def test_a_table_has_thirty_lines_at_most_and_says_what_it_leaves_out(
    notes: int, alternatives: int, words: int
) -> None:
    result = shown_result()
    plan = replace(shown_plan(), notes=tuple(f"note {n} " + "word " * (words // 5) for n in range(notes)))
    crowded = replace(result, plan=plan, alternatives=result.alternatives[:1] * alternatives)
    lines = plan_table(shown_request(), crowded, shown_levers()).splitlines()
    assert len(lines) <= 30
    shown = sum("- note " in line for line in lines)
    assert shown == notes or f"{notes - shown} under Notes" in lines[-1]


def test_status_plan_holds_forecast_bound_and_cost() -> None:
    shown = status_plan(shown_result())
    assert PlanStatus.model_validate(shown).to_dict() == shown
    assert shown["bound"] == "decode: MemoryBandwidth 81%"
    assert shown["forecast"]["ttftSeconds"] == {"value": 0.84, "low": 0.525, "high": 1.344}
    assert shown["forecast"]["decode"]["memoryBandwidth"] == 81
    assert shown["forecast"]["workload"] == "2,000 tokens in, 200 out, 32 requests in flight"
    assert shown["cost"] == {"unit": "USD", "perHour": 16.7, "perMillionTokens": 1.86, "defaultPrice": True}
    assert shown["contender"].endswith("fp8 (fp8 weights, quantised on load)")
    assert len(json.dumps(shown, separators=(",", ":"), ensure_ascii=False).encode()) <= PLAN_MAX_BYTES


def test_status_plan_leaves_out_what_stands_beside_the_choice_before_it_grows_too_large() -> None:
    long = "é" * 512
    plan = PlanStatus.model_validate(status_plan(shown_result()))
    wordy = plan.model_copy(
        update=dict.fromkeys(("summary", "contender", "lossy", "model_source", "calibrated"), long)
        | {"better": PlanBetter(plan=long, brings=long, take=long)}
        | {"notes": (long,) * 16, "shortfall": (long,) * 4, "pools": (long,) * 8}
    ).within_limit()
    assert wordy.size_bytes <= PLAN_MAX_BYTES
    assert wordy.summary == long
    assert wordy.bound == plan.bound
    assert wordy.ledger == plan.ledger


def test_a_plan_without_a_forecast_is_shown_without_one() -> None:
    bare = replace(
        shown_plan(), forecast=None, traffic=None, cost_per_hour=None, cost_per_million_tokens=None
    )
    result = PlanResult(bare)
    text = plan_table(shown_request(), result)
    assert not {"Forecast", "Bound", "Cost", "Levers"} & {line[:8].strip() for line in text.splitlines()}
    assert not {"forecast", "bound", "cost"} & set(status_plan(result))
    assert "<circle" not in picture("model", bare)
    assert "<circle" in picture("model", shown_plan())


def test_documents_for_machines_hold_every_plan_and_can_be_read_back() -> None:
    result = shown_result()
    document = json.loads(json.dumps(result_document(result)))
    assert Plan.from_json(json.dumps(document["plan"])) == result.plan
    assert Plan.from_json(json.dumps(document["contender"])) == result.contender
    assert document["better"] is None
    assert explain_document(shown_request(), replace(result, plan=None))["levers"] == []


def test_bounds_costs_and_loads_in_words() -> None:
    found = forecast()
    assert bound_words(found) == "decode: MemoryBandwidth 81%"
    assert both_bounds(found) == (
        "prefill: Compute 87% (36% of the time), decode: MemoryBandwidth 81% (64%); 1,089 and 7.0 FLOP/B, ridge 295"
    )
    busy = replace(
        found,
        bottleneck=replace(found.bottleneck, phase="prefill"),
        prefill=boundness(500.0, Bound.INTERCONNECT, 0.6, Bound.COMPUTE),
    )
    assert bound_words(busy) == "prefill: Interconnect 60%"
    assert rate_words(Interval(12.345, 1.0, 123.4)) == "12.3 (1 to 123)"
    assert traffic_words(Traffic(100, 10, 1)) == "100 tokens in, 10 out, 1 request in flight"
    rate = Traffic(100, 10, requests_per_second=2.5, prefix_hit_rate=0.5)
    assert traffic_words(rate) == "100 tokens in, 10 out, 2.5 requests/s, 50% of the prompt cached"
    expected = "16.70 USD per hour, 1.86 USD per 1M output tokens for 2 replicas (default price)"
    assert cost_words(shown_plan()) == expected


@pytest.mark.parametrize(
    ("sizes", "words"),
    [((4, 1, 1, False), "tp4"), ((4, 2, 1, False), "tp4 pp2"), ((1, 1, 8, True), "tp1 dp8 ep")],
)
def test_parallelism_in_words(sizes: tuple[int, int, int, bool], words: str) -> None:
    tensor, pipeline, data, experts = sizes
    settings = replace(
        shown_plan().settings,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        data_parallel_size=data,
        enable_expert_parallel=experts,
    )
    assert parallel_words(replace(shown_plan(), settings=settings)) == words


def test_columns_are_aligned() -> None:
    rows = [("a", "1", "why"), ("longer", "22", "")]
    assert list(columns(rows, frozenset({1}))) == ["a        1  why", "longer  22"]
    assert list(columns([])) == []
