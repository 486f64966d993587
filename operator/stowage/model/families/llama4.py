"""Llama 4, the text model: chunked attention on layers with rotary embedding, full attention on the others.

Experts alternate with dense layers by interleave_moe_layer_step; each sparse layer has one shared expert.
Query and key norms have no weights. Source: `vllm/model_executor/models/llama4.py` (0.32.0) and
Llama4TextConfig of transformers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, gated_mlp, whole
from stowage.model.config_fields import BadField, count, flag, refuse_features
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
    stacked_experts,
)
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import read_rope
from stowage.model.tensors import StoredTensor


def read_llama4_text(config: Config) -> Anatomy:
    """Read the text model of a Llama 4; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    attention = _attention(config, chunked=False)
    rope, tied = read_rope(config, attention.head_dim), flag(config, "tie_word_embeddings")
    chunked, sparse = _chunked_layers(config), _sparse_step(config)
    layers = repeat_layers(
        count(config, "num_hidden_layers"),
        lambda layer: (chunked[layer], sparse > 0 and (layer + 1) % sparse == 0),
        lambda kind: _layer(config, "model.layers.{}", chunked=kind[0], sparse=kind[1]),
    )
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=layers,
        outer_tensors=outer_tensors(vocab_size, hidden_size, rope.cache, tied=tied),
        tie_word_embeddings=tied,
        rope=rope,
    )


READERS: Final = {"Llama4ForCausalLM": partial(read_llama4_text)}
"""The architectures of this file and their readers."""


def _chunked_layers(config: Config) -> list[bool]:
    """Tell for each layer whether it attends to chunks: where it has a rotary embedding, and chunks exist."""
    number = count(config, "num_hidden_layers")
    interval = count(config, "no_rope_layer_interval", 4)
    stated = list_of(config, "no_rope_layers", number) if config.get("no_rope_layers") else None
    rotary = [bool(entry) for entry in stated] if stated else [(n + 1) % interval != 0 for n in range(number)]
    has_chunks = config.get("attention_chunk_size", 8192) not in (None, 0)
    return [has_chunks and entry for entry in rotary]


def _sparse_step(config: Config) -> int:
    step = config.get("interleave_moe_layer_step", 1)
    if type(step) is not int or step < 0:
        raise BadField("config.json has interleave_moe_layer_step that is not a whole number of at least 0.")
    return step


def _attention(config: Config, *, chunked: bool) -> AttentionProfile:
    heads, kv_heads = read_heads(config, 8)
    return AttentionProfile(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=read_head_dim({"head_dim": 128, **config}, heads),
        chunk=count(config, "attention_chunk_size", 8192) if chunked else None,
    )


def _layer(config: Config, prefix: str, *, chunked: bool, sparse: bool) -> LayerProfile:
    hidden_size, attention = count(config, "hidden_size"), _attention(config, chunked=chunked)
    tensors = (
        *self_attention(f"{prefix}.self_attn", attention, hidden_size),
        whole(f"{prefix}.input_layernorm.weight", (hidden_size,)),
        whole(f"{prefix}.post_attention_layernorm.weight", (hidden_size,)),
    )
    if not sparse:
        mlp = MlpProfile(count(config, "intermediate_size_mlp", 16384))
        block = gated_mlp(f"{prefix}.feed_forward", mlp, hidden_size)
        return LayerProfile((attention,), mlp, (*tensors, *block))
    inner = count(config, "intermediate_size")
    moe = MoeProfile(
        num_experts=count(config, "num_local_experts", 16),
        num_experts_per_tok=count(config, "num_experts_per_tok", 1),
        intermediate_size=inner,
        shared_intermediate_size=inner,
    )
    return LayerProfile(
        (attention,), moe, (*tensors, *_sparse_block(f"{prefix}.feed_forward", moe, hidden_size))
    )


def _sparse_block(block: str, moe: MoeProfile, hidden_size: int) -> Tensors:
    prefix, inner, number = f"{block}.experts", moe.intermediate_size, moe.num_experts
    shared = gated_mlp(f"{block}.shared_expert", MlpProfile(moe.shared_intermediate_size), hidden_size)
    return (
        *router_tensors(block, Router("router"), number, hidden_size, stored=block),
        *(replace(tensor, whole_in_sequence_parallel=True) for tensor in shared),
        *stacked_experts(
            prefix,
            moe,
            hidden_size,
            gate_up=(StoredTensor(f"{prefix}.gate_up_proj", (number, hidden_size, 2 * inner)),),
            down=StoredTensor(f"{prefix}.down_proj", (number, inner, hidden_size)),
        ),
    )
