"""Dense decoders beyond Llama: known sizes, names in the checkpoint, windows, biases, and what ranks divide."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.layout import RankLayout
from stowage.memory.weights import rank_tensors
from stowage.model.architectures import stored_tensors
from stowage.model.config_json import read_profile
from stowage.model.families.removed import READERS, last_engines
from stowage.model.profile import LayerProfile, MlpProfile, ModelProfile
from tests.model.support import TINY, attention_of, config_of, profile_of, published, summary_of

QWEN_72B: dict[str, Any] = {
    "architectures": ["QWenLMHeadModel"],
    "hidden_size": 8192,
    "intermediate_size": 49152,
    "max_position_embeddings": 32768,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "seq_length": 8192,
    "vocab_size": 152064,
}
BAICHUAN2: dict[str, Any] = {
    "architectures": ["BaichuanForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "model_max_length": 4096,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "vocab_size": 125696,
}
BAICHUAN2_13B = {
    **{name: value for name, value in BAICHUAN2.items() if name != "max_position_embeddings"},
    "hidden_size": 5120,
    "intermediate_size": 13696,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
}
MPT_7B: dict[str, Any] = {
    "architectures": ["MPTForCausalLM"],
    "attn_config": {"alibi": True},
    "d_model": 4096,
    "max_seq_len": 2048,
    "n_heads": 32,
    "n_layers": 32,
    "no_bias": True,
    "vocab_size": 50432,
}
PHI3_SMALL: dict[str, Any] = {
    "architectures": ["Phi3SmallForCausalLM"],
    "ff_intermediate_size": 14336,
    "hidden_size": 4096,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 100352,
}
INTERNLM_7B: dict[str, Any] = {
    "architectures": ["InternLMForCausalLM"],
    "bias": True,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "vocab_size": 103168,
}
FALCON_40B_OLD: dict[str, Any] = {
    "architectures": ["RWForCausalLM"],
    "alibi": False,
    "bias": False,
    "hidden_size": 8192,
    "model_type": "RefinedWeb",
    "n_head": 128,
    "n_head_kv": 8,
    "n_layer": 60,
    "parallel_attn": True,
    "vocab_size": 65024,
}


def parameters(profile: ModelProfile) -> int:
    return sum(prod(shape) for shape in stored_tensors(profile).values())


def shapes_of(profile: ModelProfile, tp: int = 1) -> dict[str, tuple[int, ...]]:
    return dict(rank_tensors(profile, RankLayout(tp, 1, 0)))


@pytest.mark.parametrize(
    ("folder", "known"),
    [
        pytest.param("CohereForAI--c4ai-command-r-plus", 103_810_674_688, id="Command R+"),
        pytest.param("EleutherAI--gpt-j-6b", 6_050_882_784, id="GPT-J"),
        pytest.param("EleutherAI--pythia-6.9b", 6_857_302_016, id="Pythia (GPT-NeoX)"),
        pytest.param("HuggingFaceTB--SmolLM3-3B", 3_075_098_624, id="SmolLM3"),
        pytest.param("LGAI-EXAONE--EXAONE-3.5-7.8B-Instruct", 7_818_448_896, id="EXAONE 3.5"),
        pytest.param("LGAI-EXAONE--EXAONE-4.0-32B", 32_003_216_384, id="EXAONE 4"),
        pytest.param("allenai--OLMo-2-1124-7B", 7_298_617_344, id="OLMo 2"),
        pytest.param("bigcode--starcoder", 15_517_456_384, id="StarCoder (GPT-BigCode)"),
        pytest.param("bigcode--starcoder2-15b", 15_957_889_024, id="StarCoder 2"),
        pytest.param("bigscience--bloom-7b1", 7_069_016_064, id="BLOOM"),
        pytest.param("facebook--opt-125m", 125_239_296, id="OPT"),
        pytest.param("facebook--opt-350m", 331_196_416, id="OPT with projections of words"),
        pytest.param("google--gemma-2-9b-it", 9_241_705_984, id="Gemma 2"),
        pytest.param("google--gemma-3-1b-it", 999_885_952, id="Gemma 3"),
        pytest.param("google--gemma-3-27b-it-text", 27_009_346_304, id="Gemma 3 inside a multimodal model"),
        pytest.param("google--gemma-7b", 8_537_680_896, id="Gemma"),
        pytest.param("ibm-granite--granite-3.3-8b-instruct", 8_170_864_640, id="Granite"),
        pytest.param("internlm--internlm2_5-7b-chat", 7_737_708_544, id="InternLM 2.5"),
        pytest.param("microsoft--phi-2", 2_779_683_840, id="Phi-2"),
        pytest.param("openai-community--gpt2-xl", 1_557_611_200, id="GPT-2"),
        pytest.param("openbmb--MiniCPM-2B-sft-bf16", 2_724_880_896, id="MiniCPM"),
        pytest.param("stabilityai--stablelm-2-1_6b", 1_644_515_328, id="StableLM 2"),
        pytest.param("tiiuae--falcon-40b", 41_303_293_952, id="Falcon, new layout"),
        pytest.param("tiiuae--falcon-7b", 6_921_720_704, id="Falcon, one key/value head"),
        pytest.param("tiiuae--falcon-rw-1b", 1_311_625_216, id="Falcon biased by distance"),
        pytest.param("zai-org--glm-4-9b-chat", 9_399_951_360, id="ChatGLM"),
        pytest.param("zai-org--glm-4-9b-chat-hf", 9_399_951_360, id="the same as GLM"),
        pytest.param("zai-org--GLM-4-32B-0414", 32_566_081_536, id="GLM-4"),
    ],
)
def test_parameters_are_as_many_as_published(folder: str, known: int) -> None:
    assert parameters(published(folder)) == known


@pytest.mark.parametrize(
    ("config", "known", "length"),
    [
        pytest.param(QWEN_72B, 72_287_920_128, 8192, id="Qwen 1, whose width counts gate and up"),
        pytest.param(BAICHUAN2, 7_505_973_248, 4096, id="Baichuan 2 that rotates"),
        pytest.param(BAICHUAN2_13B, 13_896_668_160, 4096, id="Baichuan 2 biased by distance"),
        pytest.param(MPT_7B, 6_649_286_656, 2048, id="MPT"),
        pytest.param(PHI3_SMALL, 7_392_272_384, 8192, id="Phi-3 small"),
        pytest.param(INTERNLM_7B, 7_321_948_160, 2048, id="InternLM 1, with biases"),
        pytest.param(FALCON_40B_OLD, 41_303_293_952, 2048, id="Falcon under its first names"),
    ],
)
def test_architectures_that_newer_engines_dropped(config: dict[str, Any], known: int, length: int) -> None:
    profile = profile_of(config, torch_dtype="bfloat16")
    assert parameters(profile) == known
    assert profile.default_max_model_len == length
    assert "do not serve" in profile.notes[-1]


def test_every_dropped_architecture_names_its_last_engine() -> None:
    assert set(last_engines()) == set(READERS)


def test_only_the_smaller_baichuan_has_a_rotary_table() -> None:
    rotates = shapes_of(profile_of(BAICHUAN2, torch_dtype="bfloat16"))
    assert rotates["rotary_emb.cos_sin_cache"] == (4096, 128)
    assert "rotary_emb.cos_sin_cache" not in shapes_of(profile_of(BAICHUAN2_13B, torch_dtype="bfloat16"))


@pytest.mark.parametrize(
    ("folder", "name", "shape"),
    [
        pytest.param(
            "openai-community--gpt2-xl", "h.3.attn.c_attn.weight", (1600, 4800), id="GPT-2 keeps in × out"
        ),
        pytest.param(
            "openai-community--gpt2-xl", "wte.weight", (50257, 1600), id="but its embedding is usual"
        ),
        pytest.param(
            "bigcode--starcoder", "transformer.h.0.attn.c_attn.weight", (6400, 6144), id="GPT-BigCode"
        ),
        pytest.param("EleutherAI--pythia-6.9b", "embed_out.weight", (50432, 4096), id="GPT-NeoX's head"),
        pytest.param(
            "EleutherAI--pythia-6.9b",
            "gpt_neox.layers.7.attention.dense.bias",
            (4096,),
            id="GPT-NeoX's layers",
        ),
        pytest.param(
            "bigscience--bloom-7b1", "word_embeddings_layernorm.bias", (4096,), id="BLOOM without prefix"
        ),
        pytest.param(
            "internlm--internlm2_5-7b-chat",
            "model.layers.0.feed_forward.w3.weight",
            (14336, 4096),
            id="InternLM 2",
        ),
        pytest.param(
            "zai-org--glm-4-9b-chat",
            "transformer.embedding.word_embeddings.weight",
            (151552, 4096),
            id="ChatGLM",
        ),
        pytest.param(
            "Tele-AI--TeleChat2-7B",
            "transformer.h.2.self_attention.key_value.weight",
            (8192, 4096),
            id="TeleChat fuses keys and values",
        ),
        pytest.param(
            "Tele-AI--TeleChat2-7B", "transformer.h.2.mlp.down_proj.bias", (4096,), id="TeleChat's one bias"
        ),
        pytest.param("microsoft--phi-2", "lm_head.bias", (51200,), id="Phi's head has a bias"),
        pytest.param(
            "tencent--Hunyuan-7B-Instruct",
            "model.layers.0.self_attn.query_layernorm.weight",
            (128,),
            id="Hunyuan",
        ),
    ],
)
def test_names_and_shapes_in_the_checkpoint(folder: str, name: str, shape: tuple[int, ...]) -> None:
    assert stored_tensors(published(folder))[name] == shape


@pytest.mark.parametrize(
    ("folder", "changes", "expected"),
    [
        pytest.param(
            "CohereForAI--c4ai-command-r7b-12-2024",
            {},
            [4097] * 3 + [None],
            id="Cohere 2 sees one token more",
        ),
        pytest.param(
            "CohereForAI--c4ai-command-r7b-12-2024",
            {"sliding_window_pattern": 2},
            [4097, None] * 2,
            id="by its interval",
        ),
        pytest.param("LGAI-EXAONE--EXAONE-4.0-32B", {}, [4096] * 3 + [None], id="EXAONE 4 with layer types"),
        pytest.param(
            "LGAI-EXAONE--EXAONE-4.0-32B",
            {"layer_types": None},
            [4096] * 3 + [None],
            id="EXAONE 4 by its pattern",
        ),
        pytest.param(
            "LGAI-EXAONE--EXAONE-4.0-32B",
            {"sliding_window": None, "layer_types": None},
            [None] * 4,
            id="without a window",
        ),
        pytest.param("allenai--Olmo-3-32B-Think", {"layer_types": None}, [4096] * 3 + [None], id="OLMo 3"),
        pytest.param("bigcode--starcoder2-15b", {}, [4096] * 4, id="StarCoder 2 on all layers"),
        pytest.param("upstage--solar-pro-preview-instruct", {}, [2047] * 4, id="Solar on all layers"),
        pytest.param(
            "HuggingFaceTB--SmolLM3-3B", {"sliding_window": 64}, [None] * 4, id="SmolLM3 was not asked"
        ),
        pytest.param("tiiuae--falcon-7b", {"sliding_window": 64}, [None] * 4, id="Falcon overlooks it"),
    ],
)
def test_windows(folder: str, changes: dict[str, Any], expected: list[int | None]) -> None:
    profile = profile_of(config_of(folder), **changes)
    assert [attention_of(profile, index).sliding_window for index in range(4)] == expected


MIXED = ["full_attention", "sliding_attention"] * 2


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param("LlamaForCausalLM", id="Llama"),
        pytest.param("MistralForCausalLM", id="Mistral"),
        pytest.param("Ministral3ForCausalLM", id="Ministral 3"),
        pytest.param("Phi3ForCausalLM", id="Phi-3"),
        pytest.param("GraniteForCausalLM", id="Granite"),
        pytest.param("ApertusForCausalLM", id="Apertus"),
    ],
)
def test_layers_with_and_without_a_window_mix(architecture: str) -> None:
    profile = profile_of(TINY, architectures=[architecture], layer_types=MIXED, sliding_window=64)
    assert [attention_of(profile, index).sliding_window for index in range(4)] == [None, 64, None, 64]
    assert len(set(profile.layers)) == 2


def test_granite_with_layer_types_has_sinks_and_a_table_for_each_base() -> None:
    granite = {"architectures": ["GraniteForCausalLM"], "layer_types": MIXED, "sliding_window": 64}
    shapes = shapes_of(profile_of(TINY, **granite), tp=2)
    assert shapes["model.layers.1.self_attn.sinks"] == (4,)
    assert "model.layers.1.self_attn.sinks" not in shapes_of(
        profile_of(TINY, **granite, attention_sinks=False)
    )
    bases = profile_of(TINY, **granite, layer_rope_theta=[1e4, 1e6, 0, 1e4])
    names = [tensor.name for tensor in bases.outer_tensors]
    assert names.count("rotary_emb.cos_sin_cache") == 2


def test_norms_of_single_heads_are_divided_with_the_heads() -> None:
    shapes = shapes_of(published("CohereForAI--c4ai-command-r-plus"), tp=16)
    assert shapes["model.layers.0.self_attn.q_norm.weight"] == (6, 128)
    assert shapes["model.layers.0.self_attn.k_norm.weight"] == (1, 128)


def test_blocks_without_a_plan_are_whole_on_every_rank() -> None:
    shapes = shapes_of(published("bigcode--starcoder"), tp=2)
    assert shapes["model.h.0.mlp.c_fc.weight"] == (24576, 6144)
    assert shapes["model.h.0.attn.c_attn.weight"] == ((24 + 2) * 128, 6144)
    assert shapes["model.bias"] == (8192, 8192)


def nas_layer(attention: dict[str, Any], ffn: dict[str, Any]) -> LayerProfile:
    block = {"attention": attention, "ffn": ffn}
    nas = {"architectures": ["DeciLMForCausalLM"], "num_key_value_heads": None}
    return profile_of(TINY, **nas, num_hidden_layers=1, block_configs=[block]).layers[0]


def test_searched_blocks_have_their_own_heads_and_widths() -> None:
    layer = nas_layer({"n_heads_in_group": 4, "no_op": False}, {"ffn_mult": 2.625, "no_op": False})
    assert layer.attention is not None
    assert layer.attention.num_kv_heads == 2
    assert layer.feed_forward == MlpProfile(512)
    assert nas_layer({"n_heads_in_group": 8}, {"intermediate_size": 96}).feed_forward == MlpProfile(96)


def test_searched_blocks_may_lack_either_part_and_then_its_norm() -> None:
    neither = nas_layer({"no_op": True}, {"no_op": True})
    assert (neither.mixers, neither.feed_forward, neither.tensors) == ((), None, ())
    only_mlp = nas_layer({"no_op": True}, {"ffn_mult": 1.0})
    assert only_mlp.mixers == ()
    assert [tensor.name for tensor in only_mlp.tensors if "norm" in tensor.name] == [
        "model.layers.{}.post_attention_layernorm.weight"
    ]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        pytest.param(
            {"architectures": ["LlamaSwiftKVForCausalLM"], "num_key_value_layers": 2},
            "arctic-inference",
            id="SwiftKV",
        ),
        pytest.param({"num_key_value_layers": 2}, "arctic-inference", id="SwiftKV under the name of Llama"),
        pytest.param(
            {"architectures": ["MiniCPMForCausalLM"], "num_experts": 8},
            "num_experts",
            id="MiniCPM with experts",
        ),
        pytest.param(
            {"architectures": ["MPTForCausalLM"], "attn_config": {"alibi": False}},
            "ALiBi",
            id="MPT without ALiBi",
        ),
        pytest.param(
            {"architectures": ["GemmaForCausalLM"], "is_causal": False}, "is_causal", id="bidirectional"
        ),
        pytest.param(
            {"architectures": ["DeciLMForCausalLM"]},
            "block_configs",
            id="searched blocks that are not listed",
        ),
        pytest.param(
            {
                "architectures": ["DeciLMForCausalLM"],
                "block_configs": [{"attention": {"n_heads_in_group": 3}}] * 4,
            },
            "n_heads_in_group",
            id="groups that do not divide the heads",
        ),
        pytest.param(
            {
                "architectures": ["DeciLMForCausalLM"],
                "block_configs": [{"attention": {"replace_with_linear": True}}] * 4,
            },
            "linear",
            id="attention replaced by a linear layer",
        ),
        pytest.param(
            {"architectures": ["GraniteForCausalLM"], "layer_rope_theta": ["a"] * 4},
            "layer_rope_theta",
            id="bases that are words",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(changes: dict[str, Any], word: str) -> None:
    answer = read_profile(summary_of({**TINY, **changes}))
    assert isinstance(answer, Refusal)
    assert word in answer.message


@pytest.mark.parametrize(
    ("architecture", "changes", "biased"),
    [
        pytest.param("StableLmForCausalLM", {"use_qkv_bias": True}, {"qkv_proj"}, id="StableLM"),
        pytest.param(
            "SeedOssForCausalLM", {"attention_out_bias": True}, {"qkv_proj", "o_proj"}, id="Seed-OSS"
        ),
        pytest.param(
            "SeedOssForCausalLM",
            {"attention_bias": False, "mlp_bias": True},
            {"gate_up_proj", "down_proj"},
            id="Seed-OSS in its blocks",
        ),
        pytest.param(
            "ExaoneForCausalLM",
            {"bias": True, "num_layers": 4},
            {"qkv_proj", "out_proj"},
            id="EXAONE by another name",
        ),
        pytest.param("Ernie4_5ForCausalLM", {"bias": True}, {"qkv_proj"}, id="ERNIE drops the output's"),
        pytest.param("Starcoder2ForCausalLM", {"use_bias": False}, set(), id="StarCoder 2 without"),
        pytest.param("GlmForCausalLM", {}, {"qkv_proj"}, id="GLM, by its class"),
    ],
)
def test_biases(architecture: str, changes: dict[str, Any], biased: set[str]) -> None:
    config = {**TINY, "architectures": [architecture], "model_type": _MODEL_TYPES.get(architecture, "other")}
    layer = profile_of(config, **changes).layers[0]
    modules = {tensor.name.split(".")[-2] for tensor in layer.tensors if tensor.name.endswith(".bias")}
    assert {name for name in modules if "norm" not in name} == biased


_MODEL_TYPES = {"SeedOssForCausalLM": "seed_oss", "GlmForCausalLM": "glm", "StableLmForCausalLM": "stablelm"}
