"""The numbers of docs/claims.md, computed again from the memory model."""

from __future__ import annotations

from pathlib import Path

import pytest

from stowage.memory.layout import RankLayout
from stowage.memory.weights import rank_weights, unsharded_parameter_bytes
from stowage.model.profile import ModelProfile
from tests.memory.support import GIB, H100, ledger_of
from tests.model.support import attention_of, published

CLAIMS = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
SEVEN = "meta-llama--Llama-2-7b-chat-hf"
EIGHT = "meta-llama--Llama-3.1-8B-Instruct"
SEVENTY = "meta-llama--Meta-Llama-3.1-70B"


def token_bytes(folder: str) -> int:
    return ledger_of(published(folder), H100, max_model_len=2048).kv_bytes_per_token


def flops(profile: ModelProfile, tokens: int) -> tuple[float, float]:
    """Give the arithmetic of a prompt outside attention and inside it, causal."""
    attention = attention_of(profile)
    dense = unsharded_parameter_bytes(profile) * tokens
    return dense, 2 * attention.num_heads * attention.head_dim * tokens**2 * profile.num_layers


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        pytest.param(SEVEN, "Llama-2-7B in bf16: {gb:.2f} GB ({gib:.2f} GiB)", id="weights of a 7B"),
        pytest.param(EIGHT, 'An "8B" takes {gb:.2f} GB ({gib:.2f} GiB)', id="weights of an 8B"),
        pytest.param(SEVENTY, "Llama-3.1-70B in bf16: {gb:.2f} GB ({gib:.2f} GiB)", id="weights of a 70B"),
    ],
)
def test_weights(folder: str, words: str) -> None:
    weight_bytes = unsharded_parameter_bytes(published(folder))
    assert words.format(gb=weight_bytes / 1e9, gib=weight_bytes / GIB) in CLAIMS


def test_kv_cache_of_one_request() -> None:
    seven, eight, seventy = map(token_bytes, (SEVEN, EIGHT, SEVENTY))
    assert f"{seven:,} B a token, {seven * 4096 / GIB:.2f} GiB at 4,096 tokens" in CLAIMS
    assert f"8 KV heads: {eight:,} B, {eight * 4096 / GIB:.2f} GiB" in CLAIMS
    one = seventy * 32768
    assert f"{seventy:,} B a token, {one / GIB:.2f} GiB for one request of 32,768" in CLAIMS
    assert f"150 GB need {-(-150 * 10**9 // one)} such requests at once" in CLAIMS


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        pytest.param(
            SEVENTY, "from {tokens:,} tokens on, which is {requests:.1f} requests of 8,192", id="70B"
        ),
        pytest.param(SEVEN, "from {tokens:,} tokens, {requests:.1f} requests", id="7B"),
    ],
)
def test_from_where_kv_outweighs_weights(folder: str, words: str) -> None:
    tokens = -(-unsharded_parameter_bytes(published(folder)) // token_bytes(folder))
    assert words.format(tokens=tokens, requests=tokens / 8192) in CLAIMS


@pytest.mark.parametrize(
    ("folder", "plain", "words"),
    [
        pytest.param(
            "RedHatAI--Llama-3.3-70B-Instruct-FP8-dynamic", SEVENTY,
            "FP8-dynamic: {gib:.2f} GiB, {share:.1%} of bf16", id="fp8",
        ),
        pytest.param(
            "Qwen--Qwen2.5-Coder-32B-Instruct-AWQ", "Qwen--Qwen2.5-32B-Instruct",
            "AWQ (4 bit, groups of 128): {gib:.2f} GiB, {share:.1%} of bf16", id="awq",
        ),
    ],
)  # fmt: skip
def test_quantised_weights(folder: str, plain: str, words: str) -> None:
    whole = RankLayout(1, 1, 0)
    small = rank_weights(published(folder), whole, "bfloat16").tensor_bytes
    large = rank_weights(published(plain), whole, "bfloat16").tensor_bytes
    expected = words.format(gib=small / GIB, share=small / large).replace("%", " %")
    assert expected in CLAIMS


def test_twice_the_context() -> None:
    profile = published(EIGHT)
    heads, each = attention_of(profile).num_heads, token_bytes(EIGHT)
    for tokens in (4096, 8192, 131072):
        assert f"{each * tokens / GIB:.2f} GiB" in CLAIMS
        assert f"{heads * tokens**2 * 2 / GIB:,.2f} GiB" in CLAIMS
        dense, attention = flops(profile, tokens)
        assert f"{attention / (dense + attention):.1%}".replace("%", " %") in CLAIMS
    assert f"{sum(flops(profile, 8192)) / sum(flops(profile, 4096)):.2f} times the\narithmetic" in CLAIMS
    assert f"{128 * 128 * 4 // 1024} KiB" in CLAIMS


def test_kv_grows_linearly() -> None:
    assert f"{32768 / 3072:.1f}× for one request" in CLAIMS
    assert f"{100 / (32768 / 3072):.1f}× more requests" in CLAIMS
