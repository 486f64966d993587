"""States of recurrent layers: against vLLM's own arithmetic, against a logged start, and across releases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.memory.kv.state_cache import hybrid_block_size, state_bytes, states_per_request
from stowage.model.profile import StateProfile
from tests.model.support import published

STATES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "oracle" / "states.json").read_text(encoding="utf-8")
)

QWEN = StateProfile(
    "gated-delta-net",
    conv_kernel=4,
    num_heads=48,
    head_dim=128,
    key_heads=16,
    key_dim=128,
    state_dtype="float32",
)
MAMBA2 = StateProfile(
    "mamba2",
    conv_kernel=4,
    inner_size=8192,
    state_size=128,
    num_heads=128,
    head_dim=64,
    num_groups=8,
    state_dtype="float32",
)
MAMBA1 = StateProfile("mamba1", conv_kernel=4, inner_size=8192, state_size=16)
KDA = StateProfile(
    "kimi-delta",
    conv_kernel=4,
    num_heads=32,
    head_dim=128,
    key_heads=32,
    key_dim=128,
    state_dtype="float32",
)
CONV = StateProfile("short-conv", conv_kernel=3, inner_size=2048)
LIGHTNING = StateProfile("lightning", num_heads=64, head_dim=128)


def _row_id(row: dict[str, Any]) -> str:
    drafts = row["num_speculative_tokens"]
    return f"{row['model']} tp{row['tensor_parallel_size']}" + (f" with {drafts} guessed" if drafts else "")


@pytest.mark.parametrize("row", [pytest.param(row, id=_row_id(row)) for row in STATES])
def test_a_state_is_as_large_as_vllm_says(row: dict[str, Any]) -> None:
    mixers = {mixer for layer in published(row["model"]).layers for mixer in layer.mixers}
    (state,) = (mixer for mixer in mixers if isinstance(mixer, StateProfile))
    size = state_bytes(state, row["tensor_parallel_size"], 2, row["num_speculative_tokens"])
    assert size == row["bytes"]


def test_blocks_of_a_hybrid_are_those_in_the_log() -> None:
    size = state_bytes(QWEN, 1, 2)
    block = hybrid_block_size(size, 4 * 256 * 2, block_size=16)
    padding = block * 4 * 256 * 2 / size - 1
    assert (size, block) == (3_207_168, 1568)
    assert round(100 * padding, 2) == 0.13  # noonghunna/club-3090#1047: Qwen3.8-27B with an fp8 KV cache


@pytest.mark.parametrize(
    ("state", "release", "drafts", "expected"),
    [
        pytest.param(
            QWEN, "0.32.0", 2, 10240 * 5 * 2 + 48 * 128 * 128 * 4, id="delta nets keep guessed inputs"
        ),
        pytest.param(QWEN, "0.16.0", 0, 10240 * 3 * 2 + 48 * 128 * 128 * 2, id="before Qwen3.5 no own dtype"),
        pytest.param(
            MAMBA2, "0.16.0", 2, 10240 * 3 * 2 + 128 * 64 * 128 * 4, id="Mamba 2 did not until 0.17"
        ),
        pytest.param(MAMBA2, "0.17.1", 2, 10240 * 5 * 2 + 128 * 64 * 128 * 4, id="Mamba 2 does since 0.17"),
        pytest.param(MAMBA2, "0.12.0", 0, 10240 * 3 * 2 + 128 * 64 * 128 * 2, id="Nemotron-H before 0.13"),
        pytest.param(MAMBA1, "0.32.0", 2, 8192 * 3 * 2 + 8192 * 16 * 2, id="Mamba 1 never does"),
        pytest.param(KDA, "0.26.0", 2, 12288 * 3 * 2 + 32 * 128 * 128 * 4, id="KDA did not until 0.27"),
        pytest.param(KDA, "0.27.1", 2, 12288 * 5 * 2 + 32 * 128 * 128 * 4, id="KDA does since 0.27"),
        pytest.param(CONV, "0.28.0", 3, 2048 * 2 * 2, id="short convolutions did not until 0.29"),
        pytest.param(CONV, "0.29.0", 3, 2048 * 5 * 2, id="short convolutions do since 0.29"),
        pytest.param(LIGHTNING, "0.20.0", 3, 64 * 128 * 128 * 2, id="lightning attention has no convolution"),
    ],
)
def test_what_a_state_holds_depends_on_the_release(
    state: StateProfile, release: str, drafts: int, expected: int
) -> None:
    assert state_bytes(state, 1, 2, drafts, release=release) == expected


def test_without_a_release_the_newest_rules_hold() -> None:
    assert state_bytes(CONV, 1, 2, 3) == state_bytes(CONV, 1, 2, 3, release="0.32.0")
    assert state_bytes(CONV, 1, 2, 3, release="main") == state_bytes(CONV, 1, 2, 3)


def test_a_single_group_is_replicated() -> None:
    one = replace(MAMBA2, num_groups=1)
    conv = state_bytes(one, 8, 2) - 16 * 64 * 128 * 4
    assert conv == (8192 // 8 + 2 * 128) * 3 * 2


@pytest.mark.parametrize(
    ("state", "prefix_caching", "drafts", "expected"),
    [
        pytest.param(QWEN, True, 0, 2, id="the running state and the last boundary's"),
        pytest.param(QWEN, True, 3, 5, id="and one for each guessed token"),
        pytest.param(QWEN, False, 0, 1, id="without prefix caching the running one only"),
        pytest.param(QWEN, False, 2, 3, id="without prefix caching, with guessed tokens"),
        pytest.param(MAMBA2, True, 0, 3, id="Mamba 2 may save one inside a prefill"),
        pytest.param(MAMBA2, False, 0, 1, id="which needs prefix caching"),
    ],
)
def test_states_of_a_request(state: StateProfile, prefix_caching: bool, drafts: int, expected: int) -> None:
    assert states_per_request(state, prefix_caching=prefix_caching, num_speculative_tokens=drafts) == expected


def test_older_releases_save_no_state_inside_a_prefill() -> None:
    assert states_per_request(MAMBA2, prefix_caching=True, prefill_checkpoint=False) == 2


@pytest.mark.parametrize(
    ("size", "token", "settings", "expected"),
    [
        pytest.param(16 * 100, 100, {"block_size": 16}, 16, id="a state that just fits one block"),
        pytest.param(16 * 100 + 1, 100, {"block_size": 16}, 32, id="one byte more takes two"),
        pytest.param(1, 100, {"block_size": 64}, 64, id="never below what the backend prefers"),
        pytest.param(5000, 10, {"block_size": 16, "latent": True}, 512, id="latent attention steps by 128"),
        pytest.param(
            1000, 10, {"block_size": 16, "kernel_block_size": 64}, 128, id="a kernel of larger blocks"
        ),
        pytest.param(0, 10, {"block_size": 16}, 16, id="no state at all"),
    ],
)
def test_block_sizes_of_hybrids(size: int, token: int, settings: dict[str, Any], expected: int) -> None:
    assert hybrid_block_size(size, token, **settings) == expected


@given(st.integers(1, 10**8), st.integers(1, 10**5), st.sampled_from((16, 32, 64, 128)))
def test_a_block_holds_a_state_and_is_the_least_that_does(size: int, token: int, step: int) -> None:
    block = hybrid_block_size(size, token, block_size=step)
    assert block % step == 0
    assert block * token >= size
    assert block == step or (block - step) * token < size


@given(st.sampled_from((QWEN, MAMBA2, MAMBA1, KDA, CONV, LIGHTNING)), st.sampled_from((1, 2, 4, 8)))
def test_more_ranks_never_hold_more_state(state: StateProfile, ranks: int) -> None:
    assert state_bytes(state, 2 * ranks, 2) <= state_bytes(state, ranks, 2) <= state_bytes(state, 1, 2)
