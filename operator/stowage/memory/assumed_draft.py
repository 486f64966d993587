"""The draft model that is assumed where speculative decoding is asked for and the draft's own config is missing.

Leaving it out would promise memory that the draft takes: its weights, and its layers' share of every KV block. What
is assumed follows from the target's sizes and a table of how drafts of each method are built
(assumed_drafts.toml), carries a wide band, and must never be used where the draft's own configuration is known.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from stowage.model.blocks import (
    Tensors,
    attention_output,
    elsewhere,
    gated_mlp,
    head_norms,
    qkv_linear,
    replicated_linear,
    whole,
)
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    MlpProfile,
    ModelProfile,
)
from stowage.model.tensors import ParameterTensor, Place, QkvHeads, Shard

_LAYER = "model.layers.{}"


@lru_cache(maxsize=64)
def assumed_draft(profile: ModelProfile, method: str) -> ModelProfile | None:
    """Give the draft that a method usually has for this model; None where the method has no draft of this kind."""
    row = _table().get(method)
    if row is None or "layers" not in row:
        return None
    layer = _layer(profile, row)
    return replace(
        profile,
        source=f"{profile.source}#assumed-{method}",
        layers=(layer,) * row["layers"],
        outer_tensors=_outer(profile.hidden_size, row),
        draft_layers=(),
        encoders=(),
        notes=(),
    )


def assumed_draft_band(method: str) -> float:
    """Give the relative uncertainty of an assumed draft's weights."""
    return float(_table()[method]["relative_band"])


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = files("stowage.memory").joinpath("assumed_drafts.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _layer(profile: ModelProfile, row: dict[str, Any]) -> LayerProfile:
    """Give one dense layer with the target's attention over all tokens; latent attention as the target has it."""
    mixers = [mixer for layer in profile.layers for mixer in layer.mixers]
    attention = next((m for m in mixers if isinstance(m, AttentionProfile) and _keeps_all(m)), None)
    attention = attention or next((m for m in mixers if isinstance(m, AttentionProfile)), None)
    if attention is None:
        latent = (
            layer
            for layer in profile.layers
            if any(isinstance(m, LatentAttentionProfile) for m in layer.mixers)
        )
        return next(latent, profile.layers[0])
    full = replace(attention, sliding_window=None, chunk=None, shares_cache=False, source="self")
    mlp, hidden = MlpProfile(_feed_forward(profile)), profile.hidden_size
    tensors: Tensors = (
        *qkv_linear(f"{_LAYER}.self_attn", full, row["attention_inputs"] * hidden),
        *attention_output(f"{_LAYER}.self_attn", full, hidden),
        *head_norms(f"{_LAYER}.self_attn", full),
        *gated_mlp(f"{_LAYER}.mlp", mlp, hidden),
        *(
            whole(f"{_LAYER}.{name}.weight", (hidden,))
            for name in ("input_layernorm", "post_attention_layernorm")
        ),
    )
    if row["keeps_key_values"]:
        tensors = (*tensors, _key_value_copy(full, hidden))
    return LayerProfile((full,), mlp, tensors)


def _keeps_all(mixer: AttentionProfile) -> bool:
    return mixer.sliding_window is None and mixer.chunk is None and mixer.source == "self"


def _feed_forward(profile: ModelProfile) -> int:
    """Give the target's dense feed-forward size; of experts alone it says nothing, so a multiple of hidden size."""
    blocks = (layer.feed_forward for layer in profile.layers)
    dense = (block.intermediate_size for block in blocks if isinstance(block, MlpProfile))
    return max(dense, default=int(_table()["feed_forward"]["hidden_multiple"]) * profile.hidden_size)


def _key_value_copy(attention: AttentionProfile, hidden_size: int) -> ParameterTensor:
    """Give the copy of the key and value projections with which a draft reads the target's states."""
    size, values = attention.head_dim, attention.value_head_dim
    heads = QkvHeads(0, attention.num_kv_heads, size, values)
    shape = (attention.num_kv_heads * (size + values), hidden_size)
    return ParameterTensor(f"{_LAYER}._kv_weights", shape, Shard.HEADS, Place.LAYER, heads=heads)


def _outer(hidden_size: int, row: dict[str, Any]) -> Tensors:
    combine = replicated_linear("model.fc", hidden_size, row["combined_states"] * hidden_size)
    outer = elsewhere(combine, Place.EVERY)
    if not row["draft_vocabulary"]:
        return outer
    shape = (row["draft_vocabulary"], hidden_size)
    return (*outer, ParameterTensor("lm_head.weight", shape, Shard.VOCABULARY, Place.EVERY))
