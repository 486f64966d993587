"""MiniMax M3: dense layers first, then sparse ones whose attention chooses blocks of keys, with experts.

Sparse layers project queries and one shared key of an indexer along with query, key and value; the engine wants as
many index heads as key/value heads. Sources: `vllm/models/minimax_m3/nvidia/model.py`, `common/vision_tower.py`,
`transformers_utils/configs/minimax_m3.py` for absent fields (0.32.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    attention_output,
    cache_scales,
    column_linear,
    experts,
    gated_mlp,
    head_norms,
    qkv_linear,
    row_linear,
    whole,
)
from stowage.model.config_fields import BadField, count, flag, mapping, refuse_features, word
from stowage.model.encoder_defaults import encoder_default
from stowage.model.families.moe_layers import (
    Config,
    Router,
    list_of,
    outer_tensors,
    read_heads,
    repeat_layers,
    router_tensors,
)
from stowage.model.families.tower_parts import (
    LayerNames,
    LayerSize,
    TowerAnatomy,
    affine,
    buffer,
    encoder_layer,
    norm,
    numbered,
    renamed,
    tower_tensors,
    with_prefixes,
)
from stowage.model.profile import AttentionProfile, EncoderProfile, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import Rope, read_rope
from stowage.model.tensors import ParameterTensor, StoredTensor, Tower

_LAYER: Final = "model.layers.{}"
_DENSE_LAYERS: Final = 3
_ROUTER: Final = Router(fp32=True, correction="e_score_correction_bias")
_TOWER: Final = Tower(("image", "video"))
_TOWER_LAYER: Final = LayerNames(
    ("layer_norm1", "layer_norm2"), "self_attn.qkv_proj", "self_attn.out_proj", "fc1", "fc2",
    qkv_parts=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), up_parts=("mlp.fc1",),
    stored_down="mlp.fc2",
)  # fmt: skip
_STORED_ELSEWHERE: Final = ("multi_modal_projector.", "patch_merge_mlp.")


def read_minimax_m3(config: Config) -> Anatomy:
    """Read the language model; raises BadField for missing, wrong or not supported values."""
    if word(config, "hidden_act") not in (None, "swigluoai"):
        raise BadField(
            f"config.json says hidden_act: {config['hidden_act']!r}; MiniMax M3 is served with swigluoai."
        )
    refuse_features({**config, "hidden_act": None}, "attention_output_gate")
    hidden_size, vocab_size = count(config, "hidden_size", 6144), count(config, "vocab_size", 200064)
    number, rope = count(config, "num_hidden_layers", 60), _rope(config)
    tied = flag(config, "tie_word_embeddings")
    sparse = _listed(mapping(config, "sparse_attention_config"), "sparse_attention_freq", number)
    routed = _listed(config, "moe_layer_freq", number)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(
            number, lambda layer: (sparse[layer], routed[layer]), partial(_layer, config, hidden_size)
        ),
        outer_tensors=outer_tensors(vocab_size, hidden_size, rope.cache, tied=tied),
        tie_word_embeddings=tied,
        rope=rope,
    )


READERS: Final = {"MiniMaxM3SparseForCausalLM": read_minimax_m3}
"""The architectures of this file and their readers."""


def _rope(config: Config) -> Rope:
    head_dim = count(config, "head_dim", 128)
    rotary = count(config, "rotary_dim", 64)
    context = count(config, "max_position_embeddings", 524288)
    stated = {**config, "partial_rotary_factor": rotary / head_dim, "max_position_embeddings": context}
    return read_rope(stated, head_dim)


def _listed(config: Config, name: str, number: int) -> list[bool]:
    """Read for each layer whether it is of the sparse kind; absent means all but the first three."""
    values = list_of(config, name, number)
    return [layer >= _DENSE_LAYERS if values is None else bool(values[layer]) for layer in range(number)]


def _attention(config: Config, sparse: bool) -> AttentionProfile:
    heads, kv_heads = read_heads({"num_attention_heads": 64, "num_key_value_heads": 4, **config})
    head_dim, index = count(config, "head_dim", 128), mapping(config, "sparse_attention_config")
    attention = AttentionProfile(heads, kv_heads, head_dim, qk_norm=True)
    if not sparse:
        return attention
    if count(index, "sparse_num_index_heads", kv_heads) != kv_heads:
        raise BadField("config.json has sparse_num_index_heads that are not as many as num_key_value_heads.")
    return replace(attention, index_dim=count(index, "sparse_index_dim", head_dim))


def _layer(config: Config, hidden_size: int, kind: tuple[bool, bool]) -> LayerProfile:
    sparse, routed = kind
    attention = _attention(config, sparse)
    tensors = (
        *_attention_tensors(f"{_LAYER}.self_attn", attention, hidden_size),
        whole(f"{_LAYER}.input_layernorm.weight", (hidden_size,)),
        whole(f"{_LAYER}.post_attention_layernorm.weight", (hidden_size,)),
    )
    if not routed:
        mlp = MlpProfile(count(config, "dense_intermediate_size", 12288))
        return LayerProfile((attention,), mlp, (*tensors, *gated_mlp(f"{_LAYER}.mlp", mlp, hidden_size)))
    inner = count(config, "intermediate_size", 3072)
    shared = inner * count(config, "n_shared_experts", 1) if config.get("n_shared_experts", 1) else 0
    moe = MoeProfile(
        count(config, "num_local_experts", 128), count(config, "num_experts_per_tok", 4), inner, shared
    )
    return LayerProfile((attention,), moe, (*tensors, *_experts(config, moe, hidden_size)))


def _experts(config: Config, moe: MoeProfile, hidden_size: int) -> Tensors:
    block = f"{_LAYER}.block_sparse_moe"
    rule = _ROUTER if flag(config, "use_routing_bias", True) else replace(_ROUTER, correction=None)
    tensors = (
        *router_tensors(block, rule, moe.num_experts, hidden_size, stored=block),
        *experts(
            f"{block}.experts", moe, hidden_size, stored=f"{block}.experts.{{}}", parts=("w1", "w3", "w2")
        ),
    )
    if not moe.shared_intermediate_size:
        return tensors
    shared = MlpProfile(moe.shared_intermediate_size)
    return (*tensors, *gated_mlp(f"{block}.shared_experts", shared, hidden_size))


def _attention_tensors(prefix: str, attention: AttentionProfile, hidden_size: int) -> Tensors:
    norms = head_norms(prefix, attention)
    out = attention_output(prefix, attention, hidden_size)
    (qkv,) = qkv_linear(prefix, attention, hidden_size)
    if not attention.index_dim:
        return (qkv, *out, *norms, *cache_scales(f"{prefix}.attn"))
    index_norms = tuple(
        whole(f"{prefix}.{name}.weight", (attention.index_dim,)) for name in ("index_q_norm", "index_k_norm")
    )
    return (
        _with_indexer(qkv, prefix, attention, hidden_size), *out, *norms, *index_norms, *cache_scales(prefix)
    )  # fmt: skip


def _with_indexer(
    qkv: ParameterTensor, prefix: str, attention: AttentionProfile, hidden_size: int
) -> ParameterTensor:
    """Add the indexer's queries, divided like key heads, and its key, which every rank has."""
    size, linear = attention.index_dim, qkv.linear
    rows = {f"{prefix}.index_q_proj": attention.num_kv_heads * size, f"{prefix}.index_k_proj": size}
    if linear is None or qkv.heads is None:
        raise ValueError(f"{qkv.name} is no projection of heads")
    return replace(
        qkv,
        shape=(qkv.shape[0] + sum(rows.values()), hidden_size),
        heads=replace(qkv.heads, index_dim=size),
        stored=(*qkv.stored, *(StoredTensor(f"{part}.weight", (n, hidden_size)) for part, n in rows.items())),
        linear=replace(
            linear, parts=(*linear.parts, *rows), out_sizes=(*linear.out_sizes, *rows.values())
        ),
    )  # fmt: skip


def read_minimax_m3_tower(config: Mapping[str, Any], text_hidden: int) -> TowerAnatomy:
    """Read tower, projector and merger from the whole config.json."""
    vision = mapping(config, "vision_config")
    hidden, layers = count(vision, "hidden_size", 1280), count(vision, "num_hidden_layers", 32)
    inner, heads = count(vision, "intermediate_size", 5120), count(vision, "num_attention_heads", 16)
    patch, compressed = count(vision, "patch_size", 14), mapping(vision, "img_token_compression_config")
    merge, time = count(compressed, "spatial_merge_size", 2), count(compressed, "temporal_patch_size", 2)
    between = count(config, "projector_hidden_size", text_hidden)
    quarter = hidden // heads // 2 // 3
    tensors = (
        *affine("vision_model.embeddings.patch_embedding", (hidden, 3, time, patch, patch), bias=None),
        *norm("vision_model.pre_layrnorm", hidden),
        *numbered(
            encoder_layer("vision_model.encoder.layers.{}", _TOWER_LAYER, LayerSize(hidden, inner)), layers
        ),
        *_two_layers("multi_modal_projector", hidden, between, text_hidden),
        *_two_layers("patch_merge_mlp", text_hidden * merge**2, between, text_hidden),
        *(buffer(f"vision_model.inv_freq_{axis}", (quarter,), 4) for axis in "thw"),
    )
    named = tower_tensors(tensors, _TOWER, engine="vision_tower.")
    at_root = with_prefixes({f"vision_tower.{name}": name for name in _STORED_ELSEWHERE})
    unit = (patch * merge) ** 2
    image = encoder_default("minimax_m3", "image_max_pixels") // unit
    frame = encoder_default("minimax_m3", "video_frame_max_pixels") // unit
    video = encoder_default("minimax_m3", "video_max_frames") // time * frame
    return TowerAnatomy(
        tuple(renamed(tensor, lambda name: name, at_root) for tensor in named),
        tuple(
            EncoderProfile(
                modality, hidden, inner, layers, heads, tokens, tokens * merge**2, text_hidden,
                frame_tokens=step,
            )
            for modality, tokens, step in (("image", image, 0), ("video", video, frame))
        ),
    )  # fmt: skip


def _two_layers(name: str, in_size: int, between: int, out_size: int) -> Tensors:
    return (
        *column_linear(f"{name}.linear_1", {f"{name}.linear_1": between}, in_size, bias=True),
        *row_linear(f"{name}.linear_2", out_size, between, bias=True),
    )
