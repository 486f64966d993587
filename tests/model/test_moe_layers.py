"""Mixture-of-experts families: which layers are sparse, which have a window, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.model.config_json import read_profile
from stowage.model.profile import MlpProfile, ModelProfile, MoeProfile
from tests.model.support import attention_of, config_of, profile_of, published, summary_of

QWEN3 = "Qwen--Qwen3-30B-A3B"
QWEN2 = "Qwen--Qwen1.5-MoE-A2.7B"
GLM = "zai-org--GLM-4.5-Air"
ERNIE = "baidu--ERNIE-4.5-21B-A3B-PT"
LLAMA4 = "meta-llama--Llama-4-Maverick-17B-128E-Instruct-text"
LAGUNA = "poolside--Laguna-S-2.1"
GPT_OSS = "openai--gpt-oss-20b"
GRANITE = "ibm-granite--granite-3.1-3b-a800m-instruct"
LING = "inclusionAI--Ling-mini-2.0"
MINIMAX = "MiniMaxAI--MiniMax-M2.5"
MIXTRAL = "mistralai--Mixtral-8x7B-v0.1"
EXAONE = "LGAI-EXAONE--K-EXAONE-236B-A23B"
STEP = "stepfun-ai--Step-3.5-Flash"
STEP3 = "stepfun-ai--step3-text"
MIMO = "XiaomiMiMo--MiMo-V2-Flash"
TRINITY = "arcee-ai--Trinity-Mini"
HUNYUAN = "tencent--Hy3-preview"


def plain(folder: str, **changes: Any) -> ModelProfile:
    """Read a fixture without its quantization; `changes` replace fields, None removes one."""
    config = {**config_of(folder), **changes}
    return profile_of({name: value for name, value in config.items() if name != "quantization_config"})


def sparse_layers(profile: ModelProfile) -> list[int]:
    """Give the numbers of the layers that have experts."""
    return [n for n, layer in enumerate(profile.layers) if isinstance(layer.feed_forward, MoeProfile)]


@pytest.mark.parametrize(
    ("folder", "changes", "expected"),
    [
        pytest.param(QWEN3, {}, list(range(48)), id="Qwen3: all of them"),
        pytest.param(QWEN3, {"decoder_sparse_step": 3}, list(range(2, 48, 3)), id="Qwen3: every third"),
        pytest.param(
            QWEN2, {"mlp_only_layers": [0, 5]}, [n for n in range(24) if n not in (0, 5)],
            id="Qwen2: all but the listed ones",
        ),
        pytest.param(
            QWEN2, {"mlp_only_layers": [1], "decoder_sparse_step": 2}, list(range(3, 24, 2)),
            id="Qwen2: every second, but not the listed one",
        ),
        pytest.param(GLM, {}, list(range(1, 46)), id="GLM: after the first"),
        pytest.param(GLM, {"first_k_dense_replace": 0}, list(range(46)), id="GLM: no dense layer"),
        pytest.param(ERNIE, {}, list(range(1, 28)), id="ERNIE: from the second on"),
        pytest.param(
            ERNIE, {"moe_layer_start_index": 3, "moe_layer_end_index": 9, "moe_layer_interval": 2}, [3, 5, 7, 9],
            id="ERNIE: every second of a range",
        ),
        pytest.param(ERNIE, {"moe_layer_end_index": -1}, list(range(1, 28)), id="ERNIE: -1 is the last layer"),
        pytest.param(LLAMA4, {}, list(range(1, 48, 2)), id="Llama 4 Maverick: every second"),
        pytest.param(LLAMA4, {"interleave_moe_layer_step": 1}, list(range(48)), id="Llama 4: step 1"),
        pytest.param(LLAMA4, {"interleave_moe_layer_step": 0}, [], id="Llama 4: step 0 means none"),
        pytest.param(LAGUNA, {}, list(range(1, 48)), id="Laguna: as listed"),
        pytest.param(LAGUNA, {"mlp_layer_types": None}, list(range(1, 48)), id="Laguna: one dense by default"),
        pytest.param(LING, {"first_k_dense_replace": 4}, list(range(4, 20)), id="Ling: after four"),
        pytest.param(EXAONE, {"mlp_layer_types": ["sparse", "dense"] * 24}, list(range(0, 48, 2)), id="EXAONE: listed"),
        pytest.param(
            EXAONE, {"mlp_layer_types": None, "first_k_dense_replace": 3}, list(range(3, 48)), id="EXAONE: not listed"
        ),
        pytest.param(STEP, {}, list(range(3, 45)), id="Step 3.5: as the text lists"),
        pytest.param(STEP, {"moe_layers_enum": None}, list(range(1, 45)), id="Step 3.5: all but the first"),
        pytest.param(STEP3, {"moe_layers_enum": None}, list(range(4, 60)), id="Step 3: a range of its own"),
        pytest.param(MIMO, {}, list(range(1, 48)), id="MiMo: as moe_layer_freq lists"),
        pytest.param(MIMO, {"moe_layer_freq": 1}, [], id="MiMo: a number is no list"),
        pytest.param(TRINITY, {}, list(range(2, 32)), id="Trinity: after num_dense_layers"),
        pytest.param(HUNYUAN, {}, list(range(1, 80)), id="Hunyuan: after the first"),
    ],
)  # fmt: skip
def test_sparse_layers(folder: str, changes: dict[str, Any], expected: list[int]) -> None:
    profile = plain(folder, **changes)
    assert sparse_layers(profile) == expected
    dense = [layer for layer in profile.layers if isinstance(layer.feed_forward, MlpProfile)]
    assert len(dense) + len(expected) == profile.num_layers


@pytest.mark.parametrize(
    ("folder", "changes", "windows"),
    [
        pytest.param(GPT_OSS, {}, [128, None] * 12, id="gpt-oss: every second layer, the first included"),
        pytest.param(LAGUNA, {}, [None, 512, 512, 512] * 12, id="Laguna: three of four"),
        pytest.param(LAGUNA, {"layer_types": None}, [None] * 48, id="Laguna: none without layer_types"),
        pytest.param(QWEN3, {"sliding_window": 4096}, [None] * 48, id="Qwen3: not asked for"),
        pytest.param(
            QWEN3, {"sliding_window": 4096, "use_sliding_window": True}, [4096] * 48, id="Qwen3: asked for"
        ),
        pytest.param(
            QWEN2, {"sliding_window": 4096, "use_sliding_window": True}, [None] * 24, id="Qwen2: overlooked"
        ),
        pytest.param(MIXTRAL, {"sliding_window": 4096}, [4096] * 32, id="Mixtral: on all layers"),
        pytest.param(
            GRANITE, {"layer_types": ["sliding_attention", "full_attention"] * 16, "sliding_window": 64},
            [64, None] * 16, id="Granite: as listed",
        ),
        pytest.param(EXAONE, {}, [128, 128, 128, None] * 12, id="EXAONE: one size for the listed layers"),
        pytest.param(
            EXAONE, {"sliding_windows": [32, 64, 128, 0] * 12}, [32, 64, 128, None] * 12, id="EXAONE: sizes by layer"
        ),
        pytest.param(STEP, {}, ([None, 512, 512, 512] * 12)[:45], id="Step 3.5: three of four"),
        pytest.param(STEP, {"sliding_window": None}, [None] * 45, id="Step 3.5: no size, no window"),
        pytest.param(TRINITY, {}, [2048, 2048, 2048, None] * 8, id="Trinity: all but every fourth"),
        pytest.param(
            TRINITY, {"layer_types": ["full_attention"] * 31 + ["sliding_attention"]}, [None] * 31 + [2048],
            id="Trinity: as listed",
        ),
    ],
)  # fmt: skip
def test_windows(folder: str, changes: dict[str, Any], windows: list[int | None]) -> None:
    profile = plain(folder, **changes)
    found = [attention_of(profile, n).sliding_window for n in range(profile.num_layers)]
    assert found == windows


@pytest.mark.parametrize(
    ("changes", "chunks"),
    [
        pytest.param({}, [8192, 8192, 8192, None] * 12, id="three of four layers"),
        pytest.param({"no_rope_layers": []}, [8192, 8192, 8192, None] * 12, id="an empty list is no list"),
        pytest.param({"no_rope_layer_interval": 2}, [8192, None] * 24, id="every second layer"),
        pytest.param({"no_rope_layers": [1] * 47 + [0]}, [8192] * 47 + [None], id="as listed"),
        pytest.param({"attention_chunk_size": None}, [None] * 48, id="no chunks at all"),
    ],
)
def test_llama4_attends_to_chunks_where_it_has_rotary_embedding(
    changes: dict[str, Any], chunks: list[int | None]
) -> None:
    profile = plain(LLAMA4, **changes)
    assert [attention_of(profile, n).chunk for n in range(48)] == chunks


def test_laguna_has_as_many_heads_as_its_layers_say() -> None:
    profile = published(LAGUNA)
    assert [attention_of(profile, n).num_heads for n in range(4)] == [48, 72, 72, 72]
    assert {
        attention_of(plain(LAGUNA, num_attention_heads_per_layer=None), n).num_heads for n in range(48)
    } == {72}


def test_heads_of_window_layers_are_their_own() -> None:
    step, mimo = published(STEP), plain(MIMO)
    assert [attention_of(step, n).num_heads for n in range(2)] == [64, 96]
    shapes = [
        (a.num_kv_heads, a.head_dim, a.value_head_dim, a.sliding_window)
        for a in (attention_of(mimo, n) for n in range(2))
    ]
    assert shapes == [(4, 192, 128, None), (8, 192, 128, 128)]


def test_each_rotary_embedding_has_its_own_table() -> None:
    tables = {
        STEP: [(262144, 64), (262144, 128)],
        MIMO: [(262144, 64), (262144, 64)],
        LAGUNA: [(262144, 64), (262144, 128)],
        TRINITY: [(131072, 128)],
    }
    for folder, expected in tables.items():
        found = [tensor.shape for tensor in plain(folder).outer_tensors if "cos_sin_cache" in tensor.name]
        assert sorted(found) == expected
    unwindowed = plain(TRINITY, layer_types=["full_attention"] * 32)
    assert not [tensor for tensor in unwindowed.outer_tensors if "cos_sin_cache" in tensor.name]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"num_experts": [64] * 31 + [32]}, "num_experts", id="layers with fewer experts"),
        pytest.param({"use_cla": True}, "use_cla", id="attention shared by layers"),
    ],
)
def test_hunyuan_features_that_are_not_sized(changes: dict[str, Any], words: str) -> None:
    answer = read_profile(summary_of({**config_of("tencent--Hunyuan-A13B-Instruct"), **changes}))
    assert isinstance(answer, Refusal)
    assert answer.reason.value == "UnsupportedArchitecture"
    assert words in answer.sentence


def test_hunyuan_keeps_frequencies_and_no_rotary_table() -> None:
    profile = published("tencent--Hunyuan-A13B-Instruct")
    found = {tensor.name: tensor.shape for tensor in profile.outer_tensors if "rotary" in tensor.name}
    assert found == {"model.rotary_emb.inv_freq": (64,), "model.rotary_emb.original_inv_freq": (64,)}
    assert profile.max_model_len == 32768


def test_layers_of_one_kind_are_one_object() -> None:
    for folder, kinds in ((QWEN3, 1), (GLM, 2), (GPT_OSS, 2), (LLAMA4, 3), (LAGUNA, 3)):
        assert len({id(layer) for layer in plain(folder).layers}) == kinds


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        pytest.param(QWEN3, MoeProfile(128, 8, 768), id="Qwen3-30B-A3B"),
        pytest.param(QWEN2, MoeProfile(60, 4, 1408, 5632), id="Qwen1.5-MoE-A2.7B"),
        pytest.param(MIXTRAL, MoeProfile(8, 2, 14336), id="Mixtral-8x7B"),
        pytest.param(GLM, MoeProfile(128, 8, 1408, 1408), id="GLM-4.5-Air"),
        pytest.param(MINIMAX, MoeProfile(256, 8, 1536), id="MiniMax-M2.5"),
        pytest.param(GPT_OSS, MoeProfile(32, 4, 2880), id="gpt-oss-20b"),
        pytest.param(LLAMA4, MoeProfile(128, 1, 8192, 8192), id="Llama-4-Maverick"),
        pytest.param(ERNIE, MoeProfile(64, 6, 1536, 3072), id="ERNIE-4.5-21B-A3B"),
        pytest.param(LAGUNA, MoeProfile(256, 10, 1024, 1024), id="Laguna-S-2.1"),
        pytest.param(LING, MoeProfile(256, 8, 512, 512), id="Ling-mini-2.0"),
        pytest.param(STEP, MoeProfile(288, 8, 1280, 1280), id="Step-3.5-Flash"),
        pytest.param(MIMO, MoeProfile(256, 8, 2048), id="MiMo-V2-Flash"),
        pytest.param(TRINITY, MoeProfile(128, 8, 1024, 1024), id="Trinity-Mini"),
        pytest.param(HUNYUAN, MoeProfile(192, 8, 1536, 1536), id="Hy3"),
        pytest.param("databricks--dbrx-base", MoeProfile(16, 4, 10752), id="DBRX"),
        pytest.param("microsoft--Phi-3.5-MoE-instruct", MoeProfile(16, 2, 6400), id="Phi-3.5-MoE"),
    ],
)
def test_experts_are_read_from_the_familys_own_fields(folder: str, expected: MoeProfile) -> None:
    assert plain(folder).layers[-1].feed_forward == expected


def test_draft_layers_stand_apart_from_the_decoder() -> None:
    profile = published(GLM)
    assert (profile.num_layers, len(profile.draft_layers)) == (46, 1)
    draft = {tensor.name for tensor in profile.draft_layers[0].tensors}
    assert {
        f"model.layers.{{}}.{name}.weight" for name in ("enorm", "hnorm", "eh_proj", "shared_head.norm")
    } < draft
    assert not plain(GLM, num_nextn_predict_layers=0).draft_layers
    assert len(plain(GLM, num_nextn_predict_layers=None).draft_layers) == 1
    assert len(published(HUNYUAN).draft_layers) == 1
    assert not plain(HUNYUAN, num_nextn_predict_layers=None).draft_layers


@pytest.mark.parametrize(
    ("folder", "changes", "rotary_dim"),
    [
        pytest.param(GLM, {}, 64, id="GLM says half"),
        pytest.param(GLM, {"partial_rotary_factor": None}, 64, id="GLM means half where it says nothing"),
        pytest.param(MINIMAX, {}, 64, id="MiniMax by rotary_dim"),
        pytest.param(LING, {"partial_rotary_factor": None, "rotary_dim": 32}, 32, id="Ling by rotary_dim"),
        pytest.param(QWEN3, {}, 128, id="Qwen3 the whole head"),
    ],
)
def test_rotary_part_of_a_head(folder: str, changes: dict[str, Any], rotary_dim: int) -> None:
    assert plain(folder, **changes).rope[0].rotary_dim == rotary_dim


def test_gpt_oss_keeps_its_rotary_table_in_32_bits() -> None:
    for changes in ({}, {"rope_scaling": None}):
        (table,) = plain(GPT_OSS, **changes).rope
        assert (table.rows, table.rotary_dim, table.element_bytes) == (131072, 64, 4)


@pytest.mark.parametrize(
    ("folder", "changes", "words"),
    [
        pytest.param(
            QWEN3, {"moe_intermediate_size": 0}, "moe_intermediate_size: 0", id="experts of no size"
        ),
        pytest.param(QWEN3, {"num_experts": None}, "no num_experts", id="an unknown number of experts"),
        pytest.param(QWEN3, {"mlp_only_layers": ["0"]}, "mlp_only_layers", id="layers that are no numbers"),
        pytest.param(
            GLM, {"first_k_dense_replace": -1}, "first_k_dense_replace", id="fewer than no dense layers"
        ),
        pytest.param(LLAMA4, {"no_rope_layers": [1, 0]}, "no_rope_layers", id="a list that is too short"),
        pytest.param(
            LLAMA4, {"interleave_moe_layer_step": 1.5}, "interleave_moe_layer_step", id="half a step"
        ),
        pytest.param(
            LAGUNA,
            {"num_attention_heads_per_layer": [0] * 48},
            "num_attention_heads_per_layer",
            id="no heads",
        ),
        pytest.param(
            ERNIE, {"moe_layer_end_index": "last"}, "moe_layer_end_index", id="an index that is a word"
        ),
        pytest.param(
            GRANITE, {"layer_rope_theta": ["x"] * 32}, "layer_rope_theta", id="a base that is a word"
        ),
        pytest.param(
            MIXTRAL, {"num_key_value_heads": 5}, "num_key_value_heads: 5", id="kv heads do not divide"
        ),
    ],
)
def test_bad_fields_are_refused_with_a_sentence(folder: str, changes: Mapping[str, Any], words: str) -> None:
    answer = read_profile(summary_of({**config_of(folder), **changes}))
    assert isinstance(answer, Refusal)
    assert answer.reason.value == "InvalidModelConfig"
    assert words in answer.sentence
