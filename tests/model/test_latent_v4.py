"""DeepSeek V4: kinds of layers, names in the checkpoint, tables by stage, formats of experts, and refusals."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.constraints import check_parallelism
from stowage.memory.layout import RankLayout
from stowage.memory.weights import rank_tensors, rank_weights
from stowage.model.config_json import read_profile
from stowage.model.profile import LatentAttentionProfile, ModelProfile
from stowage.model.tensors import ParameterTensor, Scheme
from tests.model.support import config_of, profile_of, summary_of
from tests.model.test_latent import plain

V4 = "deepseek-ai--DeepSeek-V4-Flash"
WHOLE = {"num_hidden_layers": 43, "compress_ratios": [0, 0, *([4, 128] * 20), 4, 0]}


def mixers(profile: ModelProfile) -> list[LatentAttentionProfile]:
    """Give the attention of every layer."""
    found = [layer.mixers[0] for layer in profile.layers]
    assert all(isinstance(mixer, LatentAttentionProfile) for mixer in found)
    return found  # type: ignore[return-value]


def layer_tensors(profile: ModelProfile, layer: int) -> dict[str, ParameterTensor]:
    """Give a layer's tensors by what follows its number."""
    return {tensor.name.removeprefix("model.layers.{}."): tensor for tensor in profile.layers[layer].tensors}


def test_layers_keep_what_their_ratio_says() -> None:
    found = mixers(plain(V4))
    assert [mixer.tokens_per_state for mixer in found] == [0, 0, 4, 128, 4, 128]
    assert [mixer.index_head_dim for mixer in found] == [None, None, 128, None, 128, None]
    assert {(mixer.latent_dim, mixer.sliding_window, mixer.output_groups) for mixer in found} == {
        (512, 128, 8)
    }


@pytest.mark.parametrize(
    ("layer", "compressor", "indexer"),
    [
        pytest.param(0, None, None, id="a window only"),
        pytest.param(
            2, (2 * 2 * 512, 4096), (2 * 2 * 128, 4096), id="4 tokens: twice as wide, and an indexer"
        ),
        pytest.param(3, (2 * 512, 4096), None, id="128 tokens"),
    ],
)
def test_compressors(layer: int, compressor: tuple[int, int] | None, indexer: tuple[int, int] | None) -> None:
    shapes = {name: tensor.shape for name, tensor in layer_tensors(plain(V4), layer).items()}
    assert shapes.get("attn.compressor.fused_wkv_wgate.weight") == compressor
    assert shapes.get("attn.indexer.compressor.fused_wkv_wgate.weight") == indexer


@pytest.mark.parametrize(
    ("layer", "by_token"),
    [pytest.param(2, True, id="the last that looks up"), pytest.param(3, False, id="the first that scores")],
)
def test_routing_by_token(layer: int, by_token: bool) -> None:
    tensors = layer_tensors(plain(V4), layer)
    assert ("ffn.gate.tid2eid" in tensors) == by_token
    assert ("ffn.gate.e_score_correction_bias" in tensors) != by_token
    if by_token:
        assert tensors["ffn.gate.tid2eid"].shape == (129280, 6)
        assert tensors["ffn.gate.tid2eid"].element_bytes == 4


def test_the_whole_model_has_its_known_number_of_parameters() -> None:
    """284,332,230,231 without look-up tables and score corrections, which are no parameters of training."""
    profile = plain(V4, **WHOLE)
    tensors = [*profile.outer_tensors, *(tensor for layer in profile.layers for tensor in layer.tensors)]
    elements = sum(prod(tensor.shape) for tensor in tensors if tensor.stored)
    assert elements - 3 * 129280 * 6 - 40 * 256 == 284_332_230_231


def test_names_in_the_checkpoint() -> None:
    tensors = layer_tensors(plain(V4), 2)
    stored = {name: [kept.name for kept in tensor.stored] for name, tensor in tensors.items()}
    assert stored["attn.fused_wqa_wkv.weight"] == ["layers.{}.attn.wq_a.weight", "layers.{}.attn.wkv.weight"]
    assert stored["ffn.shared_experts.down_proj.weight"] == ["layers.{}.ffn.shared_experts.w2.weight"]
    assert stored["ffn.experts.routed_experts.w2_weight"][255] == "layers.{0}.ffn.experts.255.w2.weight"
    assert stored["hc_attn_fn"] == ["layers.{}.hc_attn_fn"]
    outer = {tensor.name: [kept.name for kept in tensor.stored] for tensor in plain(V4).outer_tensors}
    assert outer["model.embed_tokens.weight"] == ["embed.weight"]
    assert outer["lm_head.weight"] == ["head.weight"]
    assert outer["model.hc_head_base"] == ["hc_head_base"]
    assert [kept.name for kept in layer_tensors(plain(V4), 3)["ffn.gate.e_score_correction_bias"].stored] == [
        "layers.{}.ffn.gate.bias"
    ]


@pytest.mark.parametrize(
    ("stage", "tables"),
    [
        pytest.param(0, 2, id="layers with and without compression"),
        pytest.param(1, 1, id="with compression only"),
    ],
)
def test_rotary_tables_lie_where_layers_use_them(stage: int, tables: int) -> None:
    profile = plain(V4)
    held = [size for name, size in rank_tensors(profile, RankLayout(1, 2, stage)) if "rotary" in name]
    assert held == [(1048576, 64)] * tables


def test_rotary_tables_are_in_32_bits_and_newer_checkpoints_state_two() -> None:
    scaling = {"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 65536}
    stated = {"main": {"rope_type": "default"}, "compress": scaling}
    profile = plain(V4, "rope_scaling", rope_parameters=stated)
    tables = [tensor for tensor in profile.outer_tensors if "rotary" in tensor.name]
    assert [(table.shape, table.element_bytes) for table in tables] == [((524288, 64), 4), ((1048576, 64), 4)]


def test_the_draft_layer_has_no_compressor_and_streams_of_its_own() -> None:
    (draft,) = plain(V4).draft_layers
    names = {tensor.name.removeprefix("model.layers.{}.") for tensor in draft.tensors}
    assert {
        "e_proj.weight",
        "h_proj.weight",
        "enorm.weight",
        "hc_head_fn",
        "shared_head.norm.weight",
    } <= names
    assert "mtp_block.attn.wq_b.weight" in names
    assert not any("compressor" in name or "tid2eid" in name for name in names)
    stored = {kept.name for tensor in draft.tensors for kept in tensor.stored}
    assert {"mtp.0.attn.wq_b.weight", "mtp.0.e_proj.weight", "mtp.0.ffn.gate.bias"} <= stored


@pytest.mark.parametrize(
    ("changes", "weight", "scale_bytes"),
    [
        pytest.param({}, "mxfp4", 1, id="4 bits where config.json does not say"),
        pytest.param({"expert_dtype": "fp8"}, "fp8", 4, id="8 bits"),
    ],
)
def test_experts_have_a_format_of_their_own(changes: dict[str, Any], weight: str, scale_bytes: int) -> None:
    config = {k: v for k, v in config_of(V4).items() if k != "expert_dtype"}
    tensors = layer_tensors(profile_of({**config, **changes}), 3)
    schemes = {name: _scheme(tensors[f"{name}weight"]) for name in _LINEAR}
    assert schemes["ffn.experts.routed_experts.w2_"].weight == weight
    assert {schemes[name].weight for name in _LINEAR if "experts.routed" not in name} == {"fp8"}
    assert schemes["attn.wq_b."].scale_bytes == scale_bytes
    assert tensors["attn.compressor.fused_wkv_wgate.weight"].linear is None


_LINEAR = ("ffn.experts.routed_experts.w2_", "attn.wq_b.", "attn.wo_a.", "ffn.shared_experts.down_proj.")


def _scheme(tensor: ParameterTensor) -> Scheme:
    assert tensor.linear is not None
    assert tensor.linear.scheme is not None
    return tensor.linear.scheme


def test_4_bit_experts_are_a_quarter_of_16_bit_ones() -> None:
    """17 bits for every 32 of a value and its share of a scale: 0.53125 bytes an element."""
    layout, name = RankLayout(1, 1, 0), "model.layers.3.ffn.experts.routed_experts"
    packed = dict(rank_tensors(profile_of(config_of(V4)), layout))
    held = sum(prod(size) for key, size in packed.items() if key.startswith(f"{name}.w2_"))
    assert held == 256 * 4096 * 2048 * 17 // 32
    assert rank_weights(profile_of(config_of(V4)), layout, "bfloat16").tensor_bytes < 0.31 * (
        rank_weights(plain(V4), layout, "bfloat16").tensor_bytes
    )


def test_groups_of_the_output_projection_are_divided_whole() -> None:
    answer = check_parallelism(plain(V4), 16, 1)
    assert isinstance(answer, Refusal)
    assert "8 groups of the output projection" in answer.message
    assert check_parallelism(plain(V4), 8, 1) is None


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        pytest.param(
            {"compress_ratios": [0, 0, 8, 128, 4, 128]}, "UnsupportedArchitecture", "compress_ratios", id="8"
        ),
        pytest.param({"compress_ratios": [0, 0]}, "InvalidModelConfig", "compress_ratios", id="too short"),
        pytest.param({"compress_ratios": None}, "InvalidModelConfig", "compress_ratios", id="absent"),
        pytest.param({"num_hash_layers": "3"}, "InvalidModelConfig", "num_hash_layers", id="no number"),
        pytest.param({"vision_n_layers": 2}, "UnsupportedArchitecture", "vision_n_layers", id="a tower"),
        pytest.param(
            {"expert_dtype": "int4"},
            "UnsupportedQuantization",
            "expert_dtype",
            id="another format of experts",
        ),
    ],
)
def test_what_is_refused(changes: dict[str, Any], reason: str, words: str) -> None:
    answer = read_profile(summary_of({**config_of(V4), **changes}))
    assert isinstance(answer, Refusal)
    assert (answer.reason.value, words in answer.message) == (reason, True)
