"""DeciLM (Nemotron made by architecture search): blocks of different widths, some without attention or block.

`block_configs` says for each layer how many query heads share a key/value head, how wide the feed-forward
block is, and which of the two is missing (`no_op`); a missing part takes its norm along. Source: vLLM's
`models/nemotron_nas.py` (0.32.0). Blocks that are a plain linear layer or a mixture of experts are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    attention_output,
    cache_scales,
    embedding_and_head,
    gated_mlp,
    qkv_linear,
    rope_tables,
    whole,
)
from stowage.model.config_fields import BadField, UnsupportedFeature, count, flag, mapping, positive
from stowage.model.families.moe_layers import list_of, read_head_dim, repeat_layers
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile
from stowage.model.rope import read_rope
from stowage.model.tensors import Place

Config = Mapping[str, Any]
_WIDTH_MULTIPLE: Final = 256
"""Widths derived from `ffn_mult` are rounded up to a multiple of this (`_find_multiple`)."""


def read_decilm(config: Config) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    number = count(config, "num_hidden_layers")
    blocks = _blocks(config, number)
    tied, rope = flag(config, "tie_word_embeddings"), read_rope(config, _head_dim(config))
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(number, blocks.__getitem__, lambda block: _layer(config, *block)),
        outer_tensors=(
            *embedding_and_head(vocab_size, hidden_size, tied=tied),
            whole("model.norm.weight", (hidden_size,), place=Place.LAST),
            *rope_tables(rope.cache),
        ),
        tie_word_embeddings=tied,
        rope=rope,
    )


READERS: Final = {"DeciLMForCausalLM": read_decilm}
"""The architectures of this file and their readers."""


def _blocks(config: Config, number: int) -> list[tuple[int, int]]:
    """Give key/value heads and width of every block; 0 stands for a part that is missing."""
    stated = list_of(config, "block_configs", number)
    if stated is None:
        raise BadField("config.json has no block_configs, which this architecture needs.")
    if not all(isinstance(block, Mapping) for block in stated):
        raise BadField("config.json has block_configs that is not a list of objects.")
    return [(_kv_heads(config, block), _width(config, block)) for block in stated]


def _kv_heads(config: Config, block: Config) -> int:
    attention = mapping(block, "attention")
    if flag(attention, "no_op"):
        return 0
    if flag(attention, "replace_with_linear"):
        raise UnsupportedFeature("A block whose attention is replaced by a linear layer is not supported.")
    heads, group = count(config, "num_attention_heads"), count(attention, "n_heads_in_group")
    if heads % group:
        raise BadField(f"config.json says n_heads_in_group: {group}; it must divide {heads} attention heads.")
    return heads // group


def _width(config: Config, block: Config) -> int:
    ffn = mapping(block, "ffn")
    if flag(ffn, "no_op"):
        return 0
    if flag(ffn, "replace_with_linear") or ffn.get("moe"):
        raise UnsupportedFeature(
            "A block with experts or a linear layer instead of its MLP is not supported."
        )
    if ffn.get("ffn_mult") is None:
        return count(ffn, "intermediate_size")
    width = int(2 * positive(ffn, "ffn_mult") * count(config, "hidden_size") / 3)
    return -(-width // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE


def _head_dim(config: Config) -> int:
    return read_head_dim(config, count(config, "num_attention_heads"))


def _layer(config: Config, kv_heads: int, width: int) -> LayerProfile:
    hidden_size = count(config, "hidden_size")
    attention = _attention(config, kv_heads) if kv_heads else None
    mlp = MlpProfile(width, bias=flag(config, "mlp_bias")) if width else None
    tensors: Tensors = ()
    if attention is not None:
        prefix = "model.layers.{}.self_attn"
        tensors = (
            *qkv_linear(prefix, attention, hidden_size),
            *attention_output(prefix, attention, hidden_size),
            whole("model.layers.{}.input_layernorm.weight", (hidden_size,)),
            *cache_scales(f"{prefix}.attn"),
        )
    if mlp is not None:
        norm = whole("model.layers.{}.post_attention_layernorm.weight", (hidden_size,))
        tensors = (*tensors, *gated_mlp("model.layers.{}.mlp", mlp, hidden_size), norm)
    return LayerProfile(() if attention is None else (attention,), mlp, tensors)


def _attention(config: Config, kv_heads: int) -> AttentionProfile:
    bias = flag(config, "attention_bias") or flag(config, "bias")
    return AttentionProfile(
        num_heads=count(config, "num_attention_heads"),
        num_kv_heads=kv_heads,
        head_dim=_head_dim(config),
        qkv_bias=flag(config, "qkv_bias", bias),
        output_bias=bias,
    )
