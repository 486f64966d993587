"""Requests that wait for room in the KV cache: called by name, with how many fit and how many are asked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.performance.boundness import Bound
from stowage.performance.kv_queue import KvQueue, kv_queue
from stowage.performance.traffic import Traffic
from tests.performance.replicas import EIGHT, SEVENTY, forecast_of, replica


@pytest.mark.parametrize("fast", [pytest.param(True, id="closed form"), pytest.param(False, id="stepped")])
def test_a_cache_for_a_part_of_the_clients_is_called_the_bound_of_decoding(fast: bool) -> None:
    found = forecast_of(replica(EIGHT, kv_tokens=12_000), Traffic(1000, 500, concurrency=64), fast)
    assert found.decode.bound is Bound.KV_CAPACITY
    assert found.kv_queue is not None
    assert found.kv_queue.asked == 64
    assert found.kv_queue.fit == pytest.approx(12_000 / 1250, rel=0.35)
    assert found.decode.shares[Bound.KV_CAPACITY] >= found.kv_queue.share > 0.7
    assert "Requests wait for KV memory: " in found.bottleneck.sentence
    assert "fit of 64 asked" in found.bottleneck.sentence
    assert sum(found.decode.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("fast", [pytest.param(True, id="closed form"), pytest.param(False, id="stepped")])
def test_a_rate_beyond_what_the_cache_lets_run_is_called_too(fast: bool) -> None:
    serving = replica(SEVENTY, tensor_parallel_size=4, kv_tokens=20_000)
    found = forecast_of(serving, Traffic(2000, 500, requests_per_second=6.0, num_requests=200), fast)
    assert found.decode.bound is Bound.KV_CAPACITY
    assert found.kv_queue is not None
    assert found.kv_queue.fit < found.kv_queue.asked
    assert found.kv_queue.sentence in found.bottleneck.sentence


@settings(max_examples=20, deadline=None)
@given(
    st.integers(min_value=64, max_value=4000),
    st.integers(min_value=16, max_value=400),
    st.integers(min_value=1, max_value=128),
    st.booleans(),
)
def test_who_has_room_waits_for_none(prompt: int, output: int, clients: int, fast: bool) -> None:
    found = forecast_of(
        replica(EIGHT, kv_tokens=2_000_000), Traffic(prompt, output, concurrency=clients), fast
    )
    assert found.kv_queue is None
    assert found.decode.bound is not Bound.KV_CAPACITY
    assert "KV memory" not in found.bottleneck.sentence


@settings(max_examples=20, deadline=None)
@given(st.integers(min_value=2_500, max_value=100_000), st.booleans())
def test_more_room_never_makes_more_wait(tokens: int, fast: bool) -> None:
    traffic = Traffic(1500, 500, concurrency=48)
    shares = []
    for room in (tokens, 2 * tokens):
        queue = forecast_of(replica(EIGHT, kv_tokens=room), traffic, fast).kv_queue
        shares.append(0.0 if queue is None else queue.share)
    assert shares[1] <= shares[0] + 0.02


def test_few_that_wait_now_and_then_are_not_worth_a_word() -> None:
    assert kv_queue(62.0, 64.0, 0.03) is None


def test_one_request_always_fits() -> None:
    assert "1 fit of 2 asked" in KvQueue(1.0, 1.3, 0.23).sentence


def test_fewer_fit_than_are_asked_for_in_whole_requests_too() -> None:
    sentence = KvQueue(63.8, 64.0, 0.06).sentence
    assert sentence == "Requests wait for KV memory: 63 fit of 64 asked (6% of their time)."
