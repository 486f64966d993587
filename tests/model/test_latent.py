"""Families with latent attention: which layers are of which kind, what absent fields mean, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.weights import unsharded_parameter_bytes
from stowage.model.config_json import read_profile
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    ModelProfile,
    MoeProfile,
)
from tests.model.support import config_of, profile_of, summary_of

V2_LITE = "deepseek-ai--DeepSeek-V2-Lite"
R1 = "deepseek-ai--DeepSeek-R1"
V32 = "deepseek-ai--DeepSeek-V3.2"
KIMI = "moonshotai--Kimi-K2-Instruct"
GLM5 = "zai-org--GLM-5"
GLM52 = "zai-org--GLM-5.2"
GLM_LITE = "zai-org--GLM-4.7-Flash"
LONGCAT = "meituan-longcat--LongCat-Flash-Chat"
MINICPM = "openbmb--MiniCPM3-4B"
PANGU = "FreedomIntelligence--openPangu-Ultra-MoE-718B"


def plain(folder: str, *absent: str, **changes: Any) -> ModelProfile:
    """Read a fixture without its quantization and without the fields `absent`."""
    config = {**config_of(folder), **changes}
    return profile_of({k: v for k, v in config.items() if k not in ("quantization_config", *absent)})


def mixer(profile: ModelProfile, layer: int = 0) -> LatentAttentionProfile:
    """Give the latent attention of a layer that must have one."""
    found = profile.layers[layer].mixers[0]
    assert isinstance(found, LatentAttentionProfile)
    return found


def sparse_layers(profile: ModelProfile) -> list[int]:
    """Give the numbers of the layers that have experts."""
    return [n for n, layer in enumerate(profile.layers) if isinstance(layer.feed_forward, MoeProfile)]


def names_of(layer: LayerProfile) -> set[str]:
    """Give the engine's names of a layer's tensors, without what comes before the layer's own parts."""
    return {tensor.name.removeprefix("model.layers.{}.") for tensor in layer.tensors}


@pytest.mark.parametrize(
    ("folder", "layers", "billions"),
    [
        pytest.param(V2_LITE, 27, 15.706484224, id="DeepSeek-V2-Lite"),
        pytest.param(R1, 61, 671.026419200, id="DeepSeek-R1"),
        pytest.param(KIMI, 61, 1026.4, id="Kimi-K2, published as 1T"),
        pytest.param(GLM_LITE, 47, 29.9, id="GLM-4.7-Flash without its draft layer"),
        pytest.param(LONGCAT, 28, 560.7, id="LongCat-Flash, published as 560B"),
        pytest.param(MINICPM, 62, 4.074, id="MiniCPM3, published as 4B"),
        pytest.param(PANGU, 61, 718.0, id="openPangu-Ultra, published as 718B"),
    ],
)
def test_whole_models_have_their_known_number_of_parameters(
    folder: str, layers: int, billions: float
) -> None:
    name = "num_layers" if folder == LONGCAT else "num_hidden_layers"
    profile = plain(folder, **{name: layers})
    assert unsharded_parameter_bytes(profile) / 2e9 == pytest.approx(
        billions, rel=1e-9 if billions != round(billions, 3) else 2e-3
    )


@pytest.mark.parametrize(
    ("folder", "changes", "expected"),
    [
        pytest.param(V2_LITE, {}, list(range(1, 27)), id="all after first_k_dense_replace"),
        pytest.param(V2_LITE, {"first_k_dense_replace": 0}, list(range(27)), id="all"),
        pytest.param(V2_LITE, {"moe_layer_freq": 3}, list(range(3, 27, 3)), id="every third after it"),
        pytest.param(V2_LITE, {"n_routed_experts": None}, [], id="none without routed experts"),
        pytest.param(PANGU, {"moe_layer_freq": 3}, [3, 4], id="openPangu overlooks moe_layer_freq"),
    ],
)
def test_layers_with_experts(folder: str, changes: dict[str, Any], expected: list[int]) -> None:
    assert sparse_layers(plain(folder, **changes)) == expected


@pytest.mark.parametrize(
    ("folder", "absent", "expected"),
    [
        pytest.param(V2_LITE, "first_k_dense_replace", list(range(27)), id="V2: no dense layer"),
        pytest.param(V32, "first_k_dense_replace", [3, 4, 5], id="V3: three dense layers"),
    ],
)
def test_an_absent_number_of_dense_layers(folder: str, absent: str, expected: list[int]) -> None:
    assert sparse_layers(plain(folder, absent)) == expected


@pytest.mark.parametrize(
    ("absent", "changes", "rank"),
    [
        pytest.param((), {}, None, id="null: queries are projected directly"),
        pytest.param((), {"q_lora_rank": 768}, 768, id="stated"),
        pytest.param(("q_lora_rank",), {}, 1536, id="absent: the class default"),
    ],
)
def test_the_rank_of_queries(absent: tuple[str, ...], changes: dict[str, Any], rank: int | None) -> None:
    profile = plain(V2_LITE, *absent, **changes)
    assert mixer(profile).q_lora_rank == rank
    assert ("self_attn.q_proj.weight" in names_of(profile.layers[0])) == (rank is None)
    assert ("self_attn.fused_qkv_a_proj.weight" in names_of(profile.layers[0])) == (rank is not None)


@pytest.mark.parametrize(
    ("folder", "changes", "corrected"),
    [
        pytest.param(V32, {}, True, id="noaux_tc"),
        pytest.param(V32, {"topk_method": "greedy"}, False, id="another topk_method"),
        pytest.param(V32, {"topk_method": None}, False, id="no topk_method"),
        pytest.param(GLM_LITE, {"topk_method": None}, True, id="GLM-4.7-Flash always"),
        pytest.param(PANGU, {}, True, id="openPangu with its flag"),
        pytest.param(PANGU, {"router_enable_expert_bias": False}, False, id="openPangu without it"),
    ],
)
def test_the_score_correction_of_the_router(folder: str, changes: dict[str, Any], corrected: bool) -> None:
    last = plain(folder, **changes).layers[-1]
    assert ("mlp.gate.e_score_correction_bias" in names_of(last)) == corrected


@pytest.mark.parametrize(
    ("folder", "changes", "indexed"),
    [
        pytest.param(R1, {}, [], id="no sparse attention"),
        pytest.param(V32, {}, [0, 1, 2, 3, 4, 5], id="every layer"),
        pytest.param(GLM52, {}, [0, 1, 2, 6], id="every fourth after the offset"),
        pytest.param(GLM52, {"index_skip_topk_offset": None}, [0, 1, 5], id="the engine's own offset is 2"),
        pytest.param(GLM52, {"index_topk_pattern": "FSSFSSSF"}, [0, 3, 7], id="a pattern goes before"),
        pytest.param(GLM52, {"index_topk_pattern": ["S", "F"]}, [1, 2, 3, 4, 5, 6, 7], id="a short pattern"),
    ],
)
def test_layers_with_an_indexer(folder: str, changes: dict[str, Any], indexed: list[int]) -> None:
    profile = plain(folder, **changes)
    own = [n for n in range(profile.num_layers) if mixer(profile, n).index_head_dim is not None]
    assert own == indexed
    assert [
        n for n, layer in enumerate(profile.layers) if "self_attn.indexer.wq_b.weight" in names_of(layer)
    ] == indexed


def test_layers_without_an_indexer_read_what_another_one_picked() -> None:
    profile = plain(GLM52)
    assert (mixer(profile, 3).index_head_dim, mixer(profile, 3).index_topk) == (None, 2048)
    assert mixer(plain(R1)).index_topk is None


def test_glm_has_sparse_attention_where_its_fields_are_absent() -> None:
    profile = plain(GLM5, "index_topk", "index_n_heads", "index_head_dim")
    assert (mixer(profile).index_topk, mixer(profile).index_num_heads, mixer(profile).index_head_dim) == (
        2048,
        32,
        128,
    )


@pytest.mark.parametrize(
    ("folder", "changes", "tables"),
    [
        pytest.param(R1, {}, [(163840, 64)], id="one"),
        pytest.param(V32, {}, [(163840, 64)] * 2, id="an indexer that does not interleave has its own"),
        pytest.param(GLM52, {}, [(1048576, 64)], id="one that interleaves shares it"),
        pytest.param(
            KIMI, {}, [(131072, 64)], id="YaRN: the original length times the factor, 4096 times 32"
        ),
        pytest.param(
            PANGU,
            {"rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 4096}},
            [(131072, 64)],
            id="openPangu overlooks scaling",
        ),
    ],
)
def test_rotary_tables(folder: str, changes: dict[str, Any], tables: list[tuple[int, int]]) -> None:
    profile = plain(folder, **changes)
    assert [t.shape for t in profile.outer_tensors if t.name.startswith("rotary")] == tables


@pytest.mark.parametrize(
    ("changes", "kv_heads", "head_dim"),
    [
        pytest.param(
            {"model_type": "deepseek_other"}, 16, 192, id="a model_type that the engine does not list for MLA"
        ),
        pytest.param({"model_type": "deepseek"}, 16, 128, id="DeepSeek V1"),
        pytest.param(
            {"qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "num_key_value_heads": 4},
            4,
            128,
            id="no small heads",
        ),
    ],
)
def test_where_whole_keys_and_values_are_cached(
    changes: dict[str, Any], kv_heads: int, head_dim: int
) -> None:
    attention = plain(V2_LITE, **changes).layers[0].attention
    assert isinstance(attention, AttentionProfile)
    assert (attention.num_kv_heads, attention.head_dim, attention.value_head_dim) == (
        kv_heads,
        head_dim,
        head_dim,
    )


def test_minicpm3_caches_keys_and_values_of_the_same_size() -> None:
    attention = plain(MINICPM).layers[0].attention
    assert attention == AttentionProfile(num_heads=40, num_kv_heads=40, head_dim=96)


def test_longcat_has_two_latent_caches_a_layer_and_experts_without_weights() -> None:
    profile = plain(LONGCAT)
    layer = profile.layers[0]
    assert len(layer.mixers) == 2
    shapes = {tensor.name: tensor.shape for tensor in layer.tensors}
    assert shapes["model.layers.{}.mlp.router.classifier.weight"] == (512 + 256, 6144)
    assert shapes["model.layers.{}.mlp.experts.routed_experts.w2_weight"] == (512, 6144, 2048)


@pytest.mark.parametrize(
    ("folder", "number"),
    [
        pytest.param(R1, 1, id="DeepSeek-R1"),
        pytest.param(KIMI, 0, id="Kimi-K2 says 0"),
        pytest.param(V2_LITE, 0, id="DeepSeek-V2-Lite says nothing"),
        pytest.param(LONGCAT, 1, id="LongCat always has one"),
    ],
)
def test_draft_layers(folder: str, number: int) -> None:
    assert len(plain(folder).draft_layers) == number


def test_the_draft_layer_of_r1_has_its_published_size() -> None:
    """About 11.6 billion parameters of its own (published: 11.5); embedding and head are the model's."""
    (draft,) = plain(R1).draft_layers
    sizes = {tensor.name: tensor.shape for tensor in draft.tensors}
    assert sizes["model.layers.{}.eh_proj.weight"] == (7168, 2 * 7168)
    assert sizes["model.layers.{}.mtp_block.self_attn.o_proj.weight"] == (7168, 16384)
    elements = 0
    for tensor in draft.tensors:
        count = 1
        for size in tensor.shape:
            count *= size
        elements += count if tensor.stored else 0
    assert elements / 1e9 == pytest.approx(11.6, abs=0.05)
    assert all("embed" not in name and "head.head" not in name for name in sizes)


def test_a_draft_layer_always_has_its_own_indexer() -> None:
    profile = plain(GLM52, num_hidden_layers=4)
    assert mixer(profile, 3).index_head_dim is None
    found = profile.draft_layers[0].mixers[0]
    assert isinstance(found, LatentAttentionProfile)
    assert found.index_head_dim == 128


STORED_IN_V32 = {
    "self_attn.q_a_proj.weight": (1536, 7168),
    "self_attn.kv_a_proj_with_mqa.weight": (576, 7168),
    "self_attn.q_a_layernorm.weight": (1536,),
    "self_attn.q_b_proj.weight": (24576, 1536),
    "self_attn.kv_a_layernorm.weight": (512,),
    "self_attn.kv_b_proj.weight": (32768, 512),
    "self_attn.o_proj.weight": (7168, 16384),
    "self_attn.indexer.wq_b.weight": (8192, 1536),
    "self_attn.indexer.wk.weight": (128, 7168),
    "self_attn.indexer.weights_proj.weight": (64, 7168),
    "self_attn.indexer.k_norm.weight": (128,),
    "self_attn.indexer.k_norm.bias": (128,),
    "input_layernorm.weight": (7168,),
    "post_attention_layernorm.weight": (7168,),
    "mlp.gate_proj.weight": (18432, 7168),
    "mlp.up_proj.weight": (18432, 7168),
    "mlp.down_proj.weight": (7168, 18432),
}


def test_names_and_shapes_in_the_checkpoint() -> None:
    stored = {
        kept.name.removeprefix("model.layers.{}."): kept.shape
        for tensor in plain(V32).layers[0].tensors
        for kept in tensor.stored
    }
    assert stored == STORED_IN_V32


@pytest.mark.parametrize(
    ("folder", "changes", "reason", "words"),
    [
        pytest.param(
            V2_LITE, {"is_causal": False}, "UnsupportedArchitecture", "bidirectional", id="an encoder"
        ),
        pytest.param(
            V2_LITE, {"first_k_dense_replace": -1}, "InvalidModelConfig", "first_k_dense", id="below 0"
        ),
        pytest.param(
            GLM_LITE, {"first_k_dense_replace": None}, "InvalidModelConfig", "first_k_dense", id="no default"
        ),
        pytest.param(
            GLM52, {"index_topk_pattern": 3}, "InvalidModelConfig", "index_topk_pattern", id="a bad pattern"
        ),
        pytest.param(
            LONGCAT,
            {"zero_expert_num": -1},
            "InvalidModelConfig",
            "zero_expert_num",
            id="fewer than no experts",
        ),
        pytest.param(
            PANGU, {"kv_lora_rank": None}, "InvalidModelConfig", "kv_lora_rank", id="a missing size"
        ),
        pytest.param(
            MINICPM,
            {"num_experts": 8},
            "UnsupportedArchitecture",
            "num_experts",
            id="experts of another kind",
        ),
    ],
)
def test_what_is_refused(folder: str, changes: dict[str, Any], reason: str, words: str) -> None:
    config = {k: v for k, v in {**config_of(folder), **changes}.items() if k != "quantization_config"}
    answer = read_profile(summary_of(config))
    assert isinstance(answer, Refusal)
    assert (answer.reason.value, words in answer.message) == (reason, True)
