"""DBRX: its own field and module names, layer norms without biases, experts stored as one tall matrix.

Source: `vllm/model_executor/models/dbrx.py` (0.32.0) and DbrxConfig of transformers.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    attention_output,
    cache_scales,
    elsewhere,
    embedding_and_head,
    qkv_linear,
    rope_tables,
    whole,
)
from stowage.model.config_fields import count, mapping
from stowage.model.families.moe_layers import (
    Config,
    Router,
    read_head_dim,
    read_heads,
    router_tensors,
    stacked_experts,
)
from stowage.model.profile import AttentionProfile, LayerProfile, MoeProfile
from stowage.model.rope import read_rope
from stowage.model.tensors import Place, StoredTensor

_LAYER: Final = "transformer.blocks.{}"


def read_dbrx(config: Config) -> Anatomy:
    """Read a DBRX model; raises BadField for missing, wrong or not supported values."""
    hidden_size, vocab_size = count(config, "d_model"), count(config, "vocab_size")
    experts_config = mapping(config, "ffn_config")
    kv_heads = count(mapping(config, "attn_config"), "kv_n_heads", 1)
    usual = {
        "hidden_size": hidden_size,
        "num_attention_heads": count(config, "n_heads"),
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": count(config, "max_seq_len", 2048),
    }
    heads, kv_heads = read_heads(usual)
    attention = AttentionProfile(heads, kv_heads, read_head_dim(usual, heads))
    moe = MoeProfile(
        num_experts=count(experts_config, "moe_num_experts", 4),
        num_experts_per_tok=count(experts_config, "moe_top_k", 1),
        intermediate_size=count(experts_config, "ffn_hidden_size", 3584),
    )
    layer = LayerProfile((attention,), moe, _tensors(attention, moe, hidden_size))
    rope = read_rope(usual, attention.head_dim)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=(layer,) * count(config, "n_layers"),
        outer_tensors=(*_outer_tensors(vocab_size, hidden_size), *rope_tables(rope.cache)),
        tie_word_embeddings=False,
        rope=rope,
    )


READERS: Final = {"DbrxForCausalLM": partial(read_dbrx)}
"""The architectures of this file and their readers."""


def _outer_tensors(vocab_size: int, hidden_size: int) -> Tensors:
    """Give embedding, last norm and head, which every pipeline stage holds."""
    ends = embedding_and_head(vocab_size, hidden_size, tied=False, embedding="transformer.wte")
    return elsewhere((*ends, whole("transformer.norm_f.weight", (hidden_size,))), Place.EVERY)


def _tensors(attention: AttentionProfile, moe: MoeProfile, hidden_size: int) -> Tensors:
    block, number, inner = f"{_LAYER}.norm_attn_norm", moe.num_experts, moe.intermediate_size
    stored, tall = f"{_LAYER}.ffn.experts.mlp", (number * inner, hidden_size)
    return (
        *qkv_linear(f"{block}.attn", attention, hidden_size, name="Wqkv", parts=("Wqkv",)),
        *attention_output(f"{block}.attn", attention, hidden_size, name="out_proj"),
        *cache_scales(f"{block}.attn.attn"),
        whole(f"{block}.norm_1.weight", (hidden_size,)),
        whole(f"{block}.norm_2.weight", (hidden_size,)),
        *router_tensors(f"{_LAYER}.ffn", Router("router.layer"), number, hidden_size, stored=f"{_LAYER}.ffn"),
        *stacked_experts(
            f"{_LAYER}.ffn.experts",
            moe,
            hidden_size,
            gate_up=(StoredTensor(f"{stored}.w1", tall), StoredTensor(f"{stored}.v1", tall)),
            down=StoredTensor(f"{stored}.w2", tall),
        ),
    )
