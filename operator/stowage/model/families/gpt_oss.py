"""gpt-oss: sinks and biases everywhere, a window on every second layer, a rotary table in 32 bits.

The checkpoint keeps the experts of a layer together, as published in MXFP4; here they have their plain
shape, and what a quantised layout makes of them (padding included) is decided elsewhere. Source:
`vllm/model_executor/models/gpt_oss.py` (0.32.0) and GptOssConfig of transformers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, whole
from stowage.model.config_fields import count, mapping, refuse_features
from stowage.model.families.moe_layers import (
    Config,
    Router,
    engine_names,
    outer_tensors,
    read_head_dim,
    read_heads,
    repeat_layers,
    router_tensors,
    self_attention,
    sinks,
    stacked_experts,
)
from stowage.model.profile import AttentionProfile, LayerProfile, MoeProfile
from stowage.model.rope import Rope, read_rope
from stowage.model.tensors import ParameterTensor, Place, Shard, StoredTensor

_DEFAULT_ROPE: Final[dict[str, Any]] = {
    "rope_type": "yarn",
    "factor": 32.0,
    "original_max_position_embeddings": 4096,
}
_LAYER: Final = "model.layers.{}"


def read_gpt_oss(config: Config) -> Anatomy:
    """Read a gpt-oss model; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config", "vision_config")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    moe = MoeProfile(
        num_experts=count(config, "num_local_experts", 128),
        num_experts_per_tok=count(config, "num_experts_per_tok", 4),
        intermediate_size=count(config, "intermediate_size"),
    )
    rope = _rope(config)
    windowed, full = _attention(config, count(config, "sliding_window", 128)), _attention(config, None)
    layers = repeat_layers(
        count(config, "num_hidden_layers"),
        lambda layer: windowed if layer % 2 == 0 else full,
        lambda attention: LayerProfile((attention,), moe, _tensors(attention, moe, hidden_size)),
    )
    outer = outer_tensors(vocab_size, hidden_size, rope.cache, tied=False, everywhere=True)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=layers,
        outer_tensors=engine_names(outer, "model.embed_tokens", "model.embedding"),
        tie_word_embeddings=False,
        rope=rope,
    )


READERS: Final = {"GptOssForCausalLM": partial(read_gpt_oss)}
"""The architectures of this file and their readers."""


def _attention(config: Config, window: int | None) -> AttentionProfile:
    heads, kv_heads = read_heads(config, 8)
    head_dim = read_head_dim({"head_dim": 64, **config}, heads)
    return AttentionProfile(heads, kv_heads, head_dim, True, True, sliding_window=window)


def _rope(config: Config) -> Rope:
    stated = mapping(config, "rope_parameters") or mapping(config, "rope_scaling")
    rope = read_rope(config if stated else {**config, "rope_parameters": _DEFAULT_ROPE}, _head_dim(config))
    return replace(rope, cache=replace(rope.cache, element_bytes=4))


def _head_dim(config: Config) -> int:
    return _attention(config, None).head_dim


def _tensors(attention: AttentionProfile, moe: MoeProfile, hidden_size: int) -> Tensors:
    block = f"{_LAYER}.mlp"
    own = self_attention(f"{_LAYER}.self_attn", attention, hidden_size)
    return (
        sinks(f"{_LAYER}.attn.sinks", attention.num_heads, stored=f"{_LAYER}.self_attn.sinks"),
        *engine_names(own, f"{_LAYER}.self_attn", f"{_LAYER}.attn"),
        *router_tensors(block, Router("router", bias=True), moe.num_experts, hidden_size, stored=block),
        *_experts(f"{block}.experts", moe, hidden_size),
        whole(f"{_LAYER}.input_layernorm.weight", (hidden_size,)),
        whole(f"{_LAYER}.post_attention_layernorm.weight", (hidden_size,)),
    )


def _experts(prefix: str, moe: MoeProfile, hidden_size: int) -> Tensors:
    inner, number = moe.intermediate_size, moe.num_experts
    biases = []
    for name, kept_name, size, shard in (
        ("w13_bias", "gate_up_proj_bias", 2 * inner, Shard.EXPERT_COLUMNS),
        ("w2_bias", "down_proj_bias", hidden_size, Shard.EXPERTS),
    ):
        kept = (StoredTensor(f"{prefix}.{kept_name}", (number, size)),)
        full = f"{prefix}.routed_experts.{name}"
        biases.append(ParameterTensor(full, (number, size), shard, Place.LAYER, stored=kept))
    weights = stacked_experts(
        prefix,
        moe,
        hidden_size,
        gate_up=(StoredTensor(f"{prefix}.gate_up_proj", (number, hidden_size, 2 * inner)),),
        down=StoredTensor(f"{prefix}.down_proj", (number, inner, hidden_size)),
    )
    return (*weights, *biases)
