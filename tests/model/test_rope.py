"""Rotary tables and context limits, by scaling kind (rules of vLLM 0.32.0)."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.model.profile import RopeCache
from tests.model.support import TINY, profile_of, published


@pytest.mark.parametrize(
    ("changes", "rows", "rotary_dim", "limit", "default"),
    [
        pytest.param({}, 2048, 32, 2048, 2048, id="no scaling"),
        pytest.param(
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            2048,
            32,
            2048,
            2048,
            id="llama3 keeps the limit",
        ),
        pytest.param(
            {"rope_scaling": {"type": "linear", "factor": 4}}, 8192, 32, 8192, 8192, id="linear stretches"
        ),
        pytest.param(
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            2048,
            32,
            4096,
            4096,
            id="dynamic lengthens only",
        ),
        pytest.param(
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}},
            2048,
            32,
            2048,
            2048,
            id="yarn with a stretched limit already stated",
        ),
        pytest.param(
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            2048,
            16,
            2048,
            2048,
            id="a part of each head is rotated",
        ),
        pytest.param({"model_max_length": 512}, 2048, 32, 512, 512, id="model_max_length overrides"),
        pytest.param({"seq_length": 1024}, 2048, 32, 1024, 1024, id="the smallest stated length counts"),
    ],
)
def test_table_and_limits(
    changes: dict[str, Any], rows: int, rotary_dim: int, limit: int, default: int
) -> None:
    profile = profile_of(TINY, **changes)
    assert profile.rope == (RopeCache(rows, rotary_dim),)
    assert (profile.max_model_len, profile.default_max_model_len) == (limit, default)


def test_yarn_that_the_engine_does_not_stretch_is_noted() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    profile = profile_of(TINY, rope_scaling=scaling)
    assert profile.rope == (RopeCache(8192, 32),)
    assert profile.max_model_len == 2048
    assert "max_position_embeddings" in profile.notes[0]


def test_long_rope_holds_both_tables_and_starts_with_the_short_context() -> None:
    profile = published("microsoft--Phi-3-mini-128k-instruct")
    assert profile.rope == (RopeCache(4096 + 131072, 96),)
    assert (profile.max_model_len, profile.default_max_model_len) == (131072, 4096)
