"""Weights of one rank: against vLLM's own construction, against logged starts, and against known totals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stowage.memory.layout import RankLayout
from stowage.memory.quantized.kernels import Kernels
from stowage.memory.weights import rank_tensors, rank_weights, unsharded_parameter_bytes
from tests.memory.support import GIB
from tests.model.support import TINY, config_of, profile_of, published

GOLDEN = [
    (path.stem, row)
    for path in sorted((Path(__file__).parent / "oracle" / "golden").glob("*.json"))
    for row in json.loads(path.read_text(encoding="utf-8"))
]


def _golden_id(model: str, row: dict[str, Any]) -> str:
    sizes = f"tp{row['tensor_parallel_size']} pp{row['pipeline_parallel_size']}"
    flags = [flag for flag in ("expert_parallel", "without_quantization") if row[flag]]
    return " ".join((model, sizes, f"stage {row['stage']}", *flags))


@pytest.mark.parametrize(
    ("model", "row"), [pytest.param(model, row, id=_golden_id(model, row)) for model, row in GOLDEN]
)
def test_a_rank_holds_what_vllm_itself_creates(model: str, row: dict[str, Any]) -> None:
    config = config_of(model)
    if row["without_quantization"]:
        config.pop("quantization_config")
    profile = profile_of(config)
    layout = RankLayout(
        row["tensor_parallel_size"],
        row["pipeline_parallel_size"],
        row["stage"],
        expert_parallel=row["expert_parallel"],
    )
    assert profile.dtype == row["dtype"]
    # MXFP4 experts are padded for their kernel before they are created; the oracle pretends to be Marlin's.
    kernels = Kernels(80, (0, 32, 0)) if profile.quantization == "mxfp4" else None
    assert rank_weights(profile, layout, row["dtype"], None, kernels).tensor_bytes == row["bytes"]
    assert len(list(rank_tensors(profile, layout, kernels))) == row["tensors"]
    assert profile.default_max_model_len == row["max_model_len"]


@pytest.mark.parametrize(
    ("folder", "tp", "logged_gib", "tolerance"),
    [
        pytest.param("meta-llama--Llama-3.1-8B-Instruct", 1, 14.9888, 1e-4, id="Llama-3.1-8B, vllm#10517"),
        pytest.param("meta-llama--Meta-Llama-3-8B", 1, 14.96, 5e-3, id="Llama-3-8B, vllm#10511"),
        pytest.param("meta-llama--Meta-Llama-3-8B", 2, 7.48, 5e-3, id="Llama-3-8B tp2, vllm#10511"),
        pytest.param(
            "meta-llama--Llama-3.1-8B-Instruct", 8, 1.9028, 2e-4, id="8B tp8, mlcommons/inference#2267"
        ),
        pytest.param("Qwen--Qwen2.5-32B-Instruct", 2, 30.7098, 1e-4, id="Qwen2.5-32B tp2, vllm#15815"),
        pytest.param(
            "deepseek-ai--DeepSeek-R1-Distill-Qwen-14B", 2, 13.9476, 5e-3, id="R1-Distill-14B tp2, vllm#13061"
        ),
    ],
)
def test_allocator_bytes_are_those_in_the_log(
    folder: str, tp: int, logged_gib: float, tolerance: float
) -> None:
    weights = rank_weights(published(folder), RankLayout(tp, 1, 0), "bfloat16")
    assert weights.block_bytes / GIB == pytest.approx(logged_gib, abs=tolerance)


@pytest.mark.parametrize(
    ("folder", "gib"),
    [
        pytest.param("meta-llama--Llama-3.1-8B-Instruct", 14.96, id="Llama-3.1-8B"),
        pytest.param("meta-llama--Meta-Llama-3.1-70B", 131.42, id="Llama-3.1-70B"),
        pytest.param("meta-llama--Llama-2-7b-chat-hf", 12.55, id="Llama-2-7B"),
        pytest.param("mistralai--Mistral-7B-Instruct-v0.3", 13.50, id="Mistral-7B-v0.3"),
        pytest.param("Qwen--Qwen3-32B", 61.02, id="Qwen3-32B"),
        pytest.param("microsoft--phi-4", 27.31, id="phi-4"),
    ],
)
def test_whole_models_have_their_known_size(folder: str, gib: float) -> None:
    assert unsharded_parameter_bytes(published(folder)) / GIB == pytest.approx(gib, abs=5e-3)


def test_kv_heads_are_replicated_where_there_are_fewer_than_ranks() -> None:
    profile = profile_of(TINY, num_key_value_heads=2)
    shapes = dict(rank_tensors(profile, RankLayout(8, 1, 0)))
    assert shapes["model.layers.0.self_attn.qkv_proj.weight"] == ((1 + 2 * 1) * 32, 256)


def test_the_vocabulary_is_padded_before_it_is_split() -> None:
    shapes = dict(rank_tensors(profile_of(TINY), RankLayout(2, 1, 0)))
    assert shapes["model.embed_tokens.weight"] == (320 // 2, 256)


def test_biases_are_split_like_their_columns_and_whole_behind_rows() -> None:
    profile = profile_of(TINY, attention_bias=True, mlp_bias=True)
    shapes = dict(rank_tensors(profile, RankLayout(4, 1, 0)))
    assert shapes["model.layers.3.self_attn.qkv_proj.bias"] == ((2 + 2) * 32,)
    assert shapes["model.layers.3.self_attn.o_proj.bias"] == (256,)
    assert shapes["model.layers.3.mlp.gate_up_proj.bias"] == (256,)
    assert shapes["model.layers.3.mlp.down_proj.bias"] == (256,)


@pytest.mark.parametrize(
    ("tied", "first", "last"),
    [
        pytest.param(
            False, {"model.embed_tokens.weight"}, {"lm_head.weight", "model.norm.weight"}, id="own head"
        ),
        pytest.param(
            True,
            {"model.embed_tokens.weight"},
            {"model.embed_tokens.weight", "model.norm.weight"},
            id="a tied embedding is held at both ends",
        ),
    ],
)
def test_stages_hold_their_ends(tied: bool, first: set[str], last: set[str]) -> None:
    profile = profile_of(TINY, tie_word_embeddings=tied)
    outer = [
        {name for name, _ in rank_tensors(profile, RankLayout(1, 2, stage)) if "layers" not in name}
        for stage in (0, 1)
    ]
    assert outer[0] == first | {"rotary_emb.cos_sin_cache"}
    assert outer[1] == last | {"rotary_emb.cos_sin_cache"}


def test_a_32_bit_run_takes_twice_the_bytes() -> None:
    layout, profile = RankLayout(1, 1, 0), published("Qwen--Qwen3-0.6B")
    scales = 4 * 4 * profile.num_layers
    half = rank_weights(profile, layout, "bfloat16").tensor_bytes - scales
    assert rank_weights(profile, layout, "float32").tensor_bytes - scales == 2 * half
