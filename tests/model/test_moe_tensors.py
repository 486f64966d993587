"""Mixture-of-experts families: names and shapes as published checkpoints have them, and known totals."""

from __future__ import annotations

from math import prod

import pytest

from stowage.model.architectures import stored_tensors
from stowage.model.profile import ModelProfile
from stowage.model.tensors import ParameterTensor
from tests.model.support import config_of, profile_of


def plain(folder: str) -> ModelProfile:
    """Read a fixture as if its weights were not quantised."""
    config = config_of(folder)
    config.pop("quantization_config", None)
    return profile_of(config)


def parameters(tensors: tuple[ParameterTensor, ...]) -> int:
    """Count the elements of tensors that a checkpoint holds."""
    return sum(prod(tensor.shape) for tensor in tensors if tensor.stored)


@pytest.mark.parametrize(
    ("folder", "total"),
    [
        pytest.param("Qwen--Qwen3-30B-A3B", 30_532_122_624, id="Qwen3-30B-A3B"),
        pytest.param("Qwen--Qwen1.5-MoE-A2.7B", 14_315_784_192, id="Qwen1.5-MoE-A2.7B"),
        pytest.param("mistralai--Mixtral-8x7B-v0.1", 46_702_792_704, id="Mixtral-8x7B"),
        pytest.param("openai--gpt-oss-20b", 20_914_757_184, id="gpt-oss-20b"),
        pytest.param("openai--gpt-oss-120b", 116_829_156_672, id="gpt-oss-120b"),
        pytest.param("allenai--OLMoE-1B-7B-0924", 6_919_161_856, id="OLMoE-1B-7B"),
        pytest.param("microsoft--Phi-3.5-MoE-instruct", 41_873_153_344, id="Phi-3.5-MoE"),
        pytest.param("databricks--dbrx-base", 131_596_523_520, id="DBRX"),
        pytest.param("ibm-granite--granite-3.1-3b-a800m-instruct", 3_298_793_472, id="Granite-3.1-3b-a800m"),
        pytest.param("baidu--ERNIE-4.5-21B-A3B-PT", 21_825_437_888, id="ERNIE-4.5-21B-A3B"),
        pytest.param("inclusionAI--Ling-mini-2.0", 16_255_643_392, id="Ling-mini-2.0"),
        pytest.param("poolside--Laguna-S-2.1", 117_561_977_600, id="Laguna-S-2.1"),
        pytest.param("arcee-ai--Trinity-Mini", 26_123_974_400, id="Trinity-Mini"),
    ],
)
def test_whole_models_have_their_published_number_of_parameters(folder: str, total: int) -> None:
    profile = plain(folder)
    stored = sum(prod(shape) for shape in stored_tensors(profile).values())
    assert stored == total
    assert (
        parameters(profile.outer_tensors) + sum(parameters(layer.tensors) for layer in profile.layers)
        == total
    )


@pytest.mark.parametrize(
    ("folder", "copies", "total"),
    [
        pytest.param("zai-org--GLM-4.6", 0, 356_785_898_816, id="GLM-4.6 shares embedding and head"),
        pytest.param("zai-org--GLM-4.5-Air", 2, 110_468_824_832, id="GLM-4.5-Air repeats embedding and head"),
    ],
)
def test_draft_layers_make_up_the_rest_of_the_checkpoint(folder: str, copies: int, total: int) -> None:
    profile = plain(folder)
    layers = (*profile.layers, *profile.draft_layers)
    found = parameters(profile.outer_tensors) + sum(parameters(layer.tensors) for layer in layers)
    assert found + copies * profile.vocab_size * profile.hidden_size == total


@pytest.mark.parametrize(
    ("folder", "name", "shape"),
    [
        pytest.param(
            "Qwen--Qwen3-30B-A3B", "model.layers.47.mlp.experts.127.down_proj.weight", (2048, 768),
            id="Qwen3: the last expert",
        ),
        pytest.param(
            "Qwen--Qwen1.5-MoE-A2.7B", "model.layers.3.mlp.shared_expert_gate.weight", (1, 2048),
            id="Qwen2: the gate of the shared expert",
        ),
        pytest.param(
            "mistralai--Mixtral-8x7B-v0.1", "model.layers.0.block_sparse_moe.experts.7.w2.weight", (4096, 14336),
            id="Mixtral: w2 goes down",
        ),
        pytest.param(
            "mistralai--Mixtral-8x7B-v0.1", "model.layers.0.block_sparse_moe.experts.0.w3.weight", (14336, 4096),
            id="Mixtral: w3 goes up",
        ),
        pytest.param(
            "openai--gpt-oss-20b", "model.layers.23.mlp.experts.gate_up_proj", (32, 2880, 5760),
            id="gpt-oss: experts together and transposed",
        ),
        pytest.param("openai--gpt-oss-20b", "model.layers.0.self_attn.sinks", (64,), id="gpt-oss: sinks"),
        pytest.param("openai--gpt-oss-20b", "model.embed_tokens.weight", (201088, 2880), id="gpt-oss: embedding"),
        pytest.param(
            "zai-org--GLM-4.5-Air", "model.layers.1.mlp.gate.e_score_correction_bias", (128,),
            id="GLM: the router's correction",
        ),
        pytest.param(
            "zai-org--GLM-4.6", "model.layers.3.mlp.shared_experts.gate_proj.weight", (1536, 5120),
            id="GLM: the shared expert",
        ),
        pytest.param(
            "meta-llama--Llama-4-Scout-17B-16E-Instruct-text", "model.layers.0.feed_forward.experts.down_proj",
            (16, 8192, 5120), id="Llama 4: experts together and transposed",
        ),
        pytest.param(
            "MiniMaxAI--MiniMax-M2.5", "model.layers.61.block_sparse_moe.e_score_correction_bias", (256,),
            id="MiniMax: the router's correction beside it",
        ),
        pytest.param("MiniMaxAI--MiniMax-M2.5", "model.layers.0.self_attn.q_norm.weight", (6144,), id="MiniMax: norm"),
        pytest.param("MiniMaxAI--MiniMax-M2.5", "model.layers.0.self_attn.k_norm.weight", (1024,), id="MiniMax: k"),
        pytest.param(
            "baidu--ERNIE-4.5-21B-A3B-PT", "model.layers.1.mlp.moe_statics.e_score_correction_bias", (1, 64),
            id="ERNIE: a correction with two dimensions",
        ),
        pytest.param(
            "databricks--dbrx-base", "transformer.blocks.0.ffn.experts.mlp.v1", (172032, 6144),
            id="DBRX: one tall matrix",
        ),
        pytest.param(
            "ibm-granite--granite-3.1-3b-a800m-instruct", "model.layers.0.block_sparse_moe.router.layer.weight",
            (40, 1536), id="Granite: the router",
        ),
        pytest.param(
            "ibm-granite--granite-3.1-3b-a800m-instruct", "model.layers.0.block_sparse_moe.input_linear.weight",
            (40, 1024, 1536), id="Granite: experts together",
        ),
        pytest.param(
            "inclusionAI--Ling-mini-2.0", "model.layers.0.attention.query_key_value.weight", (3072, 2048),
            id="Ling: fused attention",
        ),
        pytest.param("inclusionAI--Ling-mini-2.0", "model.word_embeddings.weight", (157184, 2048), id="Ling: words"),
        pytest.param(
            "poolside--Laguna-S-2.1", "model.layers.1.self_attn.g_proj.weight", (72, 3072), id="Laguna: a gate a head"
        ),
        pytest.param(
            "poolside--Laguna-S-2.1", "model.layers.1.mlp.experts.e_score_correction_bias", (256,),
            id="Laguna: the router's correction among the experts",
        ),
        pytest.param(
            "stepfun-ai--Step-3.5-Flash", "model.layers.3.share_expert.down_proj.weight", (4096, 1280),
            id="Step 3.5: the shared expert beside the block",
        ),
        pytest.param(
            "stepfun-ai--Step-3.5-Flash", "model.layers.44.moe.up_proj.weight", (288, 1280, 4096),
            id="Step 3.5: experts together",
        ),
        pytest.param("stepfun-ai--step3-text", "model.layers.0.self_attn.wq.weight", (16384, 2048), id="Step 3: q"),
        pytest.param(
            "XiaomiMiMo--MiMo-V2-Flash", "model.layers.1.self_attn.attention_sink_bias", (64,), id="MiMo: sinks"
        ),
        pytest.param("XiaomiMiMo--MiMo-V2-Flash", "model.layers.1.self_attn.v_proj.weight", (1024, 4096), id="MiMo: v"),
        pytest.param("arcee-ai--Trinity-Mini", "model.layers.2.mlp.router.gate.weight", (128, 2048), id="Trinity"),
        pytest.param(
            "tencent--Hy3-preview", "model.layers.1.mlp.shared_mlp.up_proj.weight", (1536, 4096), id="Hunyuan: shared"
        ),
        pytest.param("microsoft--Phi-3.5-MoE-instruct", "lm_head.bias", (32064,), id="PhiMoE: a bias of the head"),
    ],
)  # fmt: skip
def test_checkpoint_names(folder: str, name: str, shape: tuple[int, ...]) -> None:
    assert stored_tensors(plain(folder))[name] == shape


def test_experts_and_routers_are_marked_for_quantisation() -> None:
    for folder in ("Qwen--Qwen3-30B-A3B", "openai--gpt-oss-20b", "databricks--dbrx-base"):
        linears = [tensor.linear for tensor in plain(folder).layers[0].tensors if tensor.linear is not None]
        roles = [linear.role for linear in linears]
        assert (roles.count("experts"), roles.count("router"), roles.count("linear")) == (2, 1, 2)
        assert all(linear.module.endswith("experts") for linear in linears if linear.role == "experts")


def test_laguna_gates_each_element_where_it_is_asked_to() -> None:
    config = {**config_of("poolside--Laguna-S-2.1"), "gating": "per-element"}
    assert stored_tensors(profile_of(config))["model.layers.1.self_attn.g_proj.weight"] == (72 * 128, 3072)
    ungated = stored_tensors(profile_of({**config, "gating": False}))
    assert "model.layers.1.self_attn.g_proj.weight" not in ungated


def test_granite_with_windows_has_sinks_and_a_table_for_each_rotary_base() -> None:
    config = {
        **config_of("ibm-granite--granite-3.1-3b-a800m-instruct"),
        "architectures": ["GraniteMoeSWAForCausalLM"],
        "layer_types": ["sliding_attention", "full_attention"] * 16,
        "sliding_window": 512,
        "layer_rope_theta": [10000.0, 0] * 8 + [10000.0, 1000000.0] * 8,
    }
    profile = profile_of(config)
    assert stored_tensors(profile)["model.layers.5.self_attn.sinks"] == (24,)
    assert sum(tensor.name.startswith("rotary") for tensor in profile.outer_tensors) == 2
    without = stored_tensors(profile_of({**config, "attention_sinks": False}))
    assert "model.layers.5.self_attn.sinks" not in without
