"""The skeleton of a dense decoder: reads the numbers from config.json and builds what a recipe describes.

Attention and feed-forward block of every layer, norms, embedding, head and rotary buffers. What an
architecture has besides comes from its recipe; no architecture is named here.
"""

from __future__ import annotations

from dataclasses import replace

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    cache_scales,
    column_linear,
    elsewhere,
    embedding_and_head,
    qkv_linear,
    replicated_linear,
    rope_tables,
    row_linear,
    whole,
)
from stowage.model.class_defaults import with_class_defaults
from stowage.model.config_fields import UnsupportedFeature, count, flag
from stowage.model.families.moe_layers import read_head_dim, read_heads, repeat_layers, wide_norms
from stowage.model.families.recipe import Config, Flag, Norm, QkNorm, Recipe, Rotary
from stowage.model.families.tower_parts import renamed, with_prefixes
from stowage.model.families.windows import layer_windows
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile
from stowage.model.rope import Rope, no_rope, read_rope
from stowage.model.tensors import ParameterTensor, Place, QkvHeads, Shard, StoredTensor


def read_decoder(config: Config, recipe: Recipe) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    config = recipe.adapt(_with_rotary_part(with_class_defaults(config, recipe.model_type)))
    if config.get("is_causal") is False:
        raise UnsupportedFeature("A model with bidirectional attention (is_causal: false) is not supported.")
    attention = read_attention(config, recipe)
    rope = _rope(config, recipe, attention)
    number = count(config, "num_hidden_layers")
    windows = layer_windows(config, number) if recipe.windowed else (None,) * number

    def layer(window: int | None) -> LayerProfile:
        kept = None if window is None else window + recipe.extra_window
        return decoder_layer(config, recipe, replace(attention, sliding_window=kept))

    return Anatomy(
        hidden_size=count(config, "hidden_size"),
        vocab_size=count(config, "vocab_size"),
        layers=repeat_layers(number, windows.__getitem__, layer),
        outer_tensors=with_stored_names(
            (*_ends(config, recipe), *recipe.outer_extras(config), *_rotary(recipe, rope)), recipe
        ),
        tie_word_embeddings=flag(config, "tie_word_embeddings"),
        rope=rope,
        supports_pipeline=recipe.supports_pipeline,
    )


def _with_rotary_part(config: Config) -> Config:
    """Give the share of a head that rotates its usual name (patch_rope_parameters in the engine)."""
    names = ("partial_rotary_factor", "rotary_pct", "rotary_emb_fraction")
    part = next((config[name] for name in names if config.get(name) is not None), None)
    return config if part is None else {**config, "partial_rotary_factor": part}


def read_attention(config: Config, recipe: Recipe) -> AttentionProfile:
    """Read the heads of a layer, without its window."""
    heads, kv_heads = read_heads(config)
    return AttentionProfile(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=read_head_dim(config, heads, derived=recipe.derived_head_dim),
        qkv_bias=holds(config, recipe.qkv_bias),
        output_bias=holds(config, recipe.output_bias),
        qk_norm=recipe.qk_norm is not QkNorm.NONE and holds(config, recipe.qk_norm_when),
    )


def holds(config: Config, rule: Flag) -> bool:
    """Tell whether a rule of a recipe holds for a model."""
    return flag(config, rule) if isinstance(rule, str) else rule


def decoder_layer(config: Config, recipe: Recipe, attention: AttentionProfile) -> LayerProfile:
    """Build one layer around an attention that has been read."""
    hidden, prefix = count(config, "hidden_size"), f"{recipe.layer}.{recipe.attention}"
    output_size = attention.num_heads * attention.value_head_dim
    mlp, mlp_tensors = feed_forward(config, recipe, count(config, "intermediate_size"))
    tensors = (
        *qkv_linear(prefix, attention, hidden, name=recipe.qkv, parts=recipe.qkv_parts),
        *row_linear(f"{prefix}.{recipe.output}", hidden, output_size, bias=attention.output_bias),
        *_qk_norms(prefix, recipe, attention),
        *mlp_tensors,
        *(tensor for name in recipe.norms for tensor in norm(f"{recipe.layer}.{name}", hidden, recipe.norm)),
        *recipe.layer_extras(config),
        *cache_scales(f"{prefix}.attn"),
    )
    return LayerProfile((attention,), mlp, with_stored_names(tensors, recipe))


def feed_forward(config: Config, recipe: Recipe, inner: int) -> tuple[MlpProfile, Tensors]:
    """Build a feed-forward block of the given inner size; not divided where the engine has no plan for it."""
    prefix, hidden = f"{recipe.layer}.{recipe.mlp}".removesuffix("."), count(config, "hidden_size")
    up_bias, down_bias = holds(config, recipe.up_bias), holds(config, recipe.down_bias)
    mlp = MlpProfile(inner, bias=up_bias or down_bias, gated=recipe.gated)
    if not recipe.divided_mlp:
        return mlp, (
            *replicated_linear(f"{prefix}.{recipe.up}", inner, hidden, bias=up_bias),
            *replicated_linear(f"{prefix}.{recipe.down}", hidden, inner, bias=down_bias),
        )
    rows = (2 if recipe.gated else 1) * inner // len(recipe.up_parts)
    parts = {f"{prefix}.{part}": rows for part in recipe.up_parts}
    return mlp, (
        *column_linear(f"{prefix}.{recipe.up}", parts, hidden, bias=up_bias),
        *row_linear(f"{prefix}.{recipe.down}", hidden, inner, bias=down_bias),
    )


def norm(name: str, size: int, kind: Norm, *, place: Place = Place.LAYER) -> Tensors:
    """Give the parameters of a layer norm."""
    if kind is Norm.NOTHING:
        return ()
    weight = whole(f"{name}.weight", (size,), place=place)
    if kind is Norm.WEIGHT:
        return (weight,)
    return (weight, whole(f"{name}.bias", (size,), place=place))


def with_stored_names(tensors: Tensors, recipe: Recipe) -> Tensors:
    """Give the same tensors with the checkpoint's own prefixes, and shapes, in what they are made of."""
    if recipe.stored_transposed:
        tensors = tuple(_transposed(tensor) for tensor in tensors)
    if not recipe.stored:
        return tensors
    exchange = with_prefixes(recipe.stored)
    return tuple(renamed(tensor, lambda name: name, exchange) for tensor in tensors)


def _transposed(tensor: ParameterTensor) -> ParameterTensor:
    """Turn what a linear layer is stored as; embeddings are no linear layers and stay."""
    if tensor.linear is None or tensor.linear.role != "linear":
        return tensor
    return replace(tensor, stored=tuple(replace(kept, shape=kept.shape[::-1]) for kept in tensor.stored))


def buffer(name: str, shape: tuple[int, ...] = (), *, element_bytes: int | None = None) -> ParameterTensor:
    """Give a tensor outside of the layers that is in no checkpoint and that every stage holds."""
    return ParameterTensor(name, shape, Shard.REPLICATED, Place.EVERY, element_bytes=element_bytes)


def _qk_norms(prefix: str, recipe: Recipe, attention: AttentionProfile) -> Tensors:
    if not attention.qk_norm:
        return ()
    if recipe.qk_norm is QkNorm.WIDE:
        return wide_norms(prefix, attention, divided=False)
    names = tuple(f"{prefix}.{name}.weight" for name in recipe.qk_norm_names)
    size = attention.head_dim
    if recipe.qk_norm is QkNorm.HEAD:
        kept = (norm(name.removesuffix(".weight"), size, recipe.norm) for name in names)
        return tuple(tensor for pair in kept for tensor in pair)
    query, key = (attention.num_heads, size), (attention.num_kv_heads, size)
    rule = QkvHeads(0, attention.num_kv_heads, 1, 0)
    return (
        ParameterTensor(names[0], query, Shard.COLUMNS, Place.LAYER, (StoredTensor(names[0], query),)),
        ParameterTensor(names[1], key, Shard.HEADS, Place.LAYER, (StoredTensor(names[1], key),), heads=rule),
    )


def _ends(config: Config, recipe: Recipe) -> Tensors:
    """Embedding, last norm and head."""
    tied, hidden = flag(config, "tie_word_embeddings"), count(config, "hidden_size")
    size = count(config, recipe.embedding_field, hidden)
    vocab_size, names = count(config, "vocab_size"), {"embedding": recipe.embedding, "head": recipe.head}
    tensors = embedding_and_head(vocab_size, size, tied=tied, **names)
    if recipe.final_norm is not None:
        tensors = (*tensors, *norm(recipe.final_norm, hidden, recipe.norm, place=Place.LAST))
    return elsewhere(tensors, Place.EVERY) if recipe.everywhere else tensors


def _rope(config: Config, recipe: Recipe, attention: AttentionProfile) -> Rope:
    if recipe.rotary is Rotary.NOTHING:
        return no_rope(config)
    return read_rope(config, attention.head_dim)


def _rotary(recipe: Recipe, rope: Rope) -> Tensors:
    if recipe.rotary is Rotary.NOTHING:
        return ()
    if recipe.rotary is Rotary.TABLE:
        return rope_tables(rope.cache)
    size = (rope.cache.rotary_dim // 2,)
    names = ("inv_freq", "original_inv_freq") * recipe.frequency_sets
    return tuple(buffer(f"model.rotary_emb.{name}", size, element_bytes=4) for name in names)
