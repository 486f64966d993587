"""Gemma 4: heads of two sizes, layers that share keys and values, per-layer embeddings, experts beside an MLP.

Full layers have wider heads than sliding ones (and, with `attention_k_eq_v`, other key/value heads whose
values are their keys); the last `num_kv_shared_layers` read the cache of an earlier layer. The reader takes a
whole configuration or the text part of a multimodal one. Sources: vLLM's `models/gemma4.py` (0.32.0) and
transformers' `Gemma4TextConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    cache_scales,
    column_linear,
    elsewhere,
    embedding_and_head,
    gated_mlp,
    head_norms,
    qkv_linear,
    rope_tables,
    router,
    row_linear,
    whole,
)
from stowage.model.class_defaults import with_class_defaults
from stowage.model.config_fields import BadField, UnsupportedFeature, count, flag, mapping, text_config
from stowage.model.families.decoder import buffer
from stowage.model.families.moe_layers import read_heads, repeat_layers, stacked_experts
from stowage.model.families.per_layer_inputs import per_layer_block, per_layer_outer
from stowage.model.families.rotary_types import rotary_tables
from stowage.model.families.windows import FULL, every_nth_full, layer_types
from stowage.model.profile import AttentionProfile, FeedForward, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import Rope, no_rope
from stowage.model.tensors import ParameterTensor, Place, Shard, StoredTensor

Config = Mapping[str, Any]

_INTERVAL: Final = 6
"""Each sixth layer sees everything where layer_types is absent (Gemma4TextConfig)."""
_LAYER: Final = "model.layers.{}"
_NORMS: Final = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_EXPERT_NORMS: Final = (
    "post_feedforward_layernorm_1",
    "post_feedforward_layernorm_2",
    "pre_feedforward_layernorm_2",
)


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What one layer differs in from others: its heads, its window, and whether it keeps a cache."""

    head_dim: int
    num_kv_heads: int
    window: int | None
    shares_cache: bool
    keys_are_values: bool
    intermediate_size: int


def read_gemma4(config: Config) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    full = with_class_defaults(text_config(config), "gemma4_text")
    if full.get("use_bidirectional_attention") == "all":
        raise UnsupportedFeature(
            "A Gemma with bidirectional attention (an embedding model) is not supported."
        )
    number, types = count(full, "num_hidden_layers"), _types(full)
    kinds = [_kind(full, types, index) for index in range(number)]
    head_dims = {kind: layer.head_dim for kind, layer in zip(types, kinds, strict=True)}
    tables = rotary_tables(full, types, head_dims)
    limit = no_rope(full)
    return Anatomy(
        hidden_size=count(full, "hidden_size"),
        vocab_size=count(full, "vocab_size"),
        layers=repeat_layers(number, kinds.__getitem__, lambda kind: _layer(full, kind)),
        outer_tensors=(*_outer(full), *rope_tables(*tables)),
        tie_word_embeddings=flag(full, "tie_word_embeddings"),
        rope=Rope(tables[-1], limit.max_model_len, limit.default_max_model_len),
    )


READERS: Final = {"Gemma4ForCausalLM": read_gemma4}
"""The architectures of this file and their readers."""


def _types(config: Config) -> tuple[str, ...]:
    number = count(config, "num_hidden_layers")
    types = layer_types(config, number) or every_nth_full(number, _INTERVAL)
    return (*types[:-1], FULL)


def _kind(config: Config, types: tuple[str, ...], index: int) -> LayerKind:
    first_shared = len(types) - (config.get("num_kv_shared_layers") or 0)
    shares = index >= first_shared
    is_full = types[index] == FULL
    own = _own_fields(config, is_full, index)
    wide = flag(config, "use_double_wide_mlp") and shares
    return LayerKind(
        head_dim=count(own, "head_dim", count(config, "head_dim")),
        num_kv_heads=count(own, "num_key_value_heads", count(config, "num_key_value_heads")),
        window=None if is_full else count(config, "sliding_window"),
        shares_cache=shares,
        keys_are_values=is_full and not shares and flag(config, "attention_k_eq_v"),
        intermediate_size=count(config, "intermediate_size") * (2 if wide else 1),
    )


def _own_fields(config: Config, is_full: bool, index: int) -> Config:
    """Give the fields that hold for one layer only: stated for it, or those of full layers."""
    stated = mapping(config, "per_layer_config")
    if stated:
        return mapping(stated, str(index))
    if not is_full:
        return {}
    kv_heads = config.get("num_global_key_value_heads") if flag(config, "attention_k_eq_v") else None
    return {"head_dim": config.get("global_head_dim"), "num_key_value_heads": kv_heads}


def _layer(config: Config, kind: LayerKind) -> LayerProfile:
    hidden = count(config, "hidden_size")
    bias = flag(config, "attention_bias")
    heads, _ = read_heads({**config, "num_key_value_heads": kind.num_kv_heads})
    attention = AttentionProfile(
        num_heads=heads,
        num_kv_heads=kind.num_kv_heads,
        head_dim=kind.head_dim,
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
        sliding_window=kind.window,
        shares_cache=kind.shares_cache,
    )
    feed_forward, further = _feed_forward(config, kind.intermediate_size, hidden)
    tensors = (
        *attention_tensors(attention, hidden, keys_are_values=kind.keys_are_values),
        *further,
        *(whole(f"{_LAYER}.{name}.weight", (hidden,)) for name in _NORMS),
        *per_layer_block(config),
        whole(f"{_LAYER}.layer_scalar", (1,)),
        *cache_scales(f"{_LAYER}.self_attn.attn"),
    )
    return LayerProfile((attention,), feed_forward, tensors)


def attention_tensors(attention: AttentionProfile, hidden: int, *, keys_are_values: bool = False) -> Tensors:
    """Give an attention block whose layer may share its cache: then only queries are projected and normed."""
    prefix = f"{_LAYER}.self_attn"
    width = attention.num_heads * attention.head_dim
    output = row_linear(f"{prefix}.o_proj", hidden, width, bias=attention.output_bias)
    norms = head_norms(prefix, attention)
    if attention.shares_cache:
        query = f"{prefix}.q_proj"
        return (*column_linear(query, {query: width}, hidden, bias=attention.qkv_bias), *output, norms[0])
    projections = qkv_linear(prefix, attention, hidden)
    if keys_are_values:
        projections = tuple(_without_values(tensor) for tensor in projections)
    return (*projections, *output, *norms)


def _without_values(tensor: ParameterTensor) -> ParameterTensor:
    """Take the value projection out of what is stored: the engine loads the keys twice."""
    linear = tensor.linear
    if linear is not None:
        linear = replace(linear, parts=linear.parts[:2])
    return replace(tensor, stored=tensor.stored[:2], linear=linear)


def _feed_forward(config: Config, inner: int, hidden: int) -> tuple[FeedForward, Tensors]:
    """Give the MLP and, where there are experts, these beside it as what every token shares."""
    mlp = MlpProfile(inner)
    tensors = gated_mlp(f"{_LAYER}.mlp", mlp, hidden)
    if config.get("num_experts") is None:
        return mlp, tensors
    width = config.get("moe_intermediate_size") or config.get("expert_intermediate_size")
    if width is None:
        raise BadField("config.json has num_experts and no moe_intermediate_size, which sizing needs.")
    moe = MoeProfile(
        num_experts=count(config, "num_experts"),
        num_experts_per_tok=count(config, "top_k_experts"),
        intermediate_size=count({"moe_intermediate_size": width}, "moe_intermediate_size"),
        shared_intermediate_size=inner,
    )
    return moe, (*tensors, *_experts(moe, hidden))


def _experts(moe: MoeProfile, hidden: int) -> Tensors:
    number, inner, prefix = moe.num_experts, moe.intermediate_size, f"{_LAYER}.experts"
    return (
        whole(f"{_LAYER}.router.scale", (hidden,)),
        whole(f"{_LAYER}.router.per_expert_scale", (number,)),
        *router(f"{_LAYER}.router.proj", number, hidden),
        ParameterTensor(f"{_LAYER}.router.root_size", (), Shard.REPLICATED, Place.LAYER),
        *stacked_experts(
            prefix,
            moe,
            hidden,
            gate_up=(StoredTensor(f"{prefix}.gate_up_proj", (number, 2 * inner, hidden)),),
            down=StoredTensor(f"{prefix}.down_proj", (number, hidden, inner)),
        ),
        *(whole(f"{_LAYER}.{name}.weight", (hidden,)) for name in _EXPERT_NORMS),
    )


def _outer(config: Config) -> Tensors:
    """Give what stands outside of the layers; the engine creates it on every pipeline stage."""
    hidden = count(config, "hidden_size")
    ends = embedding_and_head(count(config, "vocab_size"), hidden, tied=flag(config, "tie_word_embeddings"))
    return (
        *elsewhere(ends, Place.EVERY),
        whole("model.norm.weight", (hidden,), place=Place.EVERY),
        buffer("model.normalizer"),
        *per_layer_outer(config, "model"),
    )
