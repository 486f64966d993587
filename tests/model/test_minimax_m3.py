"""MiniMax M3: which layers are sparse, the indexer in the fused projection, names in the checkpoint, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.layout import RankLayout
from stowage.memory.quantized.fit import misfit
from stowage.memory.weights import rank_tensors
from stowage.model.architectures import stored_tensors
from stowage.model.config_json import read_profile
from stowage.model.profile import AttentionProfile, MlpProfile, ModelProfile, MoeProfile
from stowage.model.quantization.apply import with_quantization
from tests.memory.support import H100, ledger_of
from tests.model.support import config_of, profile_of, published, summary_of

M3 = "MiniMaxAI--MiniMax-M3"
LAYER = "language_model.model.layers"
INDEX: dict[str, Any] = {"sparse_index_dim": 128, "sparse_num_index_heads": 4}


def text(**changes: Any) -> dict[str, Any]:
    """Give the published file with other fields of the language model; None leaves one out."""
    config = config_of(M3)
    fields = {**config["text_config"], **changes}
    return {**config, "text_config": {name: value for name, value in fields.items() if value is not None}}


def kinds(profile: ModelProfile) -> list[tuple[int, bool]]:
    """Give for each layer the size of the indexer's key, and whether it has experts."""
    found = []
    for layer in profile.layers:
        (mixer,) = layer.mixers
        assert isinstance(mixer, AttentionProfile)
        found.append((mixer.index_dim, isinstance(layer.feed_forward, MoeProfile)))
    return found


def test_the_first_layers_are_dense_in_both_ways() -> None:
    profile = published(M3)
    assert kinds(profile) == [(0, False)] * 3 + [(128, True)] * 3
    assert profile.layers[0].feed_forward == MlpProfile(12288)
    assert profile.layers[3].feed_forward == MoeProfile(128, 4, 3072, 3072)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"sparse_attention_config": INDEX, "moe_layer_freq": None},
            [(0, False)] * 3 + [(128, True)] * 3,
            id="absent lists: all but the first three",
        ),
        pytest.param(
            {
                "moe_layer_freq": [1, 0, 0, 0, 0, 0],
                "sparse_attention_config": dict(INDEX, sparse_attention_freq=[0] * 6),
            },
            [(0, True)] + [(0, False)] * 5,
            id="lists of their own for experts and attention",
        ),
    ],
)
def test_each_layer_is_of_the_kind_that_its_list_says(
    changes: dict[str, Any], expected: list[tuple[int, bool]]
) -> None:
    assert kinds(profile_of(text(**changes))) == expected


@pytest.mark.parametrize(
    ("tp", "rows"),
    [
        pytest.param(1, 64 * 128 + 3 * 4 * 128 + 128, id="one rank"),
        pytest.param(4, 16 * 128 + 3 * 128 + 128, id="a head of each for every rank, and the shared key"),
        pytest.param(8, 8 * 128 + 3 * 128 + 128, id="more ranks than heads repeat them"),
    ],
)
def test_the_indexers_queries_are_divided_like_keys_and_its_key_is_not(tp: int, rows: int) -> None:
    shapes = dict(rank_tensors(published(M3), RankLayout(tp, 1, 0)))
    assert shapes[f"{LAYER}.3.self_attn.qkv_proj.weight"] == (rows, 6144)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param(f"{LAYER}.3.self_attn.index_q_proj.weight", (512, 6144), id="queries of the indexer"),
        pytest.param(f"{LAYER}.3.self_attn.index_k_proj.weight", (128, 6144), id="its key"),
        pytest.param(f"{LAYER}.5.block_sparse_moe.experts.127.w2.weight", (6144, 3072), id="an expert"),
        pytest.param(f"{LAYER}.5.block_sparse_moe.shared_experts.up_proj.weight", (3072, 6144), id="the shared one"),
        pytest.param("multi_modal_projector.linear_1.weight", (6144, 1280), id="the projector"),
        pytest.param("patch_merge_mlp.linear_1.weight", (6144, 24576), id="the merger"),
        pytest.param(
            "vision_tower.vision_model.encoder.layers.31.mlp.fc2.weight", (1280, 5120), id="a layer of the tower"
        ),
    ],
)  # fmt: skip
def test_names_in_the_checkpoint(name: str, shape: tuple[int, ...]) -> None:
    assert stored_tensors(published(M3))[name] == shape


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"hidden_act": "gelu"}, "hidden_act", id="another activation"),
        pytest.param({"num_key_value_heads": 8}, "sparse_num_index_heads", id="fewer index heads than key heads"),
        pytest.param({"attention_output_gate": True}, "attention_output_gate", id="a gate that the engine lacks"),
        pytest.param({"moe_layer_freq": [0]}, "moe_layer_freq", id="a list that is too short"),
    ],
)  # fmt: skip
def test_what_is_refused(changes: dict[str, Any], words: str) -> None:
    answer = read_profile(summary_of(text(**changes)))
    assert isinstance(answer, Refusal)
    assert words in answer.sentence


def test_blocks_of_8_bits_must_not_be_cut_in_any_part_of_the_fused_projection() -> None:
    """At TP 4 each part is one block of 128 rows; the indexer's key stays whole."""
    quantised = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    config = {**config_of(M3), "quantization_config": quantised}
    profile = with_quantization(published(M3), summary_of(config))
    assert isinstance(profile, ModelProfile)
    (qkv,) = (each for each in profile.layers[3].tensors if each.name.endswith("qkv_proj.weight"))
    assert misfit(qkv, RankLayout(4, 1, 0), "bfloat16", (0, 32, 0)) is None


def test_sparse_layers_keep_keys_of_the_indexer_in_blocks_of_128() -> None:
    """Six layers of 4 key/value heads of 128, three of them with an indexer's key of 128 elements."""
    entry = ledger_of(published(M3), H100, tensor_parallel_size=8)
    assert entry.block_size == 128
    assert entry.kv_bytes_per_token == 6 * 2 * 128 * 2 + 3 * 128 * 2
    quantised = ledger_of(published(M3), H100, tensor_parallel_size=8, kv_cache_dtype="fp8")
    assert quantised.kv_bytes_per_token == 6 * 2 * 128 + 3 * 128 * 2
