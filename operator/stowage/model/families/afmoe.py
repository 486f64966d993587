"""Arcee Foundation MoE (Trinity): gated attention outputs, four norms a layer, rotary embedding in windows only.

Source: `vllm/model_executor/models/afmoe.py` (0.32.0) and AfmoeConfig of transformers.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, column_linear, experts, gated_mlp, whole
from stowage.model.config_fields import BadField, count, refuse_features
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
)
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import read_rope

_LAYER: Final = "model.layers.{}"
_NORMS: Final = ("input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm")


def read_afmoe(config: Config) -> Anatomy:
    """Read an AFMoE model; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    windows, dense = _windows(config), config.get("num_dense_layers", 1)
    if type(dense) is not int or dense < 0:
        raise BadField("config.json has num_dense_layers that is not a whole number of at least 0.")
    heads, _ = read_heads(config)
    rope = read_rope(config, read_head_dim({"head_dim": 128, **config}, heads))
    tables = (rope.cache,) if any(windows) else ()
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(
            len(windows), lambda layer: (windows[layer], layer >= dense), lambda kind: _layer(config, *kind)
        ),
        outer_tensors=outer_tensors(vocab_size, hidden_size, *tables, tied=False),
        tie_word_embeddings=False,
        rope=rope,
    )


READERS: Final = {"AfmoeForCausalLM": partial(read_afmoe)}
"""The architectures of this file and their readers."""


def _windows(config: Config) -> list[int | None]:
    number, every = count(config, "num_hidden_layers"), count(config, "global_attn_every_n_layers", 4)
    kinds = list_of(config, "layer_types", number) or [
        "sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(number)
    ]
    window = count(config, "sliding_window", 1024)
    return [window if kinds[layer] == "sliding_attention" else None for layer in range(number)]


def _layer(config: Config, window: int | None, sparse: bool) -> LayerProfile:
    hidden_size, prefix = count(config, "hidden_size"), f"{_LAYER}.self_attn"
    heads, kv_heads = read_heads(config)
    head_dim = read_head_dim({"head_dim": 128, **config}, heads)
    attention = AttentionProfile(heads, kv_heads, head_dim, qk_norm=True, sliding_window=window)
    tensors = (
        *self_attention(prefix, attention, hidden_size),
        *column_linear(f"{prefix}.gate_proj", {f"{prefix}.gate_proj": heads * head_dim}, hidden_size),
        *(whole(f"{_LAYER}.{norm}.weight", (hidden_size,)) for norm in _NORMS),
    )
    if not sparse:
        mlp = MlpProfile(count(config, "intermediate_size"))
        return LayerProfile((attention,), mlp, (*tensors, *gated_mlp(f"{_LAYER}.mlp", mlp, hidden_size)))
    inner = count(config, "moe_intermediate_size")
    shared = config.get("num_shared_experts", 2)
    moe = MoeProfile(
        num_experts=count(config, "num_experts", 64),
        num_experts_per_tok=count(config, "num_experts_per_tok", 6),
        intermediate_size=inner,
        shared_intermediate_size=inner * count(config, "num_shared_experts", 2) if shared else 0,
    )
    return LayerProfile((attention,), moe, (*tensors, *_sparse_block(moe, hidden_size)))


def _sparse_block(moe: MoeProfile, hidden_size: int) -> Tensors:
    block = f"{_LAYER}.mlp"
    rule = Router(stored_name="router.gate", fp32=True, correction="expert_bias")
    tensors = [
        *router_tensors(block, rule, moe.num_experts, hidden_size, stored=block),
        *experts(f"{block}.experts", moe, hidden_size, stored=f"{block}.experts.{{}}"),
    ]
    if moe.shared_intermediate_size:
        shared = MlpProfile(moe.shared_intermediate_size)
        tensors += gated_mlp(f"{block}.shared_experts", shared, hidden_size)
    return tuple(tensors)
