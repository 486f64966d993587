"""LFM2: short gated convolutions with an attention layer now and then; the larger ones have experts.

The head is always tied and the embedding is built on every pipeline stage. Sources:
vllm/model_executor/models/{lfm2,lfm2_moe}.py (0.32.0), Lfm2Config and Lfm2MoeConfig of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    attention_output,
    cache_scales,
    elsewhere,
    embedding_and_head,
    experts,
    gated_mlp,
    qkv_linear,
    whole,
)
from stowage.model.config_fields import BadField, count, flag, positive, refuse_features
from stowage.model.families.hybrid.mixers import short_convolution
from stowage.model.families.hybrid.parts import attention_rope, grouped_query, with_defaults, words
from stowage.model.families.moe_layers import (
    Router,
    engine_names,
    indices,
    repeat_layers,
    router_tensors,
)
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile, StateProfile
from stowage.model.rope import read_rope
from stowage.model.tensors import Place

_COMMON: Final = {
    "vocab_size": 65536,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 128_000,
    "conv_bias": False,
    "conv_L_cache": 3,
}
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Lfm2ForCausalLM": {
        **_COMMON,
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "block_multiple_of": 256,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": True,
    },
    "Lfm2MoeForCausalLM": {
        **_COMMON,
        "hidden_size": 2048,
        "intermediate_size": 7168,
        "moe_intermediate_size": 1792,
        "num_dense_layers": 2,
        "num_experts_per_tok": 4,
        "num_experts": 32,
        "use_expert_bias": True,
    },
}
"""Class defaults of transformers."""

_KINDS: Final = {"full_attention": "full_attention", "conv": "conv"}
_LAYER: Final = "model.layers.{}"


def read_lfm2(config: Mapping[str, Any], architecture: str) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    fields = with_defaults(config, DEFAULTS[architecture])
    refuse_features(fields)
    hidden_size, vocab_size = count(fields, "hidden_size"), count(fields, "vocab_size")
    number, attention = count(fields, "num_hidden_layers"), grouped_query(fields, qk_norm=True)
    kinds, dense = _kinds(fields, number), number
    if architecture == "Lfm2MoeForCausalLM":
        dense = 0 if fields["num_dense_layers"] == 0 else count(fields, "num_dense_layers")
    rope = read_rope(fields, attention.head_dim)
    layers = repeat_layers(
        number,
        lambda index: (kinds[index], index >= dense),
        lambda kind: _layer(fields, attention, kind[0], has_experts=kind[1]),
    )
    ends = embedding_and_head(vocab_size, hidden_size, tied=True)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=layers,
        outer_tensors=(
            *elsewhere(ends, Place.EVERY),
            whole("model.embedding_norm.weight", (hidden_size,), place=Place.LAST),
            *attention_rope(rope, layers),
        ),
        tie_word_embeddings=True,
        rope=rope,
    )


READERS: Final = {name: partial(read_lfm2, architecture=name) for name in DEFAULTS}
"""The architectures of this file and their readers."""


def _kinds(fields: Mapping[str, Any], number: int) -> tuple[str, ...]:
    kinds = words(fields, "layer_types", _KINDS)
    if kinds is None:
        attends = indices(fields, "full_attn_idxs") if "full_attn_idxs" in fields else range(number)
        kinds = tuple("full_attention" if index in attends else "conv" for index in range(number))
    if len(kinds) < number:
        raise BadField(f"config.json has layer_types for {len(kinds)} layers, fewer than {number}.")
    return kinds


def _layer(
    fields: Mapping[str, Any], attention: AttentionProfile, kind: str, *, has_experts: bool
) -> LayerProfile:
    hidden_size = count(fields, "hidden_size")
    norms = tuple(whole(f"{_LAYER}.{name}.weight", (hidden_size,)) for name in ("operator_norm", "ffn_norm"))
    feed_forward, forward_tensors = _experts(fields) if has_experts else _dense(fields)
    if kind == "full_attention":
        tensors = _attention(attention, hidden_size)
        return LayerProfile((attention,), feed_forward, (*tensors, *forward_tensors, *norms))
    state = StateProfile(
        "short-conv",
        conv_kernel=count(fields, "conv_L_cache"),
        inner_size=count(fields, "conv_dim", hidden_size),
    )
    tensors = short_convolution(f"{_LAYER}.conv", state, bias=flag(fields, "conv_bias"))
    tensors = engine_names(tensors, f"{_LAYER}.conv.", f"{_LAYER}.short_conv.")
    return LayerProfile((state,), feed_forward, (*tensors, *forward_tensors, *norms))


def _attention(attention: AttentionProfile, hidden_size: int) -> Tensors:
    prefix = f"{_LAYER}.self_attn"
    return (
        *qkv_linear(prefix, attention, hidden_size),
        *attention_output(prefix, attention, hidden_size, name="out_proj"),
        *(whole(f"{prefix}.{name}.weight", (attention.head_dim,)) for name in ("q_layernorm", "k_layernorm")),
        *cache_scales(f"{prefix}.attn"),
    )


def _dense(fields: Mapping[str, Any]) -> tuple[MlpProfile | MoeProfile, Tensors]:
    mlp, prefix = MlpProfile(_inner_size(fields)), f"{_LAYER}.feed_forward"
    tensors = gated_mlp(prefix, mlp, count(fields, "hidden_size"), parts=("w1", "w3"), down="w2")
    return mlp, engine_names(tensors, f"{prefix}.gate_up_proj", f"{prefix}.w13")


def _inner_size(fields: Mapping[str, Any]) -> int:
    """Read the feed-forward size, which the smaller models state before it is adjusted."""
    stated = count(fields, "block_ff_dim", count(fields, "intermediate_size"))
    if not flag(fields, "block_auto_adjust_ff_dim"):
        return stated
    adjusted = int(positive(fields, "block_ffn_dim_multiplier") * int(2 * stated / 3))
    multiple = count(fields, "block_multiple_of")
    return -(-adjusted // multiple) * multiple


def _experts(fields: Mapping[str, Any]) -> tuple[MlpProfile | MoeProfile, Tensors]:
    prefix, hidden_size = f"{_LAYER}.feed_forward", count(fields, "hidden_size")
    moe = MoeProfile(
        num_experts=count(fields, "num_experts"),
        num_experts_per_tok=count(fields, "num_experts_per_tok"),
        intermediate_size=count(fields, "moe_intermediate_size"),
    )
    rule = Router()
    if flag(fields, "use_expert_bias"):
        rule = Router(correction="gate.e_score_correction_bias", stored_correction="expert_bias")
    return moe, (
        *router_tensors(prefix, rule, moe.num_experts, hidden_size, stored=prefix),
        *experts(
            f"{prefix}.experts",
            moe,
            hidden_size,
            stored=f"{prefix}.experts.{{}}",
            parts=("w1", "w3", "w2"),
        ),
    )
