"""Tensors of multi-head latent attention (MLA), its sparse-attention indexer, and its draft layers.

Queries and keys go through small projections that every rank holds whole; what expands them into heads is
divided. Nothing here knows an architecture: sizes come in a profile, names in a prefix. Sources: vLLM's
model_executor/models/deepseek_v2.py, deepseek_mtp.py and layers/attention/mla_attention.py (0.32.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stowage.model.blocks import (
    Tensors,
    cache_scales,
    column_linear,
    replicated_linear,
    row_linear,
    whole,
)
from stowage.model.config_fields import count
from stowage.model.profile import LatentAttentionProfile, LayerProfile
from stowage.model.tensors import Linear, ParameterTensor, Place, Shard

Config = Mapping[str, Any]


def read_latent_attention(
    config: Config, defaults: Mapping[str, int], **fields: int | None
) -> LatentAttentionProfile:
    """Read the sizes of MLA; `defaults` are the class's for absent fields, a null q_lora_rank means none.

    `fields` are further fields of the profile. Raises BadField for what is missing.
    """
    sizes = {
        name: count(config, name, defaults.get(name))
        for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    }
    absent = "q_lora_rank" not in config and "q_lora_rank" not in defaults
    direct = absent or ("q_lora_rank" in config and config["q_lora_rank"] is None)
    return LatentAttentionProfile(
        num_heads=count(config, "num_attention_heads"),
        q_lora_rank=None if direct else count(config, "q_lora_rank", defaults.get("q_lora_rank")),
        **sizes,
        **fields,  # type: ignore[arg-type]
    )


def latent_attention(prefix: str, attention: LatentAttentionProfile, hidden_size: int) -> Tensors:
    """Give the projections of MLA as the engine fuses them, with the copy that it makes after loading."""
    return (
        *_compressing(prefix, attention, hidden_size),
        *_expanding(prefix, attention, hidden_size),
        *cache_scales(f"{prefix}.mla_attn.mla_attn"),
        absorbed_copy(prefix, attention),
    )


def expanded_attention(prefix: str, attention: LatentAttentionProfile, hidden_size: int) -> Tensors:
    """Give the same attention where the engine caches whole keys and values: projections stay apart."""
    return (
        *_compressing(prefix, attention, hidden_size, fused=False),
        *_expanding(prefix, attention, hidden_size),
        *cache_scales(f"{prefix}.attn"),
    )


def _compressing(
    prefix: str, attention: LatentAttentionProfile, hidden_size: int, *, fused: bool = True
) -> Tensors:
    key_value = {f"{prefix}.kv_a_proj_with_mqa": attention.latent_dim}
    if attention.q_lora_rank is None:
        return replicated_parts(f"{prefix}.kv_a_proj_with_mqa", key_value, hidden_size)
    query = {f"{prefix}.q_a_proj": attention.q_lora_rank}
    norm = whole(f"{prefix}.q_a_layernorm.weight", (attention.q_lora_rank,))
    if fused:
        both = {**query, **key_value}
        return (*replicated_parts(f"{prefix}.fused_qkv_a_proj", both, hidden_size), norm)
    first = replicated_parts(f"{prefix}.q_a_proj", query, hidden_size)
    second = replicated_parts(f"{prefix}.kv_a_proj_with_mqa", key_value, hidden_size)
    return (*first, *second, norm)


def _expanding(prefix: str, attention: LatentAttentionProfile, hidden_size: int) -> Tensors:
    heads = attention.num_heads
    query_rows = heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
    query = f"{prefix}.q_proj" if attention.q_lora_rank is None else f"{prefix}.q_b_proj"
    return (
        *column_linear(query, {query: query_rows}, attention.q_lora_rank or hidden_size),
        whole(f"{prefix}.kv_a_layernorm.weight", (attention.kv_lora_rank,)),
        *column_linear(
            f"{prefix}.kv_b_proj", {f"{prefix}.kv_b_proj": _expanded_rows(attention)}, attention.kv_lora_rank
        ),
        *row_linear(f"{prefix}.o_proj", hidden_size, heads * attention.v_head_dim),
    )


def _expanded_rows(attention: LatentAttentionProfile) -> int:
    return attention.num_heads * (attention.qk_nope_head_dim + attention.v_head_dim)


def absorbed_copy(prefix: str, attention: LatentAttentionProfile) -> ParameterTensor:
    """Give W_UK and W_UV, which decoding multiplies with, as one tensor: both are views of it.

    They are kv_b_proj in the dtype of activations, which stays for prefill. Of a plain kv_b_proj they are
    views as well; a quantised one is expanded once (`split_kv_b_proj`).
    """
    module, rows = f"{prefix}.kv_b_proj", _expanded_rows(attention)
    return ParameterTensor(
        f"{prefix}.mla_attn.mla_attn.W_UK_and_W_UV",
        (rows, attention.kv_lora_rank),
        Shard.COLUMNS,
        Place.LAYER,
        linear=Linear(module, (module,), (rows,), "copy"),
        after_load=True,
    )


def indexer(prefix: str, attention: LatentAttentionProfile, hidden_size: int) -> Tensors:
    """Give the indexer that picks tokens for sparse attention: whole on every rank, its norm in 32 bits.

    The engine never quantises the fused key and weight projection, whatever the checkpoint holds.
    """
    heads, head_dim = attention.index_num_heads, attention.index_head_dim
    if heads is None or head_dim is None or attention.q_lora_rank is None:
        return ()
    parts = {f"{prefix}.wk": head_dim, f"{prefix}.weights_proj": heads}
    keys = replicated_parts(f"{prefix}.wk_weights_proj", parts, hidden_size)
    return (
        *replicated_linear(f"{prefix}.wq_b", heads * head_dim, attention.q_lora_rank),
        *never_quantised(keys),
        whole(f"{prefix}.k_norm.weight", (head_dim,), element_bytes=4),
        whole(f"{prefix}.k_norm.bias", (head_dim,), element_bytes=4),
    )


def replicated_parts(prefix: str, parts: Mapping[str, int], in_size: int) -> Tensors:
    """Give a linear layer fused from several of the checkpoint, which every rank holds whole."""
    return tuple(replace(tensor, shard=Shard.REPLICATED) for tensor in column_linear(prefix, parts, in_size))


def never_quantised(tensors: Tensors) -> Tensors:
    """Give the same tensors out of reach of quantisation."""
    return tuple(replace(tensor, linear=None) for tensor in tensors)


def draft_layer(layer: LayerProfile, hidden_size: int) -> LayerProfile:
    """Give a layer for multi-token prediction; embedding and head are the model's own, so none is held.

    Its projection of both inputs is a plain linear layer, never quantised.
    """
    prefix = "model.layers.{}"
    inner = tuple(
        replace(tensor, name=tensor.name.replace(f"{prefix}.", f"{prefix}.mtp_block."))
        for tensor in layer.tensors
    )
    own = (
        *(
            whole(f"{prefix}.{norm}.weight", (hidden_size,))
            for norm in ("enorm", "hnorm", "shared_head.norm")
        ),
        whole(f"{prefix}.eh_proj.weight", (hidden_size, 2 * hidden_size)),
    )
    return replace(layer, tensors=(*inner, *own))
