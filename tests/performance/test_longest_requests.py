"""Spread lengths: the longest request of a run can be larger than the cache that the mean one needs, and ends too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stowage.performance.simulation import simulate
from stowage.performance.traffic import Traffic
from tests.performance.replicas import EIGHT, replica


@pytest.mark.parametrize("load", [{"concurrency": 200}, {"requests_per_second": 50.0}])
def test_a_request_longer_than_the_cache_of_the_mean_one_still_ends(load: dict[str, float]) -> None:
    tight = replace(replica(EIGHT), kv_tokens=900)
    traffic = Traffic(
        300,
        300,
        prompt_tokens_p95=1000,
        output_tokens_p95=1000,
        num_requests=200,
        **load,  # type: ignore[arg-type]
    )
    run = simulate(tight, traffic)
    assert len(run.ttft) == len(run.tpot) > 0
    assert run.waiting_for_room > 0
