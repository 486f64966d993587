"""Granite MoE, with and without a shared expert, and its variant with windows and attention sinks.

Layers may differ in window and in rotary base, where a base of 0 means that a layer has no rotary embedding.
Source: `vllm/model_executor/models/{granitemoe,granitemoeshared,granite}.py` (0.32.0) and the configuration
classes of transformers.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, column_linear, row_linear, whole
from stowage.model.config_fields import BadField, count, flag, refuse_features
from stowage.model.families.moe_layers import (
    Config,
    Router,
    list_of,
    outer_tensors,
    read_head_dim,
    read_heads,
    repeat_layers,
    router_tensors,
    self_attention,
    sinks,
    stacked_experts,
)
from stowage.model.profile import AttentionProfile, LayerProfile, MoeProfile, RopeCache
from stowage.model.rope import read_rope
from stowage.model.tensors import StoredTensor

_LAYER: Final = "model.layers.{}"


def read_granite_moe(config: Config, *, has_shared: bool) -> Anatomy:
    """Read a Granite MoE model; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    heads, _ = read_heads(config)
    rope, tied = (
        read_rope(config, read_head_dim(config, heads, derived=True)),
        flag(config, "tie_word_embeddings"),
    )
    tables = _rope_tables(config, rope.cache)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(
            count(config, "num_hidden_layers"),
            _windows(config).__getitem__,
            partial(_layer, config, has_shared),
        ),
        outer_tensors=outer_tensors(vocab_size, hidden_size, *tables, tied=tied, everywhere=True),
        tie_word_embeddings=tied,
        rope=rope,
    )


READERS: Final = {
    "GraniteMoeForCausalLM": partial(read_granite_moe, has_shared=False),
    "GraniteMoeSharedForCausalLM": partial(read_granite_moe, has_shared=True),
    "GraniteMoeSWAForCausalLM": partial(read_granite_moe, has_shared=True),
}
"""The architectures of this file and their readers."""


def _windows(config: Config) -> list[int | None]:
    number = count(config, "num_hidden_layers")
    kinds = list_of(config, "layer_types", number)
    if kinds is None:
        return [count(config, "sliding_window") if config.get("sliding_window") else None] * number
    return [count(config, "sliding_window") if kind == "sliding_attention" else None for kind in kinds]


def _rope_tables(config: Config, cache: RopeCache) -> tuple[RopeCache, ...]:
    """Give one table for each rotary base that layers use; a base of 0 needs none."""
    bases = list_of(config, "layer_rope_theta", count(config, "num_hidden_layers"))
    if bases is None:
        return (cache,)
    if not all(isinstance(base, (int, float)) and not isinstance(base, bool) for base in bases):
        raise BadField("config.json has layer_rope_theta that is not a list of numbers.")
    return (cache,) * len({base for base in bases if base})


def _layer(config: Config, has_shared: bool, window: int | None) -> LayerProfile:
    hidden_size, prefix = count(config, "hidden_size"), f"{_LAYER}.self_attn"
    heads, kv_heads = read_heads(config)
    head_dim = read_head_dim(config, heads, derived=True)
    attention = AttentionProfile(heads, kv_heads, head_dim, sliding_window=window)
    shared = config.get("shared_intermediate_size") if has_shared else None
    moe = MoeProfile(
        num_experts=count(config, "num_local_experts", 8),
        num_experts_per_tok=count(config, "num_experts_per_tok", 2),
        intermediate_size=count(config, "intermediate_size"),
        shared_intermediate_size=count(config, "shared_intermediate_size") if shared else 0,
    )
    tensors = [*self_attention(prefix, attention, hidden_size), *_block(moe, hidden_size)]
    if flag(config, "attention_sinks", config.get("layer_types") is not None):
        tensors.append(sinks(f"{prefix}.sinks", heads))
    tensors += [
        whole(f"{_LAYER}.{norm}.weight", (hidden_size,))
        for norm in ("input_layernorm", "post_attention_layernorm")
    ]
    return LayerProfile((attention,), moe, tuple(tensors))


def _block(moe: MoeProfile, hidden_size: int) -> Tensors:
    block, inner, number = f"{_LAYER}.block_sparse_moe", moe.intermediate_size, moe.num_experts
    tensors = [
        *router_tensors(block, Router("gate", "router.layer"), number, hidden_size, stored=block),
        *stacked_experts(
            f"{block}.experts",
            moe,
            hidden_size,
            gate_up=(StoredTensor(f"{block}.input_linear.weight", (number, 2 * inner, hidden_size)),),
            down=StoredTensor(f"{block}.output_linear.weight", (number, hidden_size, inner)),
        ),
    ]
    if moe.shared_intermediate_size:
        shared, name = moe.shared_intermediate_size, f"{_LAYER}.shared_mlp"
        up = column_linear(f"{name}.input_linear", {f"{name}.input_linear": 2 * shared}, hidden_size)
        tensors += [*up, *row_linear(f"{name}.output_linear", hidden_size, shared)]
    return tuple(tensors)
