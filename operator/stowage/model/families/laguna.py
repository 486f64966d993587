"""Laguna: window and full attention with different numbers of heads, gated outputs, one shared expert.

Gate and up projections stay apart in the engine; each kind of attention has its own rotary table. Source:
`vllm/model_executor/models/laguna.py` (0.32.0) and LagunaConfig of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, column_linear, experts, row_linear, whole
from stowage.model.config_fields import BadField, count, flag, mapping, refuse_features, word
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
)
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import Rope, read_rope

_LAYER: Final = "model.layers.{}"
_ROPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "full_attention": {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
}
"""Class default of rope_parameters (transformers, LagunaConfig)."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What tells layers apart."""

    num_heads: int
    windowed: bool
    sparse: bool


def read_laguna(config: Config) -> Anatomy:
    """Read a Laguna model; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    kinds, tied = _kinds(config), flag(config, "tie_word_embeddings")
    ropes = _ropes(config, kinds)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(len(kinds), kinds.__getitem__, partial(_layer, config)),
        outer_tensors=outer_tensors(vocab_size, hidden_size, *(rope.cache for rope in ropes), tied=tied),
        tie_word_embeddings=tied,
        rope=max(ropes, key=lambda rope: rope.max_model_len),
    )


READERS: Final = {"LagunaForCausalLM": partial(read_laguna)}
"""The architectures of this file and their readers."""


def _kinds(config: Config) -> list[_Kind]:
    number, heads = count(config, "num_hidden_layers"), count(config, "num_attention_heads")
    windows = list_of(config, "layer_types", number) or ["full_attention"] * number
    per_layer = list_of(config, "num_attention_heads_per_layer", number) or [heads] * number
    blocks = list_of(config, "mlp_layer_types", number) or ["dense"] + ["sparse"] * (number - 1)
    if not all(type(entry) is int and entry > 0 for entry in per_layer):
        raise BadField("config.json has num_attention_heads_per_layer that is not a list of whole numbers.")
    has_experts = config.get("num_experts") != 0
    return [
        _Kind(per_layer[n], windows[n] == "sliding_attention", has_experts and blocks[n] == "sparse")
        for n in range(number)
    ]


def _ropes(config: Config, kinds: list[_Kind]) -> list[Rope]:
    """Give the distinct rotary tables of the layers; flat parameters hold for both kinds of attention."""
    stated = mapping(config, "rope_parameters") or mapping(config, "rope_scaling")
    nested = not stated or any(isinstance(entry, Mapping) for entry in stated.values())
    head_dim = read_head_dim({"head_dim": 128, **config}, kinds[0].num_heads)
    ropes: dict[str, Rope] = {}
    for windowed in sorted({kind.windowed for kind in kinds}):
        name = "sliding_attention" if windowed else "full_attention"
        by_kind = stated or _ROPES
        own = by_kind.get(name) or by_kind.get("full_attention") or {} if nested else stated
        if windowed and config.get("swa_rope_parameters") is not None:
            own = mapping(config, "swa_rope_parameters")
        key = repr(sorted(own.items()))
        ropes.setdefault(
            key, read_rope({**config, "rope_parameters": dict(own), "rope_scaling": None}, head_dim)
        )
    return list(ropes.values())


def _attention(config: Config, kind: _Kind) -> AttentionProfile:
    _, kv_heads = read_heads({**config, "num_attention_heads": kind.num_heads}, 8)
    bias = flag(config, "attention_bias")
    return AttentionProfile(
        num_heads=kind.num_heads,
        num_kv_heads=kv_heads,
        head_dim=read_head_dim({"head_dim": 128, **config}, kind.num_heads),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
        sliding_window=count(config, "sliding_window", 512) if kind.windowed else None,
    )


def _layer(config: Config, kind: _Kind) -> LayerProfile:
    hidden_size, attention = count(config, "hidden_size"), _attention(config, kind)
    tensors = [*self_attention(f"{_LAYER}.self_attn", attention, hidden_size)]
    tensors += _output_gate(config, attention, hidden_size)
    if kind.windowed and flag(config, "swa_attention_sink_enabled"):
        tensors.append(sinks(f"{_LAYER}.self_attn.sink", kind.num_heads))
    tensors += [
        whole(f"{_LAYER}.{norm}.weight", (hidden_size,))
        for norm in ("input_layernorm", "post_attention_layernorm")
    ]
    if not kind.sparse:
        mlp = MlpProfile(count(config, "intermediate_size"))
        block = _split_mlp(f"{_LAYER}.mlp", mlp.intermediate_size, hidden_size)
        return LayerProfile((attention,), mlp, (*tensors, *block))
    shared = config.get("shared_expert_intermediate_size", 512)
    moe = MoeProfile(
        num_experts=count(config, "num_experts"),
        num_experts_per_tok=count(config, "num_experts_per_tok", 8),
        intermediate_size=count(config, "moe_intermediate_size"),
        shared_intermediate_size=count(config, "shared_expert_intermediate_size", 512) if shared else 0,
    )
    return LayerProfile((attention,), moe, (*tensors, *_sparse_block(moe, hidden_size)))


def _output_gate(config: Config, attention: AttentionProfile, hidden_size: int) -> Tensors:
    """Give the gate on attention outputs: one number a head, or one an element."""
    gating = config.get("gating", True)
    if gating is None or gating is False:
        return ()
    per_head = gating is True or word(config, "gating") == "per-head"
    rows = attention.num_heads * (1 if per_head else attention.head_dim)
    prefix = f"{_LAYER}.self_attn.g_proj"
    return column_linear(prefix, {prefix: rows}, hidden_size)


def _split_mlp(prefix: str, inner: int, hidden_size: int) -> Tensors:
    return (
        *column_linear(f"{prefix}.gate_proj", {f"{prefix}.gate_proj": inner}, hidden_size),
        *column_linear(f"{prefix}.up_proj", {f"{prefix}.up_proj": inner}, hidden_size),
        *row_linear(f"{prefix}.down_proj", hidden_size, inner),
    )


def _sparse_block(moe: MoeProfile, hidden_size: int) -> Tensors:
    block = f"{_LAYER}.mlp"
    rule = Router(
        correction="experts.routed_experts.e_score_correction_bias",
        stored_correction="experts.e_score_correction_bias",
    )
    tensors = [
        *router_tensors(block, rule, moe.num_experts, hidden_size, stored=block),
        *experts(f"{block}.experts", moe, hidden_size, stored=f"{block}.experts.{{}}"),
    ]
    if moe.shared_intermediate_size:
        tensors += _split_mlp(f"{block}.shared_expert", moe.shared_intermediate_size, hidden_size)
    return tuple(tensors)
