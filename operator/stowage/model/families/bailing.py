"""Bailing MoE (Ling, Ring, Sarvam): fused attention in the checkpoint, dense layers first, shared experts.

Source: `vllm/model_executor/models/bailing_moe.py` and `sarvam.py`, which subclasses it (0.32.0). The configuration
class lives in the model's own repository, so that absent fields have the meaning that the engine's file gives them.
"""

from __future__ import annotations

from functools import partial
from typing import Final

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
    outer_tensors,
    read_head_dim,
    read_heads,
    repeat_layers,
    router_tensors,
)
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import Rope, read_rope

_LAYER: Final = "model.layers.{}"


def read_bailing(config: Config) -> Anatomy:
    """Read a Bailing MoE model; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    heads, kv_heads = read_heads(config)
    bias = flag(config, "use_bias")
    attention = AttentionProfile(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=read_head_dim(config, heads),
        qkv_bias=bias or flag(config, "use_qkv_bias"),
        output_bias=bias,
        qk_norm=flag(config, "use_qk_norm"),
    )
    rope, tied = _rope(config, attention.head_dim), flag(config, "tie_word_embeddings")
    dense = config.get("first_k_dense_replace", 0)
    if type(dense) is not int or dense < 0:
        raise BadField("config.json has first_k_dense_replace that is not a whole number of at least 0.")
    outer = outer_tensors(vocab_size, hidden_size, rope.cache, tied=tied, embedding="model.word_embeddings")
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(
            count(config, "num_hidden_layers"),
            lambda layer: layer >= dense,
            partial(_layer, config, attention),
        ),
        outer_tensors=outer,
        tie_word_embeddings=tied,
        rope=rope,
    )


READERS: Final = {
    "BailingMoeForCausalLM": partial(read_bailing),
    "BailingMoeV2ForCausalLM": partial(read_bailing),
    "SarvamMoEForCausalLM": partial(read_bailing),
}
"""The architectures of this file and their readers."""


def _rope(config: Config, head_dim: int) -> Rope:
    if config.get("rotary_dim") is None:
        return read_rope(config, head_dim)
    return read_rope({**config, "partial_rotary_factor": count(config, "rotary_dim") / head_dim}, head_dim)


def _layer(config: Config, attention: AttentionProfile, sparse: bool) -> LayerProfile:
    hidden_size = count(config, "hidden_size")
    tensors = (
        *_attention_tensors(config, attention, hidden_size),
        whole(f"{_LAYER}.input_layernorm.weight", (hidden_size,)),
        whole(f"{_LAYER}.post_attention_layernorm.weight", (hidden_size,)),
    )
    bias = flag(config, "use_bias")
    if not sparse:
        mlp = MlpProfile(count(config, "intermediate_size"), bias)
        return LayerProfile((attention,), mlp, (*tensors, *gated_mlp(f"{_LAYER}.mlp", mlp, hidden_size)))
    inner = count(config, "moe_intermediate_size")
    shared = count(config, "num_shared_experts") if config.get("num_shared_experts") else 0
    moe = MoeProfile(
        num_experts=count(config, "num_experts"),
        num_experts_per_tok=count(config, "num_experts_per_tok"),
        intermediate_size=inner,
        shared_intermediate_size=shared * count(config, "moe_shared_expert_intermediate_size", inner),
    )
    return LayerProfile((attention,), moe, (*tensors, *_sparse_block(config, moe, bias)))


def _attention_tensors(config: Config, attention: AttentionProfile, hidden_size: int) -> Tensors:
    prefix, fused = f"{_LAYER}.attention", "query_key_value"
    tensors = [
        *qkv_linear(prefix, attention, hidden_size, name=fused, parts=(fused,)),
        *attention_output(prefix, attention, hidden_size, name="dense"),
        *cache_scales(f"{prefix}.attn"),
    ]
    if attention.qk_norm:
        kinds = ("weight",) if flag(config, "use_rmsnorm") else ("weight", "bias")
        tensors += [
            whole(f"{prefix}.{norm}.{kind}", (attention.head_dim,))
            for norm in ("query_layernorm", "key_layernorm")
            for kind in kinds
        ]
    return tuple(tensors)


def _sparse_block(config: Config, moe: MoeProfile, bias: bool) -> Tensors:
    block, hidden_size = f"{_LAYER}.mlp", count(config, "hidden_size")
    corrected = flag(config, "moe_router_enable_expert_bias")
    rule = Router(
        fp32=word(config, "router_dtype") == "fp32", correction="gate.expert_bias" if corrected else None
    )
    tensors = [
        *router_tensors(block, rule, moe.num_experts, hidden_size, stored=block),
        *experts(f"{block}.experts", moe, hidden_size, stored=f"{block}.experts.{{}}"),
    ]
    if moe.shared_intermediate_size:
        mlp = MlpProfile(moe.shared_intermediate_size, bias)
        tensors += gated_mlp(f"{block}.shared_experts", mlp, hidden_size)
    return tuple(tensors)
