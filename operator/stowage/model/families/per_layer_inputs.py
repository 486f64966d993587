"""Per-layer embeddings: a second, large table whose rows hold a small vector for each layer (Gemma 3n and 4).

Each layer gates its vector with the hidden state and adds it back. `hidden_size_per_layer_input` 0 or null
means that a model has none. Sources: vLLM's `models/{gemma3n,gemma4}.py` (0.32.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.blocks import Tensors, column_linear, elsewhere, replicated_linear, whole
from stowage.model.config_fields import count
from stowage.model.families.decoder import buffer
from stowage.model.tensors import ParameterTensor, Place, Shard, StoredTensor

_LAYER: Final = "model.layers.{}"
_SCALES: Final = ("embed_scale_per_layer", "per_layer_input_scale", "per_layer_projection_scale")


def per_layer_block(config: Mapping[str, Any]) -> Tensors:
    """Give gate, projection and norm of one layer, whole on every rank."""
    if not config.get("hidden_size_per_layer_input"):
        return ()
    hidden, size = count(config, "hidden_size"), count(config, "hidden_size_per_layer_input")
    return (
        *replicated_linear(f"{_LAYER}.per_layer_input_gate", size, hidden),
        *replicated_linear(f"{_LAYER}.per_layer_projection", hidden, size),
        whole(f"{_LAYER}.post_per_layer_input_norm.weight", (hidden,)),
    )


def per_layer_outer(config: Mapping[str, Any], root: str) -> Tensors:
    """Give the table, divided like the vocabulary, its projection and scales, on every pipeline stage."""
    if not config.get("hidden_size_per_layer_input"):
        return ()
    hidden, size = count(config, "hidden_size"), count(config, "hidden_size_per_layer_input")
    width = size * count(config, "num_hidden_layers")
    rows = count(config, "vocab_size_per_layer_input", count(config, "vocab_size"))
    table, projection = "model.embed_tokens_per_layer.weight", "model.per_layer_model_projection"
    kept = (StoredTensor(table, (rows, width)),)
    linear = column_linear(projection.replace("model", root, 1), {projection: width}, hidden)
    norm = "per_layer_projection_norm.weight"
    return (
        ParameterTensor(table.replace("model", root, 1), (rows, width), Shard.VOCABULARY, Place.EVERY, kept),
        *elsewhere(linear, Place.EVERY),
        whole(f"{root}.{norm}", (size,), stored=f"model.{norm}", place=Place.EVERY),
        *(buffer(f"{root}.{name}") for name in _SCALES),
    )
