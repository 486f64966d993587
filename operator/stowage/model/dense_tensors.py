"""Tensors of dense decoders (Llama, Mistral, Phi-3, Qwen2, Qwen3), in the engine and in files.

The engine fuses query, key and value into one matrix, and gate and up into another; most checkpoints hold
them apart. Which biases and norms exist is in the layer's profile, so one builder serves all these
families.
"""

from __future__ import annotations

from functools import lru_cache

from stowage.model.profile import LayerProfile, ModelProfile
from stowage.model.tensors import ParameterTensor, Place, Shard, StoredTensor


@lru_cache(maxsize=256)
def dense_layer_tensors(
    layer: LayerProfile, hidden_size: int, fused_checkpoint: bool
) -> tuple[ParameterTensor, ...]:
    """Give the tensors of one decoder layer; names hold `{}` for the layer's number."""
    attention = (*_qkv(layer, hidden_size, fused_checkpoint), *_attention_output(layer, hidden_size))
    norms = tuple(
        _whole(f"model.layers.{{}}.{name}.weight", hidden_size)
        for name in ("input_layernorm", "post_attention_layernorm")[: layer.norm_count]
    )
    return (*attention, *_head_norms(layer), *_mlp(layer, hidden_size, fused_checkpoint), *norms, *_scales())


@lru_cache(maxsize=256)
def dense_outer_tensors(profile: ModelProfile) -> tuple[ParameterTensor, ...]:
    """Give what stands outside the layers: embedding, final norm, output head, rotary tables."""
    vocabulary = (profile.vocab_size, profile.hidden_size)
    embedding = ParameterTensor(
        "model.embed_tokens.weight",
        vocabulary,
        Shard.VOCABULARY,
        Place.BOTH_ENDS if profile.tie_word_embeddings else Place.FIRST,
        stored=(StoredTensor("model.embed_tokens.weight", vocabulary),),
    )
    head = ParameterTensor(
        "lm_head.weight",
        vocabulary,
        Shard.VOCABULARY,
        Place.LAST,
        stored=(StoredTensor("lm_head.weight", vocabulary),),
    )
    norm = _whole("model.norm.weight", profile.hidden_size, Place.LAST)
    ropes = tuple(
        ParameterTensor(
            "rotary_emb.cos_sin_cache", (rope.rows, rope.rotary_dim), Shard.REPLICATED, Place.EVERY
        )
        for rope in profile.rope
    )
    return (embedding, norm, *(() if profile.tie_word_embeddings else (head,)), *ropes)


def _whole(name: str, size: int, place: Place = Place.LAYER) -> ParameterTensor:
    return ParameterTensor(name, (size,), Shard.REPLICATED, place, stored=(StoredTensor(name, (size,)),))


def _qkv(layer: LayerProfile, hidden_size: int, fused: bool) -> tuple[ParameterTensor, ...]:
    attention, prefix = layer.attention, "model.layers.{}.self_attn"
    heads = (attention.num_heads, attention.num_kv_heads, attention.head_dim)
    query, key = heads[0] * heads[2], heads[1] * heads[2]
    parts = {"qkv_proj": query + 2 * key} if fused else {"q_proj": query, "k_proj": key, "v_proj": key}
    tensors = []
    for kind, tail in (("weight", (hidden_size,)), ("bias", ())):
        if kind == "bias" and not attention.qkv_bias:
            continue
        stored = tuple(StoredTensor(f"{prefix}.{part}.{kind}", (rows, *tail)) for part, rows in parts.items())
        name, shape = f"{prefix}.qkv_proj.{kind}", (query + 2 * key, *tail)
        tensors.append(ParameterTensor(name, shape, Shard.HEADS, Place.LAYER, stored=stored, heads=heads))
    return tuple(tensors)


def _attention_output(layer: LayerProfile, hidden_size: int) -> tuple[ParameterTensor, ...]:
    name = "model.layers.{}.self_attn.o_proj"
    shape = (hidden_size, layer.attention.num_heads * layer.attention.head_dim)
    weight = ParameterTensor(
        f"{name}.weight", shape, Shard.ROWS, Place.LAYER, stored=(StoredTensor(f"{name}.weight", shape),)
    )
    return (weight, _whole(f"{name}.bias", hidden_size)) if layer.attention.output_bias else (weight,)


def _head_norms(layer: LayerProfile) -> tuple[ParameterTensor, ...]:
    if not layer.attention.qk_norm:
        return ()
    names = ("q_norm", "k_norm")
    return tuple(_whole(f"model.layers.{{}}.self_attn.{n}.weight", layer.attention.head_dim) for n in names)


def _mlp(layer: LayerProfile, hidden_size: int, fused: bool) -> tuple[ParameterTensor, ...]:
    inner, prefix = layer.mlp.intermediate_size, "model.layers.{}.mlp"
    parts = {"gate_up_proj": 2 * inner} if fused else {"gate_proj": inner, "up_proj": inner}
    tensors = []
    for kind, tail in (("weight", (hidden_size,)), ("bias", ())):
        if kind == "bias" and not layer.mlp.bias:
            continue
        stored = tuple(StoredTensor(f"{prefix}.{part}.{kind}", (rows, *tail)) for part, rows in parts.items())
        shape = (2 * inner, *tail)
        tensors.append(
            ParameterTensor(f"{prefix}.gate_up_proj.{kind}", shape, Shard.COLUMNS, Place.LAYER, stored=stored)
        )
    name, shape = f"{prefix}.down_proj.weight", (hidden_size, inner)
    down = ParameterTensor(name, shape, Shard.ROWS, Place.LAYER, stored=(StoredTensor(name, shape),))
    bias = (_whole(f"{prefix}.down_proj.bias", hidden_size),) if layer.mlp.bias else ()
    return (*tensors, down, *bias)


def _scales() -> tuple[ParameterTensor, ...]:
    """Give the four fp32 scalars (key, value, query, probability scale) of every attention layer."""
    names = ("k", "v", "q", "prob")
    return tuple(
        ParameterTensor(
            f"model.layers.{{}}.self_attn.attn._{n}_scale", (), Shard.REPLICATED, Place.LAYER, element_bytes=4
        )
        for n in names
    )
