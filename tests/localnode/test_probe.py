from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.localnode.probe import ProbeState, ProbeTiming, Verdict

TIMING = ProbeTiming(success_threshold=2, failure_threshold=3)


@pytest.mark.parametrize(
    ("kind", "outcomes", "verdict"),
    [
        pytest.param("readiness", "", Verdict.FAILURE, id="a container is not ready before its first check"),
        pytest.param("liveness", "", Verdict.SUCCESS, id="a container is alive before its first check"),
        pytest.param("startup", "", Verdict.UNKNOWN, id="nobody knows whether it has started"),
        pytest.param(
            "readiness", "+", Verdict.FAILURE, id="one success is not enough for a threshold of two"
        ),
        pytest.param("readiness", "++", Verdict.SUCCESS, id="two successes in a row are"),
        pytest.param("readiness", "+-+", Verdict.FAILURE, id="a failure between them starts the count anew"),
        pytest.param("readiness", "++--", Verdict.SUCCESS, id="two failures do not take readiness away"),
        pytest.param("readiness", "++---", Verdict.FAILURE, id="three failures in a row do"),
        pytest.param("liveness", "--+--", Verdict.SUCCESS, id="failures that are not in a row do no harm"),
        pytest.param("startup", "---", Verdict.FAILURE, id="a start-up that fails three times has failed"),
    ],
)
def test_verdict(kind: str, outcomes: str, verdict: Verdict) -> None:
    state = ProbeState(kind, TIMING)
    for outcome in outcomes:
        state.observe(outcome == "+")
    assert state.verdict is verdict


@given(st.lists(st.booleans()))
def test_a_change_is_reported_exactly_when_the_verdict_changes(outcomes: list[bool]) -> None:
    state = ProbeState("readiness", TIMING)
    for outcome in outcomes:
        before = state.verdict
        assert state.observe(outcome) is (state.verdict is not before)


def test_timing_has_the_defaults_of_the_api() -> None:
    assert ProbeTiming.of({"httpGet": {}}) == ProbeTiming(0, 10, 1, 1, 3)
    assert ProbeTiming.of({"periodSeconds": 2, "failureThreshold": 9}).failure_threshold == 9
