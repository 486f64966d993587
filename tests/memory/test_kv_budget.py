"""The longest context that fits, for every kind of cache: the same answer as trying every length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stowage.memory.kv.budget import kv_budget
from stowage.memory.kv.pool import KvPool
from stowage.memory.rank import rank_terms
from stowage.memory.setting import Setting
from tests.memory.support import A100, GIB, shape, version
from tests.memory.test_kv_capacity import CASES, profile_of_case

LIMIT = 100_000
KINDS = (
    "32 full layers",
    "five windows to one full layer",
    "seven full and eighteen windowed layers",
    "a window on every layer",
    "three chunked layers to one full",
    "three delta nets to one full layer",
    "small windowed heads beside large full ones",
    "a decoder with cross attention",
)


def budget_of(case: dict[str, Any], kv_bytes: int | None, release: str) -> Any:
    """Make the KV budget of one rank."""
    asked = shape(max_num_batched_tokens=case["max_num_batched_tokens"], kv_cache_memory_bytes=kv_bytes)
    setting = Setting(profile_of_case(case), asked, A100, version(release))
    return kv_budget(setting, rank_terms(setting, 0))


@pytest.mark.parametrize("release", ["0.13.0", "0.18.1", "0.25.1", "0.32.0"])
@pytest.mark.parametrize("name", KINDS)
def test_the_longest_context_is_the_last_that_fits(name: str, release: str) -> None:
    for kv_gib in (0.3, 1.7, 4.0):
        budget = budget_of(CASES[name], int(kv_gib * GIB), release)
        found = budget.largest_max_model_len(LIMIT)
        assert fits(budget, found or 1) is (found is not None)
        assert found == LIMIT or not fits(budget, (found or 0) + 1)


def fits(budget: Any, length: int) -> bool:
    """Whether a request of that length has room."""
    return bool(budget.available_bytes(length) >= budget.needed_bytes(length))


@pytest.mark.parametrize("name", KINDS)
def test_block_tables_are_paid_from_the_same_budget(name: str) -> None:
    """Without pinned bytes a longer context leaves less for the cache, so the search must see both."""
    budget = budget_of(CASES[name], None, "0.32.0")
    short = 10 * GIB - budget.available_bytes(1)
    found = budget.largest_max_model_len(1 << 20, shift_bytes=short)
    assert found is not None
    slack = [
        budget.available_bytes(length) + short - budget.needed_bytes(length) for length in (found, found + 1)
    ]
    assert slack[0] >= 0
    assert found == 1 << 20 or slack[1] < 0


@pytest.mark.parametrize("name", KINDS)
def test_few_tries_suffice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Halving a million tokens takes sixteen tries, and planning asks for this thousands of times."""
    budget, tries = budget_of(CASES[name], 4 * GIB, "0.32.0"), []
    needed_bytes = KvPool.needed_bytes

    def counted(pool: KvPool, tokens: int) -> int:
        tries.append(tokens)
        return needed_bytes(pool, tokens)

    monkeypatch.setattr(KvPool, "needed_bytes", counted)
    assert budget.largest_max_model_len(1 << 20) is not None
    assert len(tries) <= 9


def test_the_cases_cover_every_release_that_is_kept() -> None:
    golden = Path(__file__).parent / "oracle" / "kv_golden"
    for path in golden.glob("*.json"):
        assert len(json.loads(path.read_text(encoding="utf-8"))["answers"]) > 20
