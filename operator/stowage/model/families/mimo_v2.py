"""MiMo V2: window layers with their own numbers of heads, attention sinks, and narrower values than keys.

Source: `vllm/model_executor/models/mimo_v2.py` (0.32.0). The configuration class lives in the model's own
repository, so that absent fields have the meaning that the engine's file gives them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    attention_output,
    cache_scales,
    experts,
    gated_mlp,
    qkv_linear,
    whole,
)
from stowage.model.config_fields import BadField, count, flag, refuse_features, word
from stowage.model.families.moe_layers import (
    Config,
    Router,
    list_of,
    outer_tensors,
    repeat_layers,
    router_tensors,
    sinks,
)
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import read_rope

_LAYER: Final = "model.layers.{}"


def read_mimo_v2(config: Config, *, fused: bool) -> Anatomy:
    """Read a MiMo V2 model; `fused`: the checkpoint holds query, key and value as one.

    Raises BadField for missing, wrong or not supported values.
    """
    refuse_features(config, "vision_config")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    number = count(config, "num_hidden_layers")
    windowed, sparse = _flags(config, "hybrid_layer_pattern"), _sparse_flags(config)
    layers = repeat_layers(
        number,
        lambda layer: (windowed[layer], sparse[layer]),
        lambda kind: _layer(config, fused, windowed=kind[0], sparse=kind[1]),
    )
    rope = read_rope(config, count(config, "head_dim"))
    bases = {
        config.get("swa_rope_theta", config.get("rope_theta")) if w else config.get("rope_theta")
        for w in windowed
    }
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=layers,
        outer_tensors=outer_tensors(vocab_size, hidden_size, *[rope.cache] * len(bases), tied=False),
        tie_word_embeddings=False,
        rope=rope,
    )


READERS: Final = {
    "MiMoV2FlashForCausalLM": partial(read_mimo_v2, fused=False),
    "MiMoV2ForCausalLM": partial(read_mimo_v2, fused=True),
}
"""The architectures of this file and their readers."""


def _flags(config: Config, name: str) -> list[bool]:
    entries = list_of(config, name, count(config, "num_hidden_layers"))
    if entries is None:
        raise BadField(f"config.json has no {name}, which tells the kinds of layers.")
    return [entry == 1 for entry in entries]


def _sparse_flags(config: Config) -> list[bool]:
    """Tell which layers have experts: those that moe_layer_freq lists; a number means none."""
    if not isinstance(config.get("moe_layer_freq"), list):
        return [False] * count(config, "num_hidden_layers")
    return _flags(config, "moe_layer_freq")


def _attention(config: Config, *, windowed: bool) -> AttentionProfile:
    prefix = "swa_" if windowed else ""
    heads = count(config, f"{prefix}num_attention_heads")
    kv_heads = count(config, f"{prefix}num_key_value_heads")
    if heads % kv_heads:
        field = f"{prefix}num_key_value_heads"
        raise BadField(f"config.json says {field}: {kv_heads}; it must divide {heads} attention heads.")
    head_dim = count(config, f"{prefix}head_dim")
    return AttentionProfile(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        qkv_bias=flag(config, "attention_bias"),
        sliding_window=count(config, "sliding_window_size") if windowed else None,
        value_dim=count(config, f"{prefix}v_head_dim", head_dim),
    )


def _layer(config: Config, fused: bool, **kind: Any) -> LayerProfile:
    hidden_size, prefix = count(config, "hidden_size"), f"{_LAYER}.self_attn"
    attention = _attention(config, windowed=kind["windowed"])
    parts = ("qkv_proj",) if fused else ("q_proj", "k_proj", "v_proj")
    tensors = [
        *qkv_linear(prefix, attention, hidden_size, parts=parts),
        *attention_output(prefix, attention, hidden_size),
        *cache_scales(f"{prefix}.attn"),
        whole(f"{_LAYER}.input_layernorm.weight", (hidden_size,)),
        whole(f"{_LAYER}.post_attention_layernorm.weight", (hidden_size,)),
    ]
    if kind["windowed"] and flag(config, "add_swa_attention_sink_bias"):
        tensors.append(sinks(f"{prefix}.attention_sink_bias", attention.num_heads))
    if not kind["sparse"]:
        mlp = MlpProfile(count(config, "intermediate_size"))
        return LayerProfile((attention,), mlp, (*tensors, *gated_mlp(f"{_LAYER}.mlp", mlp, hidden_size)))
    moe = MoeProfile(
        num_experts=count(config, "n_routed_experts"),
        num_experts_per_tok=count(config, "num_experts_per_tok"),
        intermediate_size=count(config, "moe_intermediate_size"),
    )
    return LayerProfile((attention,), moe, (*tensors, *_sparse_block(config, moe, hidden_size)))


def _sparse_block(config: Config, moe: MoeProfile, hidden_size: int) -> Tensors:
    block = f"{_LAYER}.mlp"
    fp32 = (word(config, "moe_router_dtype") or "float32") == "float32"
    rule = Router(fp32=fp32, correction="gate.e_score_correction_bias")
    return (
        *router_tensors(block, rule, moe.num_experts, hidden_size, stored=block),
        *experts(f"{block}.experts", moe, hidden_size, stored=f"{block}.experts.{{}}"),
    )
