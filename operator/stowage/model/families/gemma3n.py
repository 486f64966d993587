"""Gemma 3n: alternating updates, augmented residuals, per-layer embeddings, and layers that share caches.

The last `num_kv_shared_layers` read the keys and values of an earlier layer and keep none. The reader takes a
whole configuration or the text part of a multimodal one. Sources: vLLM's `models/gemma3n.py` (0.32.0), which
does not support pipeline parallelism, and transformers' `Gemma3nTextConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    cache_scales,
    column_linear,
    elsewhere,
    embedding_and_head,
    gated_mlp,
    replicated_linear,
    rope_tables,
    row_linear,
    whole,
)
from stowage.model.class_defaults import with_class_defaults
from stowage.model.config_fields import count, flag
from stowage.model.families.decoder import buffer
from stowage.model.families.gemma4 import attention_tensors
from stowage.model.families.moe_layers import list_of, read_heads, repeat_layers
from stowage.model.families.per_layer_inputs import per_layer_block, per_layer_outer
from stowage.model.families.rotary_types import rotary_tables
from stowage.model.families.tower_parts import renamed, with_prefixes
from stowage.model.families.windows import FULL, SLIDING, every_nth_full, layer_types
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile
from stowage.model.rope import Rope, no_rope
from stowage.model.tensors import ParameterTensor, Place, Shard

Config = Mapping[str, Any]

_INTERVAL: Final = 5
"""Each fifth layer sees everything where layer_types is absent (Gemma3nTextConfig)."""
_LAYER: Final = "model.layers.{}"
_NORMS: Final = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def read_gemma3n(config: Config) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    full = with_class_defaults(config, "gemma3n_text")
    number, head_dim = count(full, "num_hidden_layers"), count(full, "head_dim")
    types = layer_types(full, number) or every_nth_full(number, _INTERVAL)
    first_shared = number - (full.get("num_kv_shared_layers") or 0)
    widths = _widths(full, number)
    tables = rotary_tables(full, types, {SLIDING: head_dim, FULL: head_dim})
    limit = no_rope(full)
    return Anatomy(
        hidden_size=count(full, "hidden_size"),
        vocab_size=count(full, "vocab_size"),
        layers=repeat_layers(
            number,
            lambda index: (types[index] == FULL, index >= first_shared, widths[index]),
            lambda kind: _layer(full, *kind),
        ),
        outer_tensors=(*_outer(full), *rope_tables(*tables)),
        tie_word_embeddings=True,
        rope=Rope(tables[-1], limit.max_model_len, limit.default_max_model_len),
        supports_pipeline=False,
    )


READERS: Final = {"Gemma3nForCausalLM": read_gemma3n}
"""The architectures of this file and their readers."""


def _widths(config: Config, number: int) -> list[int]:
    """Read the width of every feed-forward block: one for all, or a list."""
    if isinstance(config.get("intermediate_size"), list):
        stated = list_of(config, "intermediate_size", number) or []
        return [count({"intermediate_size": width}, "intermediate_size") for width in stated]
    return [count(config, "intermediate_size")] * number


def _layer(config: Config, is_full: bool, shares_cache: bool, width: int) -> LayerProfile:
    hidden, bias = count(config, "hidden_size"), flag(config, "attention_bias")
    heads, kv_heads = read_heads(config)
    attention = AttentionProfile(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=count(config, "head_dim"),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
        sliding_window=None if is_full else count(config, "sliding_window"),
        shares_cache=shares_cache,
    )
    mlp = MlpProfile(width)
    tensors = (
        *_alternating_updates(config, hidden),
        *attention_tensors(attention, hidden),
        *gated_mlp(f"{_LAYER}.mlp", mlp, hidden),
        *_augmented_residual(hidden, count(config, "laurel_rank")),
        *per_layer_block(config),
        *(whole(f"{_LAYER}.{name}.weight", (hidden,)) for name in _NORMS),
        *cache_scales(f"{_LAYER}.self_attn.attn"),
    )
    return LayerProfile((attention,), mlp, tensors)


def _alternating_updates(config: Config, hidden: int) -> Tensors:
    """Give what predicts and corrects the parallel copies of the hidden state."""
    copies, prefix = count(config, "altup_num_inputs"), f"{_LAYER}.altup"
    return (
        whole(f"{prefix}.correct_output_scale", (hidden,), element_bytes=4),
        *replicated_linear(f"{prefix}.correction_coefs", copies, copies),
        *replicated_linear(f"{prefix}.prediction_coefs", copies**2, copies),
        *replicated_linear(f"{prefix}.modality_router", copies, hidden),
        whole(f"{prefix}.router_norm.weight", (hidden,)),
        ParameterTensor(f"{prefix}.router_input_scale", (), Shard.REPLICATED, Place.LAYER),
    )


def _augmented_residual(hidden: int, rank: int) -> Tensors:
    prefix = f"{_LAYER}.laurel"
    return (
        *column_linear(f"{prefix}.linear_left", {f"{prefix}.linear_left": rank}, hidden),
        *row_linear(f"{prefix}.linear_right", hidden, rank),
        whole(f"{prefix}.post_laurel_norm.weight", (hidden,)),
    )


def _outer(config: Config) -> Tensors:
    """Give what stands outside of the layers; the engine keeps most of it in a part called self_decoder."""
    hidden, root = count(config, "hidden_size"), "model.self_decoder"
    inside = with_prefixes({"model.": f"{root}."})
    ends = embedding_and_head(count(config, "vocab_size"), hidden, tied=True)
    copies = range(count(config, "altup_num_inputs") - 1)
    into = [_square(f"model.altup_projections.{index}", hidden) for index in copies]
    out_of = [_square(f"model.altup_unembed_projections.{index}", hidden) for index in copies]
    own = (*ends, *(tensor for pair in into for tensor in pair))
    kept = tuple(renamed(tensor, inside, lambda name: name) for tensor in own)
    return (
        *elsewhere((*kept, *(tensor for pair in out_of for tensor in pair)), Place.EVERY),
        whole("model.norm.weight", (hidden,), place=Place.EVERY),
        buffer(f"{root}.embed_scale"),
        *per_layer_outer(config, root),
    )


def _square(name: str, size: int) -> Tensors:
    return column_linear(name, {name: size}, size)
