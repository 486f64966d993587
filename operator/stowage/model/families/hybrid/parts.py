"""Tensors that the hybrid families share and that are not in `model.blocks`.

State space layers are column-parallel by heads; parameters outside of linear layers (`A_log`, `D`, `dt_bias`,
convolutions) are never quantised, and `A_log` is kept in 32 bits whatever the model runs in. Nothing here may
know a single architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stowage.model.blocks import (
    Tensors,
    column_linear,
    embedding_and_head,
    rope_tables,
    row_linear,
    whole,
)
from stowage.model.config_fields import BadField, count, word
from stowage.model.dtype import element_type
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile
from stowage.model.rope import Rope
from stowage.model.tensors import ParameterTensor, Place, Shard, StoredTensor


def with_defaults(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fill absent and null fields with the class defaults of transformers."""
    return {**defaults, **{name: value for name, value in config.items() if value is not None}}


def divided(
    name: str, shape: tuple[int, ...], *, stored: str | None = None, element_bytes: int | None = None
) -> ParameterTensor:
    """Give a parameter outside of linear layers whose first dimension is divided."""
    kept = (StoredTensor(stored or name, shape),)
    return ParameterTensor(name, shape, Shard.COLUMNS, Place.LAYER, stored=kept, element_bytes=element_bytes)


def everywhere(tensors: Tensors) -> Tensors:
    """Give the same tensors on every stage: models that do not leave their ends out elsewhere."""
    return tuple(replace(tensor, place=Place.EVERY) for tensor in tensors)


def ends_on_every_stage(
    vocab_size: int, hidden_size: int, *, tied: bool, embedding: str, norm: str
) -> Tensors:
    """Give embedding, final norm and head of a model that builds them on all stages."""
    ends = embedding_and_head(vocab_size, hidden_size, tied=tied, embedding=embedding)
    return everywhere((*ends, whole(norm, (hidden_size,))))


def attention_rope(rope: Rope, layers: Sequence[LayerProfile]) -> Tensors:
    """Give the rotary table, which only stages with an attention layer have."""
    attends = tuple(number for number, layer in enumerate(layers) if layer.attention is not None)
    return tuple(replace(table, used_by=attends) for table in rope_tables(rope.cache))


def shared_expert(tensors: Tensors) -> Tensors:
    """Mark the parts of a shared expert, which ranks hold whole where they share out the sequence."""
    return tuple(replace(tensor, whole_in_sequence_parallel=True) for tensor in tensors)


def chunk_size(fields: Mapping[str, Any]) -> int:
    """Read the tokens that a state space kernel takes at a time; 0 where config.json does not say."""
    return next((count(fields, name) for name in ("mamba_chunk_size", "chunk_size") if fields.get(name)), 0)


def state_dtype(fields: Mapping[str, Any], name: str) -> str | None:
    """Read the dtype that the recurrent state is kept in; absent and "auto" leave it to the engine."""
    spelling = word(fields, name)
    if spelling in (None, "auto"):
        return None
    known = element_type(spelling or "")
    if known is None:
        raise BadField(f"config.json says {name}: {spelling!r}; it must be float32, bfloat16 or float16.")
    return known


def plain_mlp(prefix: str, mlp: MlpProfile, hidden_size: int) -> Tensors:
    """Give a feed-forward block without a gate: up and down projection."""
    return (
        *column_linear(
            f"{prefix}.up_proj", {f"{prefix}.up_proj": mlp.intermediate_size}, hidden_size, bias=mlp.bias
        ),
        *row_linear(f"{prefix}.down_proj", hidden_size, mlp.intermediate_size, bias=mlp.bias),
    )


def grouped_query(config: Mapping[str, Any], head_dim: int | None = None, **more: Any) -> AttentionProfile:
    """Read heads of plain attention; without `head_dim` the head size is hidden size over heads."""
    heads, hidden = count(config, "num_attention_heads"), count(config, "hidden_size")
    kv_heads = count(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise BadField(
            f"config.json says num_key_value_heads: {kv_heads}; it must divide {heads} attention heads."
        )
    if head_dim is None and hidden % heads:
        raise BadField(
            f"config.json says hidden_size: {hidden}; it must be a multiple of {heads} attention heads."
        )
    return AttentionProfile(heads, kv_heads, head_dim or hidden // heads, **more)


def words(config: Mapping[str, Any], name: str, allowed: Mapping[str, str]) -> tuple[str, ...] | None:
    """Read a list of layer kinds, in the spelling that `allowed` maps the stated ones to; None if absent."""
    stated = config.get(name)
    if stated is None:
        return None
    if not isinstance(stated, list) or not all(isinstance(kind, str) and kind in allowed for kind in stated):
        known = ", ".join(sorted(set(allowed)))
        raise BadField(f"config.json has {name} that is not a list of layer kinds; known are {known}.")
    return tuple(allowed[kind] for kind in stated)
