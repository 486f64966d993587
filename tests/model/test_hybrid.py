"""Hybrid and state space families: whole models against their known size, and checkpoints by their names."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import pytest

from stowage.memory.layout import RankLayout
from stowage.memory.weights import rank_tensors
from stowage.model.architectures import stored_tensors
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    MlpProfile,
    MoeProfile,
    StateProfile,
)
from tests.model.support import config_of, profile_of, published

MAMBA1 = "state-spaces--mamba-2.8b-hf"
FALCON_MAMBA = "tiiuae--falcon-mamba-7b"
MAMBA2 = "mistralai--Mamba-Codestral-7B-v0.1"
JAMBA = "ai21labs--AI21-Jamba-1.5-Mini"
NEMOTRON = "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"
LATENT_MOE = "nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-BF16"
GRANITE = "ibm-granite--granite-4.0-h-small"
BAMBA = "ibm-ai-platform--Bamba-9B-v2"
FALCON_H1 = "tiiuae--Falcon-H1-7B-Instruct"
ZAMBA = "Zyphra--Zamba2-7B-Instruct"
LFM = "LiquidAI--LFM2-1.2B"
LFM_MOE = "LiquidAI--LFM2-8B-A1B"
KIMI = "moonshotai--Kimi-Linear-48B-A3B-Instruct"
MINIMAX = "MiniMaxAI--MiniMax-Text-01"


def _parameters(folder: str) -> int:
    """Count the elements that the checkpoint of a fixture holds, draft layers included."""
    profile = published(folder)
    layers = (*profile.layers, *profile.draft_layers)
    tensors = [*profile.outer_tensors, *(tensor for layer in layers for tensor in layer.tensors)]
    return sum(prod(stored.shape) for tensor in tensors for stored in tensor.stored)


@pytest.mark.parametrize(
    ("folder", "parameters"),
    [
        pytest.param(JAMBA, 51_570_323_328, id="Jamba-1.5-Mini"),
        pytest.param(MAMBA2, 7_285_403_648, id="Mamba-Codestral-7B"),
        pytest.param(NEMOTRON, 31_577_940_288, id="Nemotron-3-Nano-30B"),
        pytest.param(LFM, 1_170_340_608, id="LFM2-1.2B"),
        pytest.param(LFM_MOE, 8_339_930_560, id="LFM2-8B-A1B, with expert biases"),
        pytest.param(BAMBA, 9_780_235_392, id="Bamba-9B"),
        pytest.param(KIMI, 49_122_681_728, id="Kimi-Linear-48B"),
        pytest.param(MINIMAX, 456_089_655_296, id="MiniMax-Text-01"),
    ],
)
def test_whole_models_have_their_known_size(folder: str, parameters: int) -> None:
    assert _parameters(folder) == parameters


@pytest.mark.parametrize(
    ("folder", "stored", "shape"),
    [
        pytest.param(MAMBA1, "backbone.layers.7.mixer.A_log", (5120, 16), id="Mamba: A"),
        pytest.param(MAMBA1, "backbone.layers.7.mixer.x_proj.weight", (192, 5120), id="Mamba: x_proj"),
        pytest.param(MAMBA1, "backbone.embeddings.weight", (50280, 2560), id="Mamba: embedding"),
        pytest.param(MAMBA2, "backbone.layers.7.mixer.in_proj.weight", (18560, 4096), id="Mamba 2: in_proj"),
        pytest.param(MAMBA2, "backbone.layers.7.mixer.norm.weight", (8192,), id="Mamba 2: norm"),
        pytest.param(JAMBA, "model.layers.4.self_attn.k_proj.weight", (1024, 4096), id="Jamba: keys"),
        pytest.param(
            JAMBA, "model.layers.3.feed_forward.experts.15.up_proj.weight", (14336, 4096), id="Jamba: expert"
        ),
        pytest.param(JAMBA, "model.layers.3.mamba.b_layernorm.weight", (16,), id="Jamba: norms in the mixer"),
        pytest.param(
            NEMOTRON, "backbone.layers.0.mixer.conv1d.weight", (6144, 1, 4), id="Nemotron: convolution"
        ),
        pytest.param(
            NEMOTRON,
            "backbone.layers.1.mixer.gate.e_score_correction_bias",
            (128,),
            id="Nemotron: correction",
        ),
        pytest.param(
            NEMOTRON,
            "backbone.layers.1.mixer.experts.127.down_proj.weight",
            (2688, 1856),
            id="Nemotron: expert",
        ),
        pytest.param(
            LATENT_MOE, "backbone.layers.1.mixer.fc1_latent_proj.weight", (1024, 4096), id="Nemotron: latent"
        ),
        pytest.param(
            GRANITE,
            "model.layers.0.block_sparse_moe.input_linear.weight",
            (72, 1536, 4096),
            id="Granite: experts",
        ),
        pytest.param(
            GRANITE, "model.layers.0.block_sparse_moe.router.layer.weight", (72, 4096), id="Granite: router"
        ),
        pytest.param(
            GRANITE,
            "model.layers.5.shared_mlp.output_linear.weight",
            (4096, 1536),
            id="Granite: shared block",
        ),
        pytest.param(BAMBA, "model.layers.9.self_attn.q_proj.weight", (4096, 4096), id="Bamba: queries"),
        pytest.param(FALCON_H1, "model.layers.0.mamba.in_proj.weight", (6680, 3072), id="Falcon-H1: in_proj"),
        pytest.param(
            ZAMBA,
            "model.layers.6.shared_transformer.self_attn.q_proj.weight",
            (7168, 7168),
            id="Zamba2: queries",
        ),
        pytest.param(
            ZAMBA, "model.layers.75.mamba_decoder.mamba.D", (112,), id="Zamba2: mixer of a hybrid layer"
        ),
        pytest.param(
            ZAMBA,
            "model.layers.11.shared_transformer.feed_forward.gate_up_proj_adapter_list.11.1.weight",
            (28672, 128),
            id="Zamba2: adapter of the last use of the second block",
        ),
        pytest.param(LFM, "model.layers.0.conv.conv.weight", (2048, 1, 3), id="LFM2: convolution"),
        pytest.param(LFM, "model.layers.2.self_attn.q_layernorm.weight", (64,), id="LFM2: head norm"),
        pytest.param(
            LFM, "model.layers.2.feed_forward.w1.weight", (8192, 2048), id="LFM2: adjusted feed-forward"
        ),
        pytest.param(LFM_MOE, "model.layers.2.feed_forward.expert_bias", (32,), id="LFM2: expert bias"),
        pytest.param(KIMI, "model.layers.0.self_attn.A_log", (1, 1, 32, 1), id="Kimi-Linear: decay"),
        pytest.param(
            KIMI, "model.layers.0.self_attn.q_conv1d.weight", (4096, 1, 4), id="Kimi-Linear: convolution"
        ),
        pytest.param(
            KIMI, "model.layers.3.self_attn.kv_b_proj.weight", (8192, 512), id="Kimi-Linear: latent attention"
        ),
        pytest.param(
            MINIMAX, "model.layers.0.self_attn.output_gate.weight", (8192, 6144), id="MiniMax: output gate"
        ),
        pytest.param(
            MINIMAX,
            "model.layers.7.block_sparse_moe.experts.31.w3.weight",
            (9216, 6144),
            id="MiniMax: expert",
        ),
    ],
)
def test_checkpoints_hold_tensors_under_their_published_names(
    folder: str, stored: str, shape: tuple[int, ...]
) -> None:
    assert stored_tensors(published(folder))[stored] == shape


def _kind(layer: LayerProfile) -> str:
    names = {AttentionProfile: "attention", LatentAttentionProfile: "latent"}
    mixers = [getattr(mixer, "kind", names.get(type(mixer))) for mixer in layer.mixers]
    forward = {MlpProfile: "mlp", MoeProfile: "experts", type(None): "-"}[type(layer.feed_forward)]
    return f"{'+'.join(map(str, mixers)) or '-'}/{forward}"


@pytest.mark.parametrize(
    ("folder", "layers"),
    [
        pytest.param(MAMBA1, {"mamba1/-": 64}, id="Mamba"),
        pytest.param(MAMBA2, {"mamba2/-": 64}, id="Mamba 2"),
        pytest.param(JAMBA, {"mamba1/mlp": 12, "mamba1/experts": 16, "attention/mlp": 4}, id="Jamba"),
        pytest.param(NEMOTRON, {"mamba2/-": 23, "-/experts": 23, "attention/-": 6}, id="Nemotron-H"),
        pytest.param(GRANITE, {"mamba2/experts": 36, "attention/experts": 4}, id="Granite 4"),
        pytest.param(FALCON_H1, {"attention+mamba2/mlp": 44}, id="Falcon-H1: both in every layer"),
        pytest.param(ZAMBA, {"mamba2/-": 68, "attention+mamba2/mlp": 13}, id="Zamba2"),
        pytest.param(LFM, {"short-conv/mlp": 10, "attention/mlp": 6}, id="LFM2"),
        pytest.param(
            LFM_MOE, {"short-conv/mlp": 2, "short-conv/experts": 16, "attention/experts": 6}, id="LFM2 with experts"
        ),
        pytest.param(KIMI, {"kimi-delta/mlp": 1, "kimi-delta/experts": 19, "latent/experts": 7}, id="Kimi-Linear"),
        pytest.param(MINIMAX, {"lightning/experts": 70, "attention/experts": 10}, id="MiniMax-Text-01"),
    ],
)  # fmt: skip
def test_layers_are_of_the_published_kinds(folder: str, layers: dict[str, int]) -> None:
    assert Counter(_kind(layer) for layer in published(folder).layers) == layers


@pytest.mark.parametrize(
    ("folder", "dtype"),
    [
        pytest.param(NEMOTRON, "float32", id="Nemotron-H says float32"),
        pytest.param(KIMI, "float32", id="KDA is always kept in float32"),
        pytest.param(GRANITE, None, id="Granite leaves it to the engine"),
        pytest.param(JAMBA, None, id="Jamba leaves it to the engine"),
    ],
)
def test_the_recurrent_state_is_kept_in_what_the_model_asks_for(folder: str, dtype: str | None) -> None:
    states = {
        mixer.state_dtype
        for layer in published(folder).layers
        for mixer in layer.mixers
        if isinstance(mixer, StateProfile)
    }
    assert states == {dtype}


def _on_rank(folder: str, layout: RankLayout, **changes: Any) -> dict[str, tuple[int, ...]]:
    return dict(rank_tensors(profile_of(config_of(folder), **changes), layout))


def test_a_single_group_is_on_every_rank_and_several_are_divided() -> None:
    one = _on_rank(GRANITE, RankLayout(4, 1, 0))["model.layers.0.mamba.conv1d.weight"]
    several = _on_rank(GRANITE, RankLayout(4, 1, 0), mamba_n_groups=8)["model.layers.0.mamba.conv1d.weight"]
    assert one == (8192 // 4 + 2 * 128, 1, 4)
    assert several == ((8192 + 2 * 8 * 128) // 4, 1, 4)


def test_the_forget_gate_of_kda_is_on_every_rank() -> None:
    fused = _on_rank(KIMI, RankLayout(4, 1, 0))["model.layers.0.self_attn.in_proj_qkvgfab.weight"]
    assert fused == ((3 * 4096 + 32) // 4 + 128, 2304)


@pytest.mark.parametrize(
    ("ranks", "inner"),
    [pytest.param(4, 256, id="as wide as the least"), pytest.param(8, 256, id="padded to the least")],
)
def test_narrow_experts_of_kimi_linear_are_padded(ranks: int, inner: int) -> None:
    held = _on_rank(KIMI, RankLayout(ranks, 1, 0))
    assert held["model.layers.1.block_sparse_moe.experts.routed_experts.w13_weight"] == (256, 2 * inner, 2304)
    assert held["model.layers.1.block_sparse_moe.experts.routed_experts.w2_weight"] == (256, 2304, inner)


def test_zamba_keeps_its_shared_blocks_once() -> None:
    stored = stored_tensors(published(ZAMBA))
    queries = [name for name in stored if name.endswith("shared_transformer.self_attn.q_proj.weight")]
    assert queries == [
        f"model.layers.{number}.shared_transformer.self_attn.q_proj.weight" for number in (6, 11)
    ]


def test_every_stage_of_a_mamba_holds_both_ends() -> None:
    for stage in (0, 1):
        held = _on_rank(JAMBA, RankLayout(1, 2, stage))
        assert {"model.embed_tokens.weight", "lm_head.weight", "model.final_layernorm.weight"} <= set(held)


def test_stages_without_attention_have_no_rotary_table() -> None:
    # Layers 2, 5, 8, 10, 12 and 14 attend; each stage has two layers.
    stages = [set(_on_rank(LFM, RankLayout(1, 8, stage))) for stage in range(8)]
    assert [("rotary_emb.cos_sin_cache" in names) for names in stages] == [
        False,
        True,
        True,
        False,
        True,
        True,
        True,
        True,
    ]


def test_latent_experts_work_between_two_projections() -> None:
    held = _on_rank(LATENT_MOE, RankLayout(1, 1, 0))
    assert held["model.layers.1.mixer.experts.routed_experts.w13_weight"] == (512, 2688, 1024)
    assert held["model.layers.1.mixer.fc2_latent_proj.weight"] == (4096, 1024)


def test_the_draft_of_nemotron_starts_with_a_fusion_and_ends_with_a_norm() -> None:
    first, last = published(LATENT_MOE).draft_layers
    assert (_kind(first), _kind(last)) == ("attention/-", "-/experts")
    shapes = {tensor.name: tensor.shape for layer in (first, last) for tensor in layer.tensors}
    assert shapes["mtp.layers.{}.eh_proj.weight"] == (4096, 8192)
    assert shapes["mtp.layers.{}.final_layernorm.weight"] == (4096,)


def test_a_mamba_states_no_context_and_takes_any() -> None:
    profile = published(MAMBA1)
    assert profile.default_max_model_len == 2048
    assert profile.max_model_len == 2**31 - 1
