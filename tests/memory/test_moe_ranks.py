"""Experts on ranks: how they are divided or spread, what cannot be, and weights that engines logged."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.constraints import check_parallelism, tensor_parallel_sizes
from stowage.memory.layout import RankLayout
from stowage.memory.weights import rank_tensors, rank_weights
from stowage.model.profile import ModelProfile
from tests.memory.support import GIB
from tests.model.support import config_of, profile_of, published

QWEN3 = "Qwen--Qwen3-30B-A3B"
QWEN2 = "Qwen--Qwen1.5-MoE-A2.7B"
EXPERTS = "model.layers.0.mlp.experts.routed_experts"


@pytest.mark.parametrize(
    ("tp", "max_model_len", "logged_gib", "tolerance"),
    [
        pytest.param(4, 40960, 14.2474, 3e-3, id="tp4, vllm#17327"),
        pytest.param(1, 262144, 56.9342, 2e-4, id="tp1 of the 2507 release, kolyangg/mlops-assignment"),
    ],
)
def test_allocator_bytes_are_those_in_the_log(
    tp: int, max_model_len: int, logged_gib: float, tolerance: float
) -> None:
    profile = profile_of(config_of(QWEN3), max_position_embeddings=max_model_len)
    weights = rank_weights(profile, RankLayout(tp, 1, 0), "bfloat16")
    assert weights.block_bytes / GIB == pytest.approx(logged_gib, abs=tolerance)


@pytest.mark.parametrize(
    ("layout", "up", "down"),
    [
        pytest.param(RankLayout(1, 1, 0), (60, 2816, 2048), (60, 2048, 1408), id="one rank"),
        pytest.param(RankLayout(4, 1, 0), (60, 704, 2048), (60, 2048, 352), id="each expert in four"),
        pytest.param(
            RankLayout(2, 1, 0, data_parallel_size=2), (60, 704, 2048), (60, 2048, 352),
            id="each expert in four by tensor and data parallelism",
        ),
        pytest.param(
            RankLayout(8, 1, 0, expert_parallel=True), (8, 2816, 2048), (8, 2048, 1408),
            id="60 experts over eight ranks: the fullest has eight",
        ),
        pytest.param(
            RankLayout(2, 1, 0, data_parallel_size=2, expert_parallel=True), (15, 2816, 2048), (15, 2048, 1408),
            id="whole experts over tensor and data parallel ranks",
        ),
    ],
)  # fmt: skip
def test_experts_on_a_rank(layout: RankLayout, up: tuple[int, ...], down: tuple[int, ...]) -> None:
    shapes = dict(rank_tensors(published(QWEN2), layout))
    assert (shapes[f"{EXPERTS}.w13_weight"], shapes[f"{EXPERTS}.w2_weight"]) == (up, down)


def test_expert_biases_are_split_like_their_weights() -> None:
    profile, prefix = _gpt_oss(), EXPERTS
    divided = dict(rank_tensors(profile, RankLayout(4, 1, 0)))
    assert (divided[f"{prefix}.w13_bias"], divided[f"{prefix}.w2_bias"]) == ((32, 1440), (32, 2880))
    spread = dict(rank_tensors(profile, RankLayout(4, 1, 0, expert_parallel=True)))
    assert (spread[f"{prefix}.w13_bias"], spread[f"{prefix}.w2_bias"]) == ((8, 5760), (8, 2880))


def test_a_shared_expert_stays_whole_where_tokens_are_split_over_ranks() -> None:
    profile = published("meta-llama--Llama-4-Scout-17B-16E-Instruct-text")
    name = "model.layers.0.feed_forward.shared_expert.down_proj.weight"
    split = RankLayout(2, 1, 0, data_parallel_size=2, expert_parallel=True)
    assert dict(rank_tensors(profile, split))[name] == (5120, 8192)
    assert dict(rank_tensors(profile, RankLayout(2, 1, 0, expert_parallel=True)))[name] == (5120, 4096)


def test_norms_over_all_heads_are_divided_like_the_heads() -> None:
    config = config_of("MiniMaxAI--MiniMax-M2.5")
    config.pop("quantization_config")
    for tp, query, key in ((4, 1536, 256), (16, 384, 128)):
        shapes = dict(rank_tensors(profile_of(config), RankLayout(tp, 1, 0)))
        assert shapes["model.layers.0.self_attn.q_norm.weight"] == (query,)
        assert shapes["model.layers.0.self_attn.k_norm.weight"] == (key,)


def test_the_map_of_experts_is_there_only_where_they_are_spread() -> None:
    for layout, expected in (
        (RankLayout(4, 1, 0, expert_parallel=True), True),
        (RankLayout(1, 1, 0, expert_parallel=True), False),
        (RankLayout(4, 1, 0), False),
    ):
        shapes = dict(rank_tensors(published(QWEN3), layout))
        assert shapes.get(f"{EXPERTS}._expert_map") == ((128,) if expected else None)


def test_shared_experts_routers_and_attention_do_not_care_for_expert_parallelism() -> None:
    profile = published(QWEN2)
    spread = dict(rank_tensors(profile, RankLayout(4, 1, 0, expert_parallel=True)))
    divided = dict(rank_tensors(profile, RankLayout(4, 1, 0)))
    differing = {name.rpartition(".")[2] for name in spread if divided.get(name) != spread[name]}
    assert differing == {"w13_weight", "w2_weight", "_expert_map"}


@pytest.mark.parametrize(
    ("sizes", "problem", "hint"),
    [
        pytest.param(
            {"tensor_parallel_size": 16}, "expert size of 1416",
            "TP 1, 2, 4, 8 or with enable_expert_parallel at TP 16",
            id="experts cannot be divided by 16, but spread",
        ),
        pytest.param(
            {"tensor_parallel_size": 8, "data_parallel_size": 2}, "TP 8 times DP 2",
            "works with TP 1, 2, 4 or with enable_expert_parallel at TP 8.", id="data parallelism divides experts too",
        ),
        pytest.param(
            {"tensor_parallel_size": 16, "data_parallel_size": 4, "expert_parallel": True},
            "60 experts for 64 ranks", "works with TP 1, 2, 4, 8.", id="more ranks than experts",
        ),
        pytest.param({"data_parallel_size": 0}, "data 0", "", id="no data parallel rank"),
        pytest.param(
            {"data_parallel_size": 7}, "TP 1 times DP 7", "with enable_expert_parallel at TP 1.",
            id="no TP size helps, expert parallelism does",
        ),
    ],
)  # fmt: skip
def test_layouts_that_cannot_be(sizes: dict[str, Any], problem: str, hint: str) -> None:
    wanted = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, **sizes}
    profile = profile_of(config_of(QWEN2), moe_intermediate_size=1416)
    answer = check_parallelism(profile, **wanted)
    assert isinstance(answer, Refusal)
    assert problem in answer.message
    assert hint in answer.sentence


def test_expert_parallelism_needs_experts() -> None:
    answer = check_parallelism(published("Qwen--Qwen3-0.6B"), 2, 1, expert_parallel=True)
    assert isinstance(answer, Refusal)
    assert "no experts" in answer.message


def test_expert_parallelism_lifts_the_divisibility_of_experts() -> None:
    profile = profile_of(config_of(QWEN3), moe_intermediate_size=770)
    assert tensor_parallel_sizes(profile) == (1, 2)
    assert tensor_parallel_sizes(profile, expert_parallel=True) == (1, 2, 4, 8, 16)
    assert check_parallelism(profile, 8, 1, expert_parallel=True) is None


def _gpt_oss() -> ModelProfile:
    config = config_of("openai--gpt-oss-20b")
    config.pop("quantization_config")
    return profile_of(config)
