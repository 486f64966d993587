"""Qwen3-Next and Qwen3.5: gated attention, nesting, experts, drafts, and what quantisation changes."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from stowage.memory.layout import RankLayout
from stowage.memory.sharding import rank_shape
from stowage.model.architectures import stored_tensors
from stowage.model.families.hybrid import READERS
from stowage.model.profile import MoeProfile, StateProfile
from tests.model.support import attention_of, config_of, profile_of, published

NEXT = "Qwen--Qwen3-Next-80B-A3B-Instruct"
SMALL = "Qwen--Qwen3.5-4B"
LARGE = "Qwen--Qwen3.5-27B"
EXPERTS = "Qwen--Qwen3.5-35B-A3B"
TEXT = "Qwen--Qwen3.5-35B-A3B-text"


@pytest.mark.parametrize(
    ("folder", "parameters"),
    [
        pytest.param(SMALL, 4_659_865_088, id="Qwen3.5-4B"),
        pytest.param(LARGE, 27_781_427_952, id="Qwen3.5-27B"),
        pytest.param(EXPERTS, 35_951_822_704, id="Qwen3.5-35B-A3B"),
    ],
)
def test_whole_models_have_their_published_size_with_tower_and_draft(folder: str, parameters: int) -> None:
    profile = published(folder)
    layers = (*profile.layers, *profile.draft_layers)
    tensors = [*profile.outer_tensors, *(tensor for layer in layers for tensor in layer.tensors)]
    assert sum(prod(stored.shape) for tensor in tensors for stored in tensor.stored) == parameters


@pytest.mark.parametrize(
    ("folder", "stored", "shape"),
    [
        pytest.param(
            NEXT,
            "model.layers.0.linear_attn.in_proj_qkvz.weight",
            (12288, 2048),
            id="Next: fused in the file",
        ),
        pytest.param(
            NEXT, "model.layers.3.self_attn.q_proj.weight", (8192, 2048), id="Next: queries with gates"
        ),
        pytest.param(
            NEXT, "model.layers.0.mlp.experts.511.gate_proj.weight", (512, 2048), id="Next: an expert"
        ),
        pytest.param(
            NEXT,
            "model.layers.0.mlp.shared_expert_gate.weight",
            (1, 2048),
            id="Next: gate of the shared expert",
        ),
        pytest.param(
            LARGE, "model.language_model.layers.0.linear_attn.in_proj_z.weight", (6144, 5120), id="3.5: apart"
        ),
        pytest.param(LARGE, "model.language_model.layers.0.linear_attn.A_log", (48,), id="3.5: decay"),
        pytest.param(
            LARGE, "model.visual.patch_embed.proj.weight", (1152, 3, 2, 16, 16), id="3.5: vision tower"
        ),
        pytest.param(LARGE, "lm_head.weight", (248320, 5120), id="3.5: head"),
        pytest.param(
            EXPERTS,
            "model.language_model.layers.0.mlp.experts.gate_up_proj",
            (256, 1024, 2048),
            id="3.5: experts",
        ),
        pytest.param(
            TEXT, "model.layers.0.mlp.experts.down_proj", (256, 2048, 512), id="3.5 without the tower"
        ),
    ],
)
def test_checkpoints_hold_tensors_under_their_published_names(
    folder: str, stored: str, shape: tuple[int, ...]
) -> None:
    assert stored_tensors(published(folder))[stored] == shape


def test_one_layer_in_four_attends_and_the_others_keep_a_state() -> None:
    layers = published(LARGE).layers
    assert [number for number, layer in enumerate(layers) if layer.attention] == list(range(3, 64, 4))
    attention = attention_of(published(LARGE), 3)
    assert (attention.num_heads, attention.num_kv_heads, attention.head_dim) == (24, 4, 256)
    assert layers[0].mixers == (
        StateProfile(
            "gated-delta-net",
            conv_kernel=4,
            num_heads=48,
            head_dim=128,
            key_heads=16,
            key_dim=128,
            state_dtype="float32",
        ),
    )


def test_qwen3_next_leaves_the_state_dtype_to_the_engine() -> None:
    (state,) = profile_of(config_of(NEXT), mamba_ssm_dtype="float32").layers[0].mixers
    assert isinstance(state, StateProfile)
    assert state.state_dtype is None


def test_a_model_that_is_nested_has_a_tower_and_a_flat_one_has_none() -> None:
    assert [encoder.modality for encoder in published(LARGE).encoders] == ["image", "video"]
    assert published(TEXT).encoders == ()


def _narrow(quantization: dict[str, Any] | None, folder: str = LARGE) -> tuple[int, ...]:
    """Give the shape of a delta net's narrow projection on one of four ranks."""
    config = {**config_of(folder), "quantization_config": quantization}
    anatomy = READERS[config["architectures"][0]](config)
    (tensor,) = (found for found in anatomy.layers[0].tensors if ".in_proj_ba." in found.name)
    return rank_shape(tensor, RankLayout(4, 1, 0))


def test_four_bit_kernels_keep_the_narrow_projection_whole() -> None:
    assert _narrow(None) == (2 * 48 // 4, 5120)
    assert _narrow({"quant_method": "fp8"}) == (2 * 48 // 4, 5120)
    assert _narrow({"quant_method": "auto-round", "bits": 4}) == (2 * 48, 5120)
    assert _narrow({"quant_method": "awq", "bits": 4}, NEXT) == (2 * 32 // 4, 2048)


def test_quantised_experts_are_stored_apart() -> None:
    config = {**config_of(EXPERTS), "quantization_config": {"quant_method": "fp8"}}
    anatomy = READERS[config["architectures"][0]](config)
    names = {stored.name for tensor in anatomy.layers[0].tensors for stored in tensor.stored}
    assert "model.language_model.layers.{0}.mlp.experts.255.up_proj.weight" in names


def test_the_draft_layer_attends_and_takes_in_two_vectors() -> None:
    (draft,) = published(LARGE).draft_layers
    shapes = {tensor.name: tensor.shape for tensor in draft.tensors}
    assert draft.attention == attention_of(published(LARGE), 3)
    assert shapes["mtp.fc.weight"] == (5120, 2 * 5120)
    assert shapes["mtp.layers.{}.mlp.gate_up_proj.weight"] == (2 * 17408, 5120)


@pytest.mark.parametrize(
    ("folder", "changes", "number"),
    [
        pytest.param(NEXT, {}, 1, id="one where nothing is said"),
        pytest.param(NEXT, {"num_nextn_predict_layers": 2}, 2, id="as many as are said"),
        pytest.param(TEXT, {"mtp_num_hidden_layers": 0}, 0, id="none"),
    ],
)
def test_draft_layers_are_as_many_as_the_field_says(
    folder: str, changes: dict[str, Any], number: int
) -> None:
    assert len(profile_of(config_of(folder), **changes).draft_layers) == number


def test_dense_layers_among_experts() -> None:
    profile = profile_of(config_of(NEXT), mlp_only_layers=[0, 2])
    kinds = [isinstance(layer.feed_forward, MoeProfile) for layer in profile.layers]
    assert kinds == [False, True, False, *([True] * 9)]


def test_queries_without_gates_are_half_as_wide() -> None:
    stored = stored_tensors(profile_of(config_of(NEXT), attn_output_gate=False))
    assert stored["model.layers.3.self_attn.q_proj.weight"] == (4096, 2048)
