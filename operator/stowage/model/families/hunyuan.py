"""Hunyuan MoE (A13B), which the engine runs through its backend for transformers models.

The rotary embedding keeps two vectors of frequencies and no table. Sizes of experts and of the shared one are
both intermediate_size; numbers may be lists with one entry a layer. Sources: vLLM 0.32.0
(`model_executor/models/transformers/`) and `models/hunyuan_v1_moe` of transformers.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, cache_scales, experts, gated_mlp, qkv_linear, row_linear, whole
from stowage.model.config_fields import UnsupportedFeature, count, flag, mapping, refuse_features
from stowage.model.families.moe_layers import (
    Config,
    Router,
    outer_tensors,
    read_head_dim,
    read_heads,
    router_tensors,
)
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import Rope, read_rope
from stowage.model.tensors import ParameterTensor, Place, Shard

_LAYER: Final = "model.layers.{}"


def read_hunyuan_moe(config: Config) -> Anatomy:
    """Read a Hunyuan MoE; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config", "use_cla")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    heads, kv_heads = read_heads(config)
    bias, inner = flag(config, "attention_bias"), count(config, "intermediate_size")
    head_dim = read_head_dim(config, heads)
    attention = AttentionProfile(heads, kv_heads, head_dim, bias, bias, qk_norm=True)
    moe = MoeProfile(
        num_experts=_same_everywhere(config, "num_experts"),
        num_experts_per_tok=_same_everywhere(config, "moe_topk"),
        intermediate_size=inner,
        shared_intermediate_size=inner,
    )
    layer = LayerProfile((attention,), moe, _tensors(attention, moe, hidden_size))
    tied = flag(config, "tie_word_embeddings")
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=(layer,) * count(config, "num_hidden_layers"),
        outer_tensors=(*outer_tensors(vocab_size, hidden_size, tied=tied), *_frequencies(head_dim)),
        tie_word_embeddings=tied,
        rope=_rope(config, head_dim),
    )


READERS: Final = {"HunYuanMoEV1ForCausalLM": partial(read_hunyuan_moe)}
"""The architectures of this file and their readers."""


def _same_everywhere(config: Config, name: str) -> int:
    """Read a number that may be given as a list with one entry a layer, all of them equal."""
    value: Any = config.get(name)
    if isinstance(value, list) and value:
        if any(entry != value[0] for entry in value):
            raise UnsupportedFeature(
                f"config.json says different {name} for different layers, which is not sized."
            )
        value = value[0]
    return count({name: value}, name)


def _rope(config: Config, head_dim: int) -> Rope:
    """Read the context limit; the base is stretched by alpha once, which takes no memory."""
    name = "rope_parameters" if mapping(config, "rope_parameters") else "rope_scaling"
    scaling = {key: value for key, value in mapping(config, name).items() if key != "alpha"}
    return read_rope({**config, name: scaling}, head_dim)


def _frequencies(head_dim: int) -> Tensors:
    return tuple(
        ParameterTensor(
            f"model.rotary_emb.{name}", (head_dim // 2,), Shard.REPLICATED, Place.EVERY, element_bytes=4
        )
        for name in ("inv_freq", "original_inv_freq")
    )


def _tensors(attention: AttentionProfile, moe: MoeProfile, hidden_size: int) -> Tensors:
    prefix, block = f"{_LAYER}.self_attn", f"{_LAYER}.mlp"
    wide = attention.num_heads * attention.head_dim
    shared = MlpProfile(moe.shared_intermediate_size)
    return (
        *qkv_linear(prefix, attention, hidden_size),
        *row_linear(f"{prefix}.o_proj", hidden_size, wide, bias=attention.output_bias),
        whole(f"{prefix}.query_layernorm.weight", (attention.head_dim,)),
        whole(f"{prefix}.key_layernorm.weight", (attention.head_dim,)),
        *cache_scales(f"{prefix}.attn"),
        *router_tensors(block, Router("gate.wg"), moe.num_experts, hidden_size, stored=block),
        *experts(f"{block}.experts", moe, hidden_size, stored=f"{block}.experts.{{}}"),
        *gated_mlp(f"{block}.shared_mlp", shared, hidden_size),
        whole(f"{_LAYER}.input_layernorm.weight", (hidden_size,)),
        whole(f"{_LAYER}.post_attention_layernorm.weight", (hidden_size,)),
    )
