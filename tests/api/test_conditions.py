"""Conditions keep their time, their order and the root cause."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.api.conditions import (
    Condition,
    ConditionStatus,
    ConditionType,
    Reason,
    condition,
    find_condition,
    merge_conditions,
    parse_conditions,
    rfc3339,
    summarize,
)
from tests.api.sample_status import NOW, serving_conditions

LATER = NOW + timedelta(minutes=5)


def entry(
    kind: ConditionType, status: bool | None, reason: Reason, *, generation: int = 1, now: datetime = NOW
) -> Condition:
    return condition(kind, status, reason, f"because of {reason}", generation=generation, now=now)


def ready_after(*changes: Condition, generation: int = 1) -> Condition:
    conditions = merge_conditions(serving_conditions(), changes)
    return summarize(conditions, generation=generation, now=NOW, serving_message="well")


def test_the_time_stays_while_the_status_stays_though_reason_and_message_change() -> None:
    before = (entry(ConditionType.PROGRESSING, True, Reason.FETCHING_MODEL),)
    after = merge_conditions(
        before, [entry(ConditionType.PROGRESSING, True, Reason.LOADING_MODEL, now=LATER)]
    )
    assert after[0].reason == "LoadingModel"
    assert after[0].last_transition_time == rfc3339(NOW)


def test_the_time_moves_when_the_status_flips() -> None:
    before = (entry(ConditionType.PROGRESSING, True, Reason.LOADING_MODEL),)
    after = merge_conditions(before, [entry(ConditionType.PROGRESSING, False, Reason.COMPLETE, now=LATER)])
    assert after[0].last_transition_time == rfc3339(LATER)


def test_times_are_written_in_utc_and_whole_seconds() -> None:
    moment = datetime(2030, 1, 2, 5, 4, 5, 999999, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(moment) == "2030-01-02T03:04:05Z"


kinds = st.sampled_from(list(ConditionType))
entries = st.builds(
    entry,
    kinds,
    st.sampled_from([True, False, None]),
    st.sampled_from(list(Reason)),
    now=st.sampled_from([NOW, LATER]),
)


@settings(deadline=None)
@given(st.lists(entries), st.lists(entries))
def test_merging_is_ordered_complete_and_idempotent(before: list[Condition], after: list[Condition]) -> None:
    once = merge_conditions(before, after)
    assert merge_conditions(once, after) == once
    order = list(ConditionType)
    positions = [order.index(each.type) for each in once]
    assert positions == sorted(set(positions))
    assert {each.type for each in once} == {each.type for each in before} | {each.type for each in after}


def test_ready_when_accepted_planned_and_available() -> None:
    ready = ready_after()
    assert (ready.status, ready.reason, ready.message) == (ConditionStatus.TRUE, "Serving", "well")


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        pytest.param(
            [entry(ConditionType.PLANNED, False, Reason.INSUFFICIENT_MEMORY)],
            "False",
            "InsufficientMemory",
            id="an edit to something impossible while the old plan serves",
        ),
        pytest.param(
            [
                entry(ConditionType.ACCEPTED, False, Reason.MODEL_NOT_FOUND),
                entry(ConditionType.PLANNED, False, Reason.NOT_ACCEPTED),
                entry(ConditionType.AVAILABLE, False, Reason.NOT_ACCEPTED),
            ],
            "False",
            "ModelNotFound",
            id="the first cause wins over what follows from it",
        ),
        pytest.param(
            [entry(ConditionType.ACCEPTED, None, Reason.RESOLVING_MODEL)],
            "Unknown",
            "ResolvingModel",
            id="not known yet stays not known",
        ),
        pytest.param(
            [
                entry(ConditionType.AVAILABLE, False, Reason.MINIMUM_REPLICAS_UNAVAILABLE),
                entry(ConditionType.PROGRESSING, True, Reason.LOADING_MODEL),
            ],
            "False",
            "LoadingModel",
            id="while pods come up, what they are at",
        ),
        pytest.param(
            [
                entry(ConditionType.AVAILABLE, False, Reason.MINIMUM_REPLICAS_UNAVAILABLE),
                entry(ConditionType.PROGRESSING, True, Reason.ROLLING_OUT),
                entry(ConditionType.DEGRADED, True, Reason.CUDA_OUT_OF_MEMORY),
            ],
            "False",
            "CUDAOutOfMemory",
            id="what is wrong wins over what is going on",
        ),
        pytest.param(
            [
                entry(ConditionType.AVAILABLE, False, Reason.MINIMUM_REPLICAS_UNAVAILABLE),
                entry(ConditionType.PROGRESSING, True, Reason.STARTING),
                entry(ConditionType.DEGRADED, True, Reason.KV_CACHE_BELOW_PLAN),
            ],
            "False",
            "Starting",
            id="a smaller KV cache than planned keeps no replica from serving",
        ),
        pytest.param(
            [entry(ConditionType.AVAILABLE, False, Reason.MINIMUM_REPLICAS_UNAVAILABLE)],
            "False",
            "MinimumReplicasUnavailable",
            id="nothing better is known",
        ),
        pytest.param(
            [
                entry(ConditionType.AVAILABLE, False, Reason.PLAN_ONLY),
                entry(ConditionType.PROGRESSING, False, Reason.PLAN_ONLY),
            ],
            "False",
            "PlanOnly",
            id="a plan is all that was asked for",
        ),
        pytest.param(
            [entry(ConditionType.DEGRADED, True, Reason.REPORT_UNAVAILABLE)],
            "True",
            "Serving",
            id="degraded but serving",
        ),
    ],
)
def test_ready_carries_the_root_cause(changes: list[Condition], status: str, reason: str) -> None:
    ready = ready_after(*changes)
    assert (ready.status, ready.reason) == (status, reason)


def test_conditions_of_an_older_generation_do_not_make_the_new_one_ready() -> None:
    ready = ready_after(generation=2)
    assert (ready.status, ready.reason) == (ConditionStatus.UNKNOWN, "Reconciling")
    assert "generation 2" in ready.message


def test_reading_back_gives_the_same_conditions_and_leaves_out_foreign_ones() -> None:
    conditions = serving_conditions()
    raw = [each.to_dict() for each in conditions]
    foreign = [{"type": "SomebodyElses", "status": "True"}, "nonsense", {"type": "Ready"}]
    assert parse_conditions([*foreign, *raw]) == conditions
    assert parse_conditions(None) == ()


def test_finding_a_condition() -> None:
    found = find_condition(serving_conditions(), ConditionType.PLANNED)
    assert found is not None
    assert found.is_true
    assert find_condition((), ConditionType.PLANNED) is None
