"""Predicted against measured, and utilisation that is written rarely."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.engine.simulation import Simulation


@pytest.fixture
def serving() -> Simulation:
    sim = Simulation()
    sim.serve()
    sim.report()
    sim.settle()
    return sim


def utilization(sim: Simulation) -> dict[str, Any]:
    figures: dict[str, Any] = sim.resource["status"]["utilization"]
    return figures


def test_predicted_and_measured_stand_side_by_side(serving: Simulation) -> None:
    engine = serving.resource["status"]["engine"]
    assert engine["measured"]["kvTokens"] == 10_000
    assert engine["predicted"]["kvTokens"] == serving.resource["status"]["plan"]["kvTokens"]
    assert "10,000 tokens measured" in engine["summary"]


def test_fewer_tokens_than_the_band_allows_is_a_degradation(serving: Simulation) -> None:
    assert serving.condition("Degraded")[:2] == ("True", "KVCacheBelowPlan")
    assert serving.condition("Ready")[0] == "True", "it still serves"


def test_a_small_change_is_not_written(serving: Simulation) -> None:
    serving.report(kv_usage=0.5, running=8)
    serving.now += timedelta(minutes=2)
    serving.settle()
    before = utilization(serving)
    serving.report(kv_usage=0.53, running=9)
    serving.now += timedelta(minutes=2)
    serving.settle()
    assert utilization(serving) == before


def test_a_large_change_is_written_but_not_before_a_minute_has_passed(serving: Simulation) -> None:
    serving.report(kv_usage=0.9, running=40)
    serving.settle()
    assert utilization(serving)["kvPercent"] == 0
    serving.now += timedelta(minutes=2)
    serving.settle()
    assert utilization(serving)["kvPercent"] == 90


def test_falling_idle_is_written_however_small_the_load_was(serving: Simulation) -> None:
    serving.now += timedelta(minutes=2)
    serving.report(running=1)
    serving.settle()
    assert utilization(serving)["running"] == 1
    serving.now += timedelta(minutes=2)
    serving.report()
    serving.settle()
    assert utilization(serving)["running"] == 0


def test_a_look_is_arranged_for_when_the_next_write_may_be_due(serving: Simulation) -> None:
    assert serving.step().requeue_after == timedelta(seconds=60)


def test_figures_go_with_the_pods_they_come_from(serving: Simulation) -> None:
    serving.pods = []
    serving.settle()
    assert "utilization" not in serving.resource["status"]
    assert "engine" not in serving.resource["status"]
