"""Dense decoder families: in what they differ from one another, as a table.

Llama, Qwen2, Qwen3, Mistral and Phi-3 share one skeleton (grouped-query attention, gated feed-forward, two
norms a layer). What differs is which biases exist, how the head size is found, whether heads are
normalised, what absent fields mean, and how the checkpoint fuses tensors. Sources: the engine's model files
(`vllm/model_executor/models/{llama,qwen2,qwen3,mistral,phi3}.py`, 0.32.0) and the class defaults of
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    attention_output,
    cache_scales,
    embedding_and_head,
    gated_mlp,
    head_norms,
    qkv_linear,
    rope_tables,
    whole,
)
from stowage.model.config_fields import BadField, UnsupportedFeature, count, flag, refuse_features
from stowage.model.families.moe_layers import repeat_layers
from stowage.model.families.swiftkv import refuse_swiftkv
from stowage.model.families.windows import FULL, SLIDING, layer_types, layer_windows
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile
from stowage.model.rope import read_rope
from stowage.model.tensors import Place


@dataclass(frozen=True, slots=True)
class DenseFamily:
    """How one architecture fills the common skeleton.

    `biases`: "config" (attention_bias/qkv_bias/mlp_bias decide), "qkv" (always on q, k, v only) or "qwen3"
    (attention_bias, q, k, v only). `default_kv_heads` and `default_head_dim` apply where the field is
    absent; None means: as many as heads, and hidden size over heads. `window`: "plain" (sliding_window
    holds for all layers, absent means `default_window`) or "qwen" (only with use_sliding_window, from
    max_window_layers on). `fused_checkpoint`: the file already holds qkv and gate/up as one tensor each.
    """

    biases: str
    default_kv_heads: int | None = None
    default_head_dim: int | None = None
    derived_head_dim: bool = False
    qk_norm: bool = False
    window: str = "plain"
    default_window: int | None = None
    fused_checkpoint: bool = False


FAMILIES: Final[Mapping[str, DenseFamily]] = {
    "LlamaForCausalLM": DenseFamily(biases="config"),
    "LLaMAForCausalLM": DenseFamily(biases="config"),
    "InternLM3ForCausalLM": DenseFamily(biases="config"),
    "IQuestCoderForCausalLM": DenseFamily(biases="config"),
    "TeleChat3ForCausalLM": DenseFamily(biases="config"),
    "TeleFLMForCausalLM": DenseFamily(biases="config"),
    "MiMoForCausalLM": DenseFamily(biases="qkv", default_kv_heads=32, derived_head_dim=True, window="qwen"),
    "Ministral3ForCausalLM": DenseFamily(biases="config", default_kv_heads=8, default_head_dim=128),
    "MistralForCausalLM": DenseFamily(biases="config", default_kv_heads=8, default_window=4096),
    "Phi3ForCausalLM": DenseFamily(biases="config", fused_checkpoint=True),
    "Qwen2ForCausalLM": DenseFamily(biases="qkv", default_kv_heads=32, derived_head_dim=True, window="qwen"),
    "Qwen3ForCausalLM": DenseFamily(
        biases="qwen3", default_kv_heads=32, default_head_dim=128, qk_norm=True, window="qwen"
    ),
}


_QWEN_WINDOW: Final = 4096
_QWEN_FIRST_WINDOW: Final = 28
"""Class defaults of sliding_window and max_window_layers (transformers, Qwen2Config and Qwen3Config)."""

_NOT_DENSE: Final = ("dual_chunk_attention_config", "text_config", "vision_config", "num_experts")


def read_dense(config: Mapping[str, Any], family: DenseFamily) -> Anatomy:
    """Read one model of these families; raises BadField for missing, wrong or not supported values."""
    if config.get("swiftkv") or config.get("num_key_value_layers"):
        refuse_swiftkv(config)
    refuse_features(config, *_NOT_DENSE, "num_local_experts")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    attention, mlp = _attention(config, family), _mlp(config, family)
    windows = _windows(config, family)

    def layer(window: int | None) -> LayerProfile:
        own = replace(attention, sliding_window=window)
        return LayerProfile((own,), mlp, _layer_tensors(own, mlp, hidden_size, family))

    rope, tied = read_rope(config, attention.head_dim), flag(config, "tie_word_embeddings")
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(len(windows), windows.__getitem__, layer),
        outer_tensors=(
            *embedding_and_head(vocab_size, hidden_size, tied=tied),
            whole("model.norm.weight", (hidden_size,), place=Place.LAST),
            *rope_tables(rope.cache),
        ),
        tie_word_embeddings=tied,
        rope=rope,
    )


READERS: Final = {name: partial(read_dense, family=family) for name, family in FAMILIES.items()}
"""The architectures of this file and their readers."""


def _layer_tensors(
    attention: AttentionProfile, mlp: MlpProfile, hidden_size: int, family: DenseFamily
) -> Tensors:
    prefix, fused = "model.layers.{}", family.fused_checkpoint
    qkv = ("qkv_proj",) if fused else ("q_proj", "k_proj", "v_proj")
    gate_up = ("gate_up_proj",) if fused else ("gate_proj", "up_proj")
    return (
        *qkv_linear(f"{prefix}.self_attn", attention, hidden_size, parts=qkv),
        *attention_output(f"{prefix}.self_attn", attention, hidden_size),
        *head_norms(f"{prefix}.self_attn", attention),
        *gated_mlp(f"{prefix}.mlp", mlp, hidden_size, parts=gate_up),
        whole(f"{prefix}.input_layernorm.weight", (hidden_size,)),
        whole(f"{prefix}.post_attention_layernorm.weight", (hidden_size,)),
        *cache_scales(f"{prefix}.self_attn.attn"),
    )


def _attention(config: Mapping[str, Any], family: DenseFamily) -> AttentionProfile:
    heads = count(config, "num_attention_heads")
    kv_heads = count(config, "num_key_value_heads", family.default_kv_heads or heads)
    if heads % kv_heads:
        raise BadField(
            f"config.json says num_key_value_heads: {kv_heads}; it must divide {heads} attention heads."
        )
    qkv_bias, output_bias = _attention_biases(config, family)
    return AttentionProfile(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_head_dim(config, family, heads),
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        qk_norm=family.qk_norm or flag(config, "qk_norm"),
    )


def _head_dim(config: Mapping[str, Any], family: DenseFamily, heads: int) -> int:
    hidden = count(config, "hidden_size")
    if config.get("head_dim") is not None and not family.derived_head_dim:
        return count(config, "head_dim")
    if family.default_head_dim is not None:
        return family.default_head_dim
    if hidden % heads:
        raise BadField(
            f"config.json says hidden_size: {hidden}; it must be a multiple of {heads} attention heads."
        )
    return hidden // heads


def _attention_biases(config: Mapping[str, Any], family: DenseFamily) -> tuple[bool, bool]:
    if family.biases == "qkv":
        return True, False
    attention_bias = flag(config, "attention_bias")
    if family.biases == "qwen3":
        return attention_bias, False
    attention_bias = attention_bias or flag(config, "bias")
    return flag(config, "qkv_bias", attention_bias), attention_bias


def _mlp(config: Mapping[str, Any], family: DenseFamily) -> MlpProfile:
    bias = family.biases == "config" and flag(config, "mlp_bias")
    return MlpProfile(intermediate_size=count(config, "intermediate_size"), bias=bias)


def _windows(config: Mapping[str, Any], family: DenseFamily) -> tuple[int | None, ...]:
    """Give the window of every layer; the Qwen families have it on all layers or on none."""
    number = count(config, "num_hidden_layers")
    if family.window == "plain":
        stated = config.get("sliding_window", family.default_window)
        return layer_windows({**config, "sliding_window": stated}, number)
    stated = config.get("sliding_window", _QWEN_WINDOW)
    if not flag(config, "use_sliding_window") or stated in (None, 0):
        return (None,) * number
    windows = layer_windows(
        {**config, "sliding_window": stated, "layer_types": _qwen_types(config, number)}, number
    )
    if len(set(windows)) > 1:
        raise UnsupportedFeature(
            "config.json has a sliding window for some layers only, which the engine refuses for this family."
        )
    return windows


def _qwen_types(config: Mapping[str, Any], number: int) -> list[str]:
    """Read layer_types; where the field is absent, layers slide from `max_window_layers` on."""
    if config.get("layer_types") is not None:
        return list(layer_types(config, number) or ())
    first = config.get("max_window_layers", _QWEN_FIRST_WINDOW)
    if type(first) is not int or first < 0:
        raise BadField("config.json has max_window_layers that is not a whole number of at least 0.")
    return [SLIDING if index >= first else FULL for index in range(number)]
