"""Jamba: Mamba 1 layers with an attention layer now and then, and experts in every other layer.

It has no positional embedding, and only attention and feed-forward blocks follow the checkpoint's
quantisation. Source: vllm/model_executor/models/jamba.py (0.32.0) and JambaConfig of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    experts,
    gated_mlp,
    router,
    whole,
)
from stowage.model.config_fields import count, flag, refuse_features
from stowage.model.families.hybrid.mamba import time_step_rank
from stowage.model.families.hybrid.mixers import MixerBiases, mamba1
from stowage.model.families.hybrid.parts import ends_on_every_stage, grouped_query, with_defaults
from stowage.model.families.moe_layers import engine_names, self_attention
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile, StateProfile
from stowage.model.rope import no_rope

DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 65536,
    "tie_word_embeddings": False,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 262144,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "attn_layer_period": 8,
    "attn_layer_offset": 4,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
}
"""Class defaults of transformers' JambaConfig."""

_LAYER: Final = "model.layers.{}"


def read_jamba(config: Mapping[str, Any]) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    fields = with_defaults(config, DEFAULTS)
    refuse_features(fields)
    hidden_size, vocab_size = count(fields, "hidden_size"), count(fields, "vocab_size")
    kinds = {
        (attends, has_experts): _layer(fields, attends, has_experts)
        for attends in (False, True)
        for has_experts in (False, True)
    }
    layers = tuple(
        kinds[_falls_on(fields, number, "attn_layer"), _has_experts(fields, number)]
        for number in range(count(fields, "num_hidden_layers"))
    )
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=layers,
        # The engine never ties the head here, whatever config.json says.
        outer_tensors=ends_on_every_stage(
            vocab_size,
            hidden_size,
            tied=False,
            embedding="model.embed_tokens",
            norm="model.final_layernorm.weight",
        ),
        tie_word_embeddings=False,
        rope=no_rope(fields),
    )


READERS: Final = {"JambaForCausalLM": read_jamba}
"""The architectures of this file and their readers."""


def _falls_on(fields: Mapping[str, Any], number: int, kind: str) -> bool:
    offset = fields[f"{kind}_offset"]
    return bool(number % count(fields, f"{kind}_period") == offset)


def _has_experts(fields: Mapping[str, Any], number: int) -> bool:
    return count(fields, "num_experts") > 1 and _falls_on(fields, number, "expert_layer")


def _layer(fields: Mapping[str, Any], attends: bool, has_experts: bool) -> LayerProfile:
    hidden_size = count(fields, "hidden_size")
    mixer, tensors = _attention(fields, hidden_size) if attends else _mamba(fields, hidden_size)
    feed_forward, forward_tensors = _feed_forward(fields, hidden_size, has_experts)
    norms = tuple(
        whole(f"{_LAYER}.{name}.weight", (hidden_size,)) for name in ("input_layernorm", "pre_ff_layernorm")
    )
    return LayerProfile((mixer,), feed_forward, (*tensors, *forward_tensors, *norms))


def _attention(fields: Mapping[str, Any], hidden_size: int) -> tuple[AttentionProfile, Tensors]:
    attention, prefix = grouped_query(fields), f"{_LAYER}.self_attn"
    # The engine has no module of that name: projections are the layer's own.
    return attention, engine_names(self_attention(prefix, attention, hidden_size), f"{prefix}.", f"{_LAYER}.")


def _mamba(fields: Mapping[str, Any], hidden_size: int) -> tuple[StateProfile, Tensors]:
    state = StateProfile(
        "mamba1",
        conv_kernel=count(fields, "mamba_d_conv"),
        inner_size=count(fields, "mamba_expand") * hidden_size,
        state_size=count(fields, "mamba_d_state"),
    )
    biases = MixerBiases(flag(fields, "mamba_proj_bias"), flag(fields, "mamba_conv_bias"))
    rank = time_step_rank(fields, "mamba_dt_rank", hidden_size)
    return state, mamba1(f"{_LAYER}.mamba", state, hidden_size, biases, rank)


def _feed_forward(
    fields: Mapping[str, Any], hidden_size: int, has_experts: bool
) -> tuple[MlpProfile | MoeProfile, Tensors]:
    inner, prefix = count(fields, "intermediate_size"), f"{_LAYER}.feed_forward"
    if not has_experts:
        mlp = MlpProfile(inner)
        return mlp, gated_mlp(prefix, mlp, hidden_size)
    moe = MoeProfile(count(fields, "num_experts"), count(fields, "num_experts_per_tok"), inner)
    return moe, (
        *router(f"{prefix}.router", moe.num_experts, hidden_size),
        *experts(f"{prefix}.experts", moe, hidden_size, stored=f"{prefix}.experts.{{}}"),
    )
