"""The reader for mixture-of-experts decoders that share one skeleton; `moe_table` says how they differ.

Grouped-query attention, two norms a layer, and a block of experts in all layers or some. It knows no
architecture by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, experts, gated_mlp, replicated_linear, whole
from stowage.model.config_fields import count, flag, refuse_features
from stowage.model.families.moe_layers import (
    Config,
    layer_windows,
    outer_tensors,
    read_head_dim,
    read_heads,
    repeat_layers,
    router_tensors,
    self_attention,
    shared_gate,
    wide_norms,
)
from stowage.model.families.moe_table import FAMILIES, MoeFamily
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import Rope, read_rope
from stowage.model.tensors import ParameterTensor, Place, Shard, StoredTensor


def read_moe(config: Config, family: MoeFamily) -> Anatomy:
    """Read one model of these families; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "dual_chunk_attention_config", "text_config", "vision_config")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    attention, windows = _attention(config, family), _windows(config, family)
    tied = family.ties and flag(config, "tie_word_embeddings", family.tied_by_default)
    rope = _rope(config, family, attention.head_dim)
    outer = outer_tensors(vocab_size, hidden_size, rope.cache, tied=tied, everywhere=family.everywhere)
    if family.norm_bias:
        outer += _outer_biases(vocab_size, hidden_size)

    def make(kind: tuple[bool, int | None]) -> LayerProfile:
        return _layer(config, family, replace(attention, sliding_window=kind[1]), kind[0])

    layers = repeat_layers(
        len(windows), lambda layer: (family.is_sparse(config, layer), windows[layer]), make
    )
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=layers,
        outer_tensors=outer,
        tie_word_embeddings=tied,
        rope=rope,
        draft_layers=_draft_layers(config, family, lambda: make((True, windows[-1]))),
    )


READERS: Final = {name: partial(read_moe, family=family) for name, family in FAMILIES.items()}
"""The architectures of this file and their readers."""


def _layer(config: Config, family: MoeFamily, attention: AttentionProfile, sparse: bool) -> LayerProfile:
    hidden_size, prefix = count(config, "hidden_size"), "model.layers.{}"
    tensors = list(self_attention(f"{prefix}.self_attn", attention, hidden_size))
    if family.norms in ("whole", "divided"):
        tensors += wide_norms(f"{prefix}.self_attn", attention, divided=family.norms == "divided")
    for norm in ("input_layernorm", "post_attention_layernorm"):
        tensors.append(whole(f"{prefix}.{norm}.weight", (hidden_size,)))
        if family.norm_bias:
            tensors.append(whole(f"{prefix}.{norm}.bias", (hidden_size,)))
    if not sparse:
        mlp = MlpProfile(count(config, "intermediate_size"), bias=_has(config, family.mlp_bias))
        return LayerProfile((attention,), mlp, (*tensors, *gated_mlp(f"{prefix}.mlp", mlp, hidden_size)))
    moe = _moe(config, family)
    block = _sparse_block(config, family, moe, f"{prefix}.{family.block}")
    return LayerProfile((attention,), moe, (*tensors, *block))


def _outer_biases(vocab_size: int, hidden_size: int) -> Tensors:
    """Give the biases of the last norm and of the head, which PhiMoE always has."""
    kept = (StoredTensor("lm_head.bias", (vocab_size,)),)
    return (
        whole("model.norm.bias", (hidden_size,), place=Place.EVERY),
        ParameterTensor("lm_head.bias", (vocab_size,), Shard.VOCABULARY, Place.EVERY, stored=kept),
    )


def _moe(config: Config, family: MoeFamily) -> MoeProfile:
    present = [name for name in family.num_experts if config.get(name) is not None]
    return MoeProfile(
        num_experts=count(config, (present or list(family.num_experts))[0]),
        num_experts_per_tok=count(config, family.top_k),
        intermediate_size=count(config, family.expert_size),
        shared_intermediate_size=family.shared_size(config),
    )


def _sparse_block(config: Config, family: MoeFamily, moe: MoeProfile, block: str) -> Tensors:
    hidden_size, rule = count(config, "hidden_size"), family.router
    if family.correction_field is not None and not flag(config, family.correction_field):
        rule = replace(rule, correction=None)
    tensors = [
        *router_tensors(block, rule, moe.num_experts, hidden_size, stored=block),
        *experts(f"{block}.experts", moe, hidden_size, stored=f"{block}.experts.{{}}", parts=family.parts),
    ]
    if moe.shared_intermediate_size:
        shared = MlpProfile(moe.shared_intermediate_size)
        tensors += gated_mlp(f"{block}.{family.shared_name}", shared, hidden_size)
    if moe.shared_intermediate_size and family.has_shared_gate:
        tensors += shared_gate(f"{block}.shared_expert_gate", hidden_size)
    return tuple(tensors)


def _attention(config: Config, family: MoeFamily) -> AttentionProfile:
    heads, kv_heads = read_heads(config, family.default_kv_heads)
    asked = family.norms == "asked" and flag(config, family.norm_field)
    if family.default_head_dim is not None:
        config = {"head_dim": family.default_head_dim, **config}
    return AttentionProfile(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=read_head_dim(config, heads, derived=family.derived_head_dim),
        qkv_bias=_has(config, family.qkv_bias),
        output_bias=_has(config, family.output_bias),
        qk_norm=asked or family.norms == "heads",
    )


def _has(config: Config, rule: str) -> bool:
    """Tell whether something is there: "always", "" (never), or as a field of config.json says."""
    return rule == "always" or (bool(rule) and flag(config, rule))


def _windows(config: Config, family: MoeFamily) -> list[int | None]:
    """Give the window of each layer; one for all does not hold where layer_types names a layer without."""
    number = count(config, "num_hidden_layers")
    if family.window == "listed":
        return layer_windows(config, number)
    asked = family.window == "plain" or (family.window == "asked" and flag(config, "use_sliding_window"))
    kinds = config.get("layer_types")
    mixed = isinstance(kinds, list) and any(kind != "sliding_attention" for kind in kinds)
    if not asked or mixed or config.get("sliding_window") in (None, 0):
        return [None] * number
    return [count(config, "sliding_window")] * number


def _rope(config: Config, family: MoeFamily, head_dim: int) -> Rope:
    """Read the rotary embedding; a rotary_dim stands in for an absent share of the head."""
    if config.get("partial_rotary_factor") is not None:
        return read_rope(config, head_dim)
    share = family.default_rotary
    if config.get("rotary_dim") is not None:
        share = count(config, "rotary_dim") / head_dim
    return read_rope({**config, "partial_rotary_factor": share}, head_dim)


def _draft_layers(
    config: Config, family: MoeFamily, make: Callable[[], LayerProfile]
) -> tuple[LayerProfile, ...]:
    """Give the layers for multi-token prediction; embedding and head are the model's own."""
    stated = config.get("num_nextn_predict_layers")
    number = family.default_drafts if stated is None else stated
    if not family.draft_norms or number == 0:
        return ()
    prefix, hidden_size = "model.layers.{}", count(config, "hidden_size")
    layer = make()
    norms = (whole(f"{prefix}.{norm}.weight", (hidden_size,)) for norm in family.draft_norms)
    joined = replicated_linear(f"{prefix}.eh_proj", hidden_size, 2 * hidden_size)
    draft = replace(layer, tensors=(*layer.tensors, *norms, *joined))
    return (draft,) * count({"num_nextn_predict_layers": number}, "num_nextn_predict_layers")
