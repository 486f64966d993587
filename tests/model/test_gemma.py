"""The Gemma line: windows, heads, shared caches, per-layer embeddings, and what sparse files leave out."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.layout import RankLayout
from stowage.memory.weights import rank_tensors
from stowage.model.architectures import stored_tensors
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile, MoeProfile
from tests.model.support import attention_of, config_of, profile_of, published, summary_of

TINY_GEMMA: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 12,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "vocab_size": 512,
    "torch_dtype": "bfloat16",
}
GEMMA2 = {**TINY_GEMMA, "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}
GEMMA3 = {**TINY_GEMMA, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
GEMMA3N = {**TINY_GEMMA, "architectures": ["Gemma3nForCausalLM"], "model_type": "gemma3n_text"}
GEMMA4 = {**TINY_GEMMA, "architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text"}
LARGE_26B = "google--gemma-4-26B-A4B-it-text"
SMALL_E2B = "google--gemma-4-E2B-it-text"


def windows(profile: ModelProfile) -> list[int | None]:
    return [attention_of(profile, index).sliding_window for index in range(profile.num_layers)]


def tables(profile: ModelProfile) -> list[tuple[int, ...]]:
    found = (tensor for tensor in profile.outer_tensors if tensor.name.endswith("cos_sin_cache"))
    return sorted(tensor.shape for tensor in found)


def shapes_of(profile: ModelProfile, tp: int = 1) -> dict[str, tuple[int, ...]]:
    return dict(rank_tensors(profile, RankLayout(tp, 1, 0)))


@pytest.mark.parametrize(
    ("config", "changes", "expected"),
    [
        pytest.param(GEMMA2, {}, [4096, None] * 6, id="Gemma 2 alternates, with the class's window"),
        pytest.param(GEMMA3, {}, ([4096] * 5 + [None]) * 2, id="Gemma 3 has one full layer in six"),
        pytest.param(
            GEMMA3, {"sliding_window_pattern": 3}, ([4096] * 2 + [None]) * 4, id="the interval is stated"
        ),
        pytest.param(GEMMA3, {"sliding_window": None}, [None] * 12, id="null is no window"),
        pytest.param(
            GEMMA3,
            {"layer_types": ["full_attention", "sliding_attention"] * 6, "sliding_window": 32},
            [None, 32] * 6,
            id="layer types are stated",
        ),
        pytest.param(
            GEMMA3N, {}, ([512] * 4 + [None]) * 2 + [512] * 2, id="Gemma 3n has one full layer in five"
        ),
        pytest.param(GEMMA4, {}, ([512] * 5 + [None]) * 2, id="Gemma 4 has one full layer in six"),
        pytest.param(
            GEMMA4,
            {"num_hidden_layers": 8},
            [512] * 5 + [None] + [512] + [None],
            id="its last layer is always full",
        ),
    ],
)
def test_windows_by_layer(
    config: dict[str, Any], changes: dict[str, Any], expected: list[int | None]
) -> None:
    assert windows(profile_of(config, **changes)) == expected


def test_a_sparse_file_takes_what_its_class_says() -> None:
    profile = published("google--gemma-3-27b-it-text")
    assert profile.vocab_size == 262208
    assert profile.tie_word_embeddings
    assert profile.max_model_len == profile.default_max_model_len == 131072
    assert windows(profile).count(None) == 10
    assert windows(profile).count(1024) == 52


@pytest.mark.parametrize(
    ("folder", "changes", "expected"),
    [
        pytest.param(
            "google--gemma-3-27b-it-text",
            {},
            [(131072, 128), (8 * 131072, 128)],
            id="full layers stretch eightfold",
        ),
        pytest.param("google--gemma-3-1b-it", {}, [(32768, 256)] * 2, id="two bases make two tables"),
        pytest.param(
            "google--gemma-3-1b-it",
            {"rope_local_base_freq": 1000000},
            [(32768, 256)],
            id="the same base is one table",
        ),
        pytest.param(
            "google--gemma-3-1b-it",
            {
                "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}},
                "rope_theta": None,
            },
            [(32768, 256), (65536, 256)],
            id="parameters by layer type",
        ),
        pytest.param(
            LARGE_26B, {}, [(262144, 256), (262144, 512)], id="a proportional table covers whole heads"
        ),
        pytest.param("google--gemma-2-9b-it", {}, [(8192, 256)], id="Gemma 2 has one table"),
    ],
)
def test_rotary_tables(folder: str, changes: dict[str, Any], expected: list[tuple[int, int]]) -> None:
    assert tables(profile_of(config_of(folder), **changes)) == expected


def test_gemma_4_heads_differ_by_layer_type() -> None:
    profile = published(LARGE_26B)
    sliding, full = attention_of(profile, 0), attention_of(profile, 5)
    assert (sliding.head_dim, sliding.num_kv_heads, sliding.sliding_window) == (256, 8, 1024)
    assert (full.head_dim, full.num_kv_heads, full.sliding_window) == (512, 2, None)


def test_other_key_value_heads_need_keys_that_are_values() -> None:
    plain = profile_of(config_of(LARGE_26B), attention_k_eq_v=False)
    assert attention_of(plain, 5).num_kv_heads == 8
    assert "model.layers.5.self_attn.v_proj.weight" in stored_tensors(plain)


def test_keys_that_are_values_are_stored_once_and_loaded_twice() -> None:
    profile = published(LARGE_26B)
    stored = stored_tensors(profile)
    assert "model.layers.5.self_attn.v_proj.weight" not in stored
    assert stored["model.layers.5.self_attn.k_proj.weight"] == (2 * 512, 2816)
    assert shapes_of(profile)["model.layers.5.self_attn.qkv_proj.weight"] == ((16 + 2 + 2) * 512, 2816)
    assert "model.layers.4.self_attn.v_proj.weight" in stored


def test_fields_of_single_layers_override_those_of_their_type() -> None:
    own = {"per_layer_config": {"2": {"head_dim": 128, "num_key_value_heads": 1}}}
    profile = profile_of(GEMMA4, **own)
    assert attention_of(profile, 2).head_dim == 128
    assert attention_of(profile, 2).num_kv_heads == 1
    assert attention_of(profile, 5).head_dim == 64


def test_last_layers_share_caches_and_only_project_queries() -> None:
    profile = published(SMALL_E2B)
    shared = [attention_of(profile, index).shares_cache for index in range(profile.num_layers)]
    assert shared == [False] * 15 + [True] * 20
    shapes = shapes_of(profile, tp=2)
    assert shapes["model.layers.34.self_attn.q_proj.weight"] == (8 * 512 // 2, 1536)
    assert not {name for name in shapes if name.startswith("model.layers.34") and "k_norm" in name}
    assert shapes["model.layers.14.mlp.gate_up_proj.weight"] == (2 * 6144 // 2, 1536)
    assert shapes["model.layers.15.mlp.gate_up_proj.weight"] == (2 * 2 * 6144 // 2, 1536)


def test_per_layer_embeddings_are_divided_like_the_vocabulary() -> None:
    shapes = shapes_of(published(SMALL_E2B), tp=4)
    assert shapes["model.embed_tokens_per_layer.weight"] == (262144 // 4, 35 * 256)
    assert shapes["model.per_layer_model_projection.weight"] == (35 * 256 // 4, 1536)
    assert shapes["model.layers.0.per_layer_input_gate.weight"] == (256, 1536)


@pytest.mark.parametrize("size", [pytest.param(0, id="zero"), pytest.param(None, id="null")])
def test_models_without_per_layer_embeddings_have_none_of_their_tensors(size: int | None) -> None:
    names = shapes_of(profile_of(config_of(SMALL_E2B), hidden_size_per_layer_input=size))
    assert not [name for name in names if "per_layer" in name]


def test_experts_stand_beside_an_mlp_that_every_token_uses() -> None:
    profile = published(LARGE_26B)
    moe = profile.layers[0].feed_forward
    assert moe == MoeProfile(128, 8, 704, shared_intermediate_size=2112)
    stored = stored_tensors(profile)
    assert stored["model.layers.0.experts.gate_up_proj"] == (128, 2 * 704, 2816)
    assert stored["model.layers.0.router.per_expert_scale"] == (128,)
    assert stored["model.layers.0.mlp.down_proj.weight"] == (2816, 2112)


def test_gemma_3n_updates_copies_and_shares_caches() -> None:
    profile = profile_of(GEMMA3N, num_kv_shared_layers=4, intermediate_size=[512] * 10 + [1024] * 2)
    assert not profile.supports_pipeline
    shapes = shapes_of(profile)
    assert shapes["model.layers.0.altup.prediction_coefs.weight"] == (16, 4)
    assert shapes["model.self_decoder.altup_projections.2.weight"] == (256, 256)
    assert shapes["model.layers.11.mlp.gate_up_proj.weight"] == (2048, 256)
    assert "model.layers.8.self_attn.q_proj.weight" in shapes
    assert "model.layers.7.self_attn.qkv_proj.weight" in shapes
    stored = stored_tensors(profile)
    assert stored["model.embed_tokens_per_layer.weight"] == (262144, 12 * 256)


@pytest.mark.parametrize(
    ("config", "changes", "word"),
    [
        pytest.param(
            GEMMA3, {"use_bidirectional_attention": True}, "bidirectional", id="an embedding Gemma 3"
        ),
        pytest.param(
            GEMMA4, {"use_bidirectional_attention": "all"}, "bidirectional", id="an embedding Gemma 4"
        ),
        pytest.param(
            GEMMA4, {"num_experts": 8, "top_k_experts": 2}, "moe_intermediate_size", id="experts of no size"
        ),
        pytest.param(
            GEMMA3, {"layer_types": ["full_attention"]}, "layer_types", id="types for too few layers"
        ),
        pytest.param(
            GEMMA3, {"layer_types": ["chunked_attention"] * 12}, "chunked", id="a type it does not have"
        ),
        pytest.param(
            GEMMA3N, {"intermediate_size": [512]}, "intermediate_size", id="widths for too few layers"
        ),
    ],
)
def test_what_a_gemma_cannot_be_is_refused(
    config: dict[str, Any], changes: dict[str, Any], word: str
) -> None:
    answer = read_profile(summary_of({**config, **changes}))
    assert isinstance(answer, Refusal)
    assert word in answer.message
