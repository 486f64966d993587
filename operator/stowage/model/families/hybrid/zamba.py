"""Zamba2: Mamba 2 layers, some of which also run one of a few attention blocks that they share.

The shared blocks are held once, however many layers use them, with a low-rank adapter for each use; but every
use has keys and values of its own. There is no pipeline parallelism. Source:
vllm/model_executor/models/zamba2.py (0.32.0) and Zamba2Config of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    attention_output,
    cache_scales,
    column_linear,
    elsewhere,
    gated_mlp,
    qkv_linear,
    replicated_linear,
    rope_tables,
    whole,
)
from stowage.model.config_fields import BadField, count, flag, word
from stowage.model.families.hybrid.mixers import MixerBiases, mamba2
from stowage.model.families.hybrid.parts import chunk_size, ends_on_every_stage, with_defaults, words
from stowage.model.families.moe_layers import engine_names
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, StateProfile
from stowage.model.rope import no_rope, read_rope
from stowage.model.tensors import Place

_DEFAULT_KINDS: Final = ("m", *("m" * 5 + "h") * 7, *"mmmm", "h", *"mmm", "h", *"mm")
DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "hidden_size": 2560,
    "num_attention_heads": 32,
    "mamba_d_state": 64,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_ngroups": 1,
    "n_mamba_heads": 8,
    "use_conv_bias": True,
    "add_bias_linear": False,
    "num_mem_blocks": 1,
    "use_shared_attention_adapter": False,
    "adapter_rank": 128,
    "use_mem_rope": False,
    "use_long_context": False,
}
"""Class defaults of transformers' Zamba2Config."""

_KINDS: Final[Mapping[str, str]] = {"mamba": "m", "linear_attention": "m", "m": "m", "hybrid": "h", "g": "h"}
_LONG_CONTEXT: Final = 16384
_LAYER: Final = "model.layers.{}"


def read_zamba2(config: Mapping[str, Any]) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    fields = with_defaults(config, DEFAULTS)
    if flag(fields, "use_long_context"):
        fields["max_position_embeddings"] = _LONG_CONTEXT
    if word(fields, "hidden_act") not in (None, "gelu"):
        raise BadField(f"config.json says hidden_act: {fields['hidden_act']!r}; Zamba2 is served with gelu.")
    hidden_size, kinds = count(fields, "hidden_size"), words(fields, "layers_block_type", _KINDS)
    kinds = kinds or _DEFAULT_KINDS
    mlp = MlpProfile(
        count(fields, "intermediate_size", 4 * hidden_size), bias=flag(fields, "add_bias_linear")
    )
    attention = _attention(fields, hidden_size)
    built = {kind: _layer(fields, attention, mlp, kind) for kind in dict.fromkeys(kinds)}
    hybrid = [number for number, kind in enumerate(kinds) if kind == "h"]
    shared = tuple(
        tensor
        for block in range(min(count(fields, "num_mem_blocks"), len(hybrid)))
        for tensor in _shared_block(fields, attention, mlp, hybrid, block)
    )
    rotates = flag(fields, "use_mem_rope")
    rope = read_rope(fields, attention.head_dim) if rotates else no_rope(fields)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=count(fields, "vocab_size"),
        layers=tuple(built[kind] for kind in kinds),
        outer_tensors=(
            *ends_on_every_stage(
                count(fields, "vocab_size"),
                hidden_size,
                tied=True,
                embedding="model.embed_tokens",
                norm="model.final_layernorm.weight",
            ),
            *elsewhere(shared, Place.EVERY),
            *(rope_tables(rope.cache) if rotates else ()),
        ),
        tie_word_embeddings=True,
        rope=rope,
    )


READERS: Final = {"Zamba2ForCausalLM": read_zamba2}
"""The architectures of this file and their readers."""


def _attention(fields: Mapping[str, Any], hidden_size: int) -> AttentionProfile:
    heads = count(fields, "num_attention_heads")
    if 2 * hidden_size % heads:
        raise BadField(
            f"config.json says num_attention_heads: {heads}; it must divide 2 × hidden_size, {2 * hidden_size}."
        )
    return AttentionProfile(heads, heads, 2 * hidden_size // heads)


def _layer(
    fields: Mapping[str, Any], attention: AttentionProfile, mlp: MlpProfile, kind: str
) -> LayerProfile:
    hidden_size, heads = count(fields, "hidden_size"), count(fields, "n_mamba_heads")
    inner = count(fields, "mamba_expand") * hidden_size
    state = StateProfile(
        "mamba2",
        conv_kernel=count(fields, "mamba_d_conv"),
        inner_size=inner,
        state_size=count(fields, "mamba_d_state"),
        num_heads=heads,
        head_dim=inner // heads,
        num_groups=count(fields, "mamba_ngroups"),
        chunk_size=chunk_size(fields),
    )
    biases = MixerBiases(flag(fields, "add_bias_linear"), flag(fields, "use_conv_bias"))
    prefix = _LAYER if kind == "m" else f"{_LAYER}.mamba_decoder"
    mixer = (
        *mamba2(f"{prefix}.mamba", state, hidden_size, biases),
        whole(f"{prefix}.input_layernorm.weight", (hidden_size,)),
    )
    if kind == "m":
        return LayerProfile((state,), None, mixer)
    own = (
        *mixer,
        *replicated_linear(f"{_LAYER}.linear", hidden_size, hidden_size),
        *cache_scales(f"{_LAYER}.shared_transformer.self_attn.attn"),
    )
    return LayerProfile((attention, state), mlp, own)


def _shared_block(
    fields: Mapping[str, Any], attention: AttentionProfile, mlp: MlpProfile, hybrid: list[int], block: int
) -> Tensors:
    """Give one shared block, under the name of the first layer that uses it."""
    hidden_size, number = count(fields, "hidden_size"), count(fields, "num_mem_blocks")
    prefix = f"model.layers.{hybrid[block]}.shared_transformer"
    wide = attention.num_heads * attention.head_dim
    tensors = (
        *qkv_linear(f"{prefix}.self_attn", attention, wide),
        *attention_output(f"{prefix}.self_attn", attention, hidden_size),
        *gated_mlp(f"{prefix}.feed_forward", mlp, hidden_size, parts=("gate_up_proj",)),
        whole(f"{prefix}.input_layernorm.weight", (2 * hidden_size,)),
        whole(f"{prefix}.pre_ff_layernorm.weight", (hidden_size,)),
    )
    for use in range(block, len(hybrid), number):
        if flag(fields, "use_shared_attention_adapter"):
            for name in ("q", "k", "v"):
                adapter = f"{prefix}.self_attn.linear_{name}_adapter_list.{use}"
                tensors += _adapter(adapter, wide, count(fields, "adapter_rank"), wide)
        adapter = f"{prefix}.feed_forward.gate_up_proj_adapter_list.{use}"
        tensors += _adapter(adapter, hidden_size, count(fields, "adapter_rank"), 2 * mlp.intermediate_size)
    return tensors


def _adapter(prefix: str, in_size: int, rank: int, out_size: int) -> Tensors:
    first = column_linear(f"{prefix}.0", {f"{prefix}.0": rank}, in_size)
    second = column_linear(f"{prefix}.1", {f"{prefix}.1": out_size}, rank)
    return (
        *engine_names(first, f"{prefix}.0", f"{prefix}.A"),
        *engine_names(second, f"{prefix}.1", f"{prefix}.B"),
    )
