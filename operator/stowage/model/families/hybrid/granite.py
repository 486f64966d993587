"""Granite 4 and Bamba: Mamba 2 layers with an attention layer now and then, each with a feed-forward block.

Granite's block is a shared gated one, experts, or both side by side, and its positions may be unmarked (nope).
Bamba, its forerunner, has a plain gated block and always rotates. Sources:
vllm/model_executor/models/granitemoehybrid.py (0.32.0), bamba.py (served up to 0.23.0); transformers' configs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    column_linear,
    gated_mlp,
    router,
    row_linear,
    whole,
)
from stowage.model.config_fields import BadField, count, flag, refuse_features
from stowage.model.families.hybrid.mixers import MixerBiases, mamba2
from stowage.model.families.hybrid.parts import (
    attention_rope,
    chunk_size,
    ends_on_every_stage,
    grouped_query,
    with_defaults,
    words,
)
from stowage.model.families.moe_layers import indices, repeat_layers, self_attention, stacked_experts
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile, StateProfile
from stowage.model.rope import Rope, no_rope, read_rope
from stowage.model.tensors import StoredTensor

_MAMBA: Final = {
    "mamba_n_heads": 128,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
}
GRANITE: Final[Mapping[str, Any]] = {
    **_MAMBA,
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": 1024,
}
"""Class defaults of transformers' GraniteMoeHybridConfig."""

BAMBA: Final[Mapping[str, Any]] = {
    **_MAMBA,
    "vocab_size": 128000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 262144,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
"""Class defaults of transformers' BambaConfig."""

_KINDS: Final[Mapping[str, str]] = {
    "mamba": "mamba",
    "linear_attention": "mamba",
    "attention": "attention",
    "full_attention": "attention",
}
_LAYER: Final = "model.layers.{}"


def read_granite_hybrid(config: Mapping[str, Any]) -> Anatomy:
    """Read one Granite 4 model; raises BadField for missing, wrong or not supported values."""
    fields = with_defaults(config, GRANITE)
    refuse_features(fields)
    hidden_size, number = count(fields, "hidden_size"), count(fields, "num_hidden_layers")
    kinds = words(fields, "layer_types", _KINDS) or words(fields, "layers_block_type", _KINDS)
    kinds = kinds or ("mamba",) * number
    if len(kinds) != number:
        raise BadField(f"config.json has layer_types for {len(kinds)} layers; num_hidden_layers is {number}.")
    bias = flag(fields, "attention_bias")
    attention = grouped_query(fields, qkv_bias=bias, output_bias=bias)
    feed_forward, tensors = _granite_block(fields, hidden_size)
    rest = (feed_forward, (*tensors, *_norms("post_attention_layernorm", hidden_size)))
    layers = repeat_layers(
        number, lambda index: kinds[index], lambda kind: _layer(fields, kind, attention, rest)
    )
    rotates = fields.get("position_embedding_type") == "rope"
    rope = read_rope(fields, attention.head_dim) if rotates else no_rope(fields)
    return _anatomy(fields, layers, rope, "model.norm.weight")


def read_bamba(config: Mapping[str, Any]) -> Anatomy:
    """Read one Bamba model; raises BadField for missing, wrong or not supported values."""
    # Its configuration class rotates one half of each head, whatever config.json says.
    fields = with_defaults({**config, "partial_rotary_factor": 0.5}, BAMBA)
    refuse_features(fields)
    hidden_size, attends = count(fields, "hidden_size"), indices(fields, "attn_layer_indices")
    attention = grouped_query(fields)
    mlp = MlpProfile(count(fields, "intermediate_size"), bias=flag(fields, "mlp_bias"))
    block = gated_mlp(f"{_LAYER}.feed_forward", mlp, hidden_size)
    rest = (mlp, (*block, *_norms("pre_ff_layernorm", hidden_size)))
    layers = repeat_layers(
        count(fields, "num_hidden_layers"),
        lambda index: "attention" if index in attends else "mamba",
        lambda kind: _layer(fields, kind, attention, rest),
    )
    return _anatomy(fields, layers, read_rope(fields, attention.head_dim), "model.final_layernorm.weight")


READERS: Final = {"GraniteMoeHybridForCausalLM": read_granite_hybrid, "BambaForCausalLM": read_bamba}
"""The architectures of this file and their readers."""


def _norms(second: str, hidden_size: int) -> Tensors:
    names = ("input_layernorm", second)
    return tuple(whole(f"{_LAYER}.{name}.weight", (hidden_size,)) for name in names)


def _anatomy(fields: Mapping[str, Any], layers: tuple[LayerProfile, ...], rope: Rope, norm: str) -> Anatomy:
    hidden_size, vocab_size = count(fields, "hidden_size"), count(fields, "vocab_size")
    tied = flag(fields, "tie_word_embeddings")
    ends = ends_on_every_stage(vocab_size, hidden_size, tied=tied, embedding="model.embed_tokens", norm=norm)
    table = attention_rope(rope, layers) if rope.cache.rows else ()
    return Anatomy(hidden_size, vocab_size, layers, (*ends, *table), tied, rope)


def _layer(
    fields: Mapping[str, Any],
    kind: str,
    attention: AttentionProfile,
    rest: tuple[MlpProfile | MoeProfile | None, Tensors],
) -> LayerProfile:
    hidden_size, (feed_forward, forward_tensors) = count(fields, "hidden_size"), rest
    if kind == "attention":
        tensors = self_attention(f"{_LAYER}.self_attn", attention, hidden_size)
        return LayerProfile((attention,), feed_forward, (*tensors, *forward_tensors))
    state = mamba2_state(fields, count(fields, "mamba_expand") * hidden_size)
    biases = MixerBiases(flag(fields, "mamba_proj_bias"), flag(fields, "mamba_conv_bias"))
    mixer = mamba2(f"{_LAYER}.mamba", state, hidden_size, biases)
    return LayerProfile((state,), feed_forward, (*mixer, *forward_tensors))


def mamba2_state(fields: Mapping[str, Any], inner_size: int) -> StateProfile:
    """Read a Mamba 2 mixer whose fields begin with `mamba_`; raises BadField if the sizes do not agree."""
    heads, stated = count(fields, "mamba_n_heads"), fields.get("mamba_d_head", "auto")
    head_dim = inner_size // heads if stated == "auto" else count(fields, "mamba_d_head")
    if head_dim * heads != inner_size:
        raise BadField(
            f"config.json says mamba_n_heads: {heads}; times the head size {head_dim} it must be {inner_size}."
        )
    return StateProfile(
        "mamba2",
        conv_kernel=count(fields, "mamba_d_conv"),
        inner_size=inner_size,
        state_size=count(fields, "mamba_d_state"),
        num_heads=heads,
        head_dim=head_dim,
        num_groups=count(fields, "mamba_n_groups"),
        chunk_size=chunk_size(fields),
    )


def _granite_block(
    fields: Mapping[str, Any], hidden_size: int
) -> tuple[MlpProfile | MoeProfile | None, Tensors]:
    shared = 0 if fields["shared_intermediate_size"] == 0 else count(fields, "shared_intermediate_size")
    prefix, tensors = f"{_LAYER}.block_sparse_moe", _shared_block(shared, hidden_size) if shared else ()
    if fields["num_local_experts"] == 0:
        return MlpProfile(shared) if shared else None, tensors
    moe = MoeProfile(
        num_experts=count(fields, "num_local_experts"),
        num_experts_per_tok=count(fields, "num_experts_per_tok"),
        intermediate_size=count(fields, "intermediate_size"),
        shared_intermediate_size=shared,
    )
    inner, number = moe.intermediate_size, moe.num_experts
    up = StoredTensor(f"{prefix}.input_linear.weight", (number, 2 * inner, hidden_size))
    down = StoredTensor(f"{prefix}.output_linear.weight", (number, hidden_size, inner))
    routed = (
        *router(f"{prefix}.gate", moe.num_experts, hidden_size, stored=f"{prefix}.router.layer"),
        *stacked_experts(f"{prefix}.experts", moe, hidden_size, gate_up=(up,), down=down),
    )
    return moe, (*routed, *tensors)


def _shared_block(inner: int, hidden_size: int) -> Tensors:
    prefix = f"{_LAYER}.shared_mlp"
    return (
        *column_linear(f"{prefix}.input_linear", {f"{prefix}.input_linear": 2 * inner}, hidden_size),
        *row_linear(f"{prefix}.output_linear", hidden_size, inner),
    )
