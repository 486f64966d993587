"""MiniMax-Text-01 and MiniMax-M1: seven lightning attention layers to one of softmax attention, with experts.

Engines served these up to 0.23.0. The router and the rotary table are kept in 32 bits; the table has as many rows
as the context that is served, at most those of config.json, which is what is counted here. Sources:
vllm/model_executor/models/minimax_text_01.py, layers/mamba/linear_attn.py (up to 0.23).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    column_linear,
    embedding_and_head,
    experts,
    gated_mlp,
    row_linear,
    whole,
)
from stowage.model.config_fields import BadField, count, flag, refuse_features
from stowage.model.families.hybrid.mixers import FLOAT32_BYTES
from stowage.model.families.hybrid.parts import attention_rope, divided, grouped_query, with_defaults, words
from stowage.model.families.moe_layers import Router, repeat_layers, router_tensors, self_attention
from stowage.model.profile import (
    AttentionProfile,
    LayerProfile,
    MlpProfile,
    MoeProfile,
    RopeCache,
    StateProfile,
)
from stowage.model.rope import Rope, read_rope
from stowage.model.tensors import Place

_LAYER: Final = "model.layers.{}"
_KINDS: Final = {"linear_attention": "linear_attention", "full_attention": "full_attention"}
_DEFAULTS: Final[Mapping[str, Any]] = {"tie_word_embeddings": False, "postnorm": False}


def read_minimax_text(config: Mapping[str, Any]) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    fields = with_defaults(config, _DEFAULTS)
    refuse_features(fields)
    if isinstance(fields.get("shared_intermediate_size"), list) and not any(
        fields["shared_intermediate_size"]
    ):
        fields["shared_intermediate_size"] = 0
    refuse_features(fields, "shared_intermediate_size", "sliding_window")
    hidden_size, vocab_size = count(fields, "hidden_size"), count(fields, "vocab_size")
    heads = count(fields, "num_attention_heads")
    attention = grouped_query(fields, count(fields, "head_dim", hidden_size // heads))
    number = count(fields, "num_hidden_layers")
    kinds, rope = _kinds(fields, number), _rope(fields, attention)
    tied = flag(fields, "tie_word_embeddings")
    layers = repeat_layers(number, lambda index: kinds[index], lambda kind: _layer(fields, attention, kind))
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=layers,
        outer_tensors=(
            *embedding_and_head(vocab_size, hidden_size, tied=tied),
            whole("model.norm.weight", (hidden_size,), place=Place.LAST),
            *attention_rope(rope, layers),
        ),
        tie_word_embeddings=tied,
        rope=rope,
        notes=("The rotary table is counted for the longest context; a shorter one takes less.",),
    )


READERS: Final = dict.fromkeys(
    ("MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM", "MiniMaxForCausalLM"), read_minimax_text
)
"""The architectures of this file and their readers."""


def _kinds(fields: Mapping[str, Any], number: int) -> tuple[str, ...]:
    stated = fields.get("attn_type_list") or fields.get("decoder_attention_types")
    if stated is None:
        kinds = words(fields, "layer_types", _KINDS) or ("full_attention",) * number
    elif isinstance(stated, list) and all(kind in (0, 1) for kind in stated):
        kinds = tuple("full_attention" if kind else "linear_attention" for kind in stated)
    else:
        raise BadField("config.json has attn_type_list that is not a list of 0 (lightning) and 1 (softmax).")
    if len(kinds) < number:
        raise BadField(f"config.json has attn_type_list for {len(kinds)} layers, fewer than {number}.")
    return kinds


def _rope(fields: Mapping[str, Any], attention: AttentionProfile) -> Rope:
    share = count(fields, "rotary_dim", attention.head_dim) / attention.head_dim
    rope = read_rope({**fields, "partial_rotary_factor": share}, attention.head_dim)
    table = RopeCache(rope.cache.rows, rope.cache.rotary_dim, FLOAT32_BYTES)
    return replace(rope, cache=table)


def _layer(fields: Mapping[str, Any], attention: AttentionProfile, kind: str) -> LayerProfile:
    hidden_size = count(fields, "hidden_size")
    feed_forward, forward_tensors = _feed_forward(fields, hidden_size)
    norms = tuple(
        whole(f"{_LAYER}.{name}.weight", (hidden_size,))
        for name in ("input_layernorm", "post_attention_layernorm")
    )
    if kind == "full_attention":
        tensors = self_attention(f"{_LAYER}.self_attn", attention, hidden_size)
        return LayerProfile((attention,), feed_forward, (*tensors, *forward_tensors, *norms))
    state = StateProfile("lightning", num_heads=attention.num_heads, head_dim=attention.head_dim)
    tensors = _lightning(state, hidden_size)
    return LayerProfile((state,), feed_forward, (*tensors, *forward_tensors, *norms))


def _lightning(state: StateProfile, hidden_size: int) -> Tensors:
    prefix, inner = f"{_LAYER}.self_attn", state.num_heads * state.head_dim
    return (
        *column_linear(f"{prefix}.qkv_proj", {f"{prefix}.qkv_proj": 3 * inner}, hidden_size),
        *column_linear(f"{prefix}.output_gate", {f"{prefix}.output_gate": inner}, hidden_size),
        *row_linear(f"{prefix}.out_proj", hidden_size, inner),
        divided(f"{prefix}.norm.weight", (inner,)),
    )


def _feed_forward(fields: Mapping[str, Any], hidden_size: int) -> tuple[MlpProfile | MoeProfile, Tensors]:
    inner, number = count(fields, "intermediate_size"), count(fields, "num_local_experts", 1)
    if number == 1:
        mlp = MlpProfile(inner)
        return mlp, gated_mlp(f"{_LAYER}.mlp", mlp, hidden_size)
    moe, prefix = (
        MoeProfile(number, count(fields, "num_experts_per_tok"), inner),
        f"{_LAYER}.block_sparse_moe",
    )
    return moe, (
        *router_tensors(prefix, Router(fp32=True), number, hidden_size, stored=prefix),
        *experts(
            f"{prefix}.experts", moe, hidden_size, stored=f"{prefix}.experts.{{}}", parts=("w1", "w3", "w2")
        ),
    )
