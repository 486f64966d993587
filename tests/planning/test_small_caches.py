"""A KV cache that is a small part of the card is pinned at the lower end of its band."""

from __future__ import annotations

import pytest

from stowage.api.reasons import Reason
from stowage.planning.plan import PlanRequest, plan
from tests.hardware.objects import gpu_node
from tests.planning.builders import chosen, inventory_of, llama_8b, llama_70b, make_plan, refused, spec_of

A100 = "NVIDIA-A100-SXM4-80GB"
GIB = 2**30
TWO_A100 = inventory_of([gpu_node("a", A100, 2)])
LONG = {"maxModelLen": 8192, "concurrencyPerReplica": 2, "promptTokens": {"mean": 2000}}


def test_a_small_cache_is_pinned_and_said() -> None:
    free = chosen(make_plan(llama_70b(), TWO_A100, workload=LONG, engine={"version": "0.9.2"}))
    found = chosen(make_plan(llama_70b(), TWO_A100, workload=LONG))
    pinned = found.settings.kv_cache_memory_bytes
    assert free.settings.kv_cache_memory_bytes is None
    assert pinned is not None
    assert 0 < pinned < 0.1 * found.ledger.total_bytes
    assert found.ledger.kv_cache_bytes == pinned
    assert any(note.startswith(f"The KV cache is pinned to {pinned / GIB:.2f} GiB") for note in found.notes)


def test_what_is_pinned_and_everything_else_is_no_more_than_the_card_has() -> None:
    ledger = chosen(make_plan(llama_70b(), TWO_A100, workload=LONG)).ledger
    assert ledger.verdict == "Fits"
    assert ledger.free_bytes > 0


def test_a_large_cache_is_left_to_the_engine() -> None:
    found = chosen(make_plan(llama_8b(), TWO_A100))
    assert found.settings.kv_cache_memory_bytes is None


def test_a_plan_with_a_pinned_cache_is_kept() -> None:
    old = chosen(make_plan(llama_70b(), TWO_A100, workload=LONG))
    more = inventory_of([gpu_node("a", A100, 2), gpu_node("b", A100, 4)])
    again = plan(PlanRequest(spec_of(workload=LONG), llama_70b(), 1, in_force=old), more)
    assert chosen(again).digest() == old.digest()


def test_a_stated_size_that_is_taken_back_is_not_kept() -> None:
    old = chosen(make_plan(llama_70b(), TWO_A100, workload=LONG, engine={"kvCacheMemory": "3Gi"}))
    again = plan(PlanRequest(spec_of(workload=LONG), llama_70b(), 1, in_force=old), TWO_A100)
    assert chosen(again).settings.kv_cache_memory_bytes != old.settings.kv_cache_memory_bytes


def test_the_users_own_size_wins() -> None:
    found = chosen(make_plan(llama_70b(), TWO_A100, workload=LONG, engine={"kvCacheMemory": "3Gi"}))
    assert found.settings.kv_cache_memory_bytes == 3 * GIB
    assert not any("is pinned to" in note for note in found.notes)


@pytest.mark.parametrize("version", ["0.8.5", "0.9.2"])
def test_a_release_without_the_option_is_refused_for_a_stated_size(version: str) -> None:
    engine = {"kvCacheMemory": "3Gi", "version": version}
    refusal = refused(make_plan(llama_70b(), TWO_A100, workload=LONG, engine=engine))
    assert refusal.reason is Reason.PIN_CONFLICT
    assert "spec.engine.kvCacheMemory" in refusal.sentence
    assert version in refusal.sentence
