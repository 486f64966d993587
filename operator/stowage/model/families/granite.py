"""Granite: dense decoders of IBM, with sliding windows, attention sinks and layers without rotary embedding.

Otherwise a Llama. Every layer may state a rotary base of its own (`layer_rope_theta`, 0: none), and each base
is a table of its own on the device. Source: vLLM's `models/granite.py` (0.32.0).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, rope_tables
from stowage.model.class_defaults import with_class_defaults
from stowage.model.config_fields import BadField, count, flag
from stowage.model.families.decoder import read_decoder
from stowage.model.families.moe_layers import list_of, sinks
from stowage.model.families.recipe import Config, Recipe

_PLAIN: Final = Recipe(
    model_type="granite",
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    up_bias="mlp_bias",
    down_bias="mlp_bias",
)


def read_granite(config: Config) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    full = with_class_defaults(config, "granite")
    full = {**full, "attention_bias": flag(full, "attention_bias") or flag(full, "bias")}
    windowed = full.get("layer_types") is not None
    if not windowed:
        full["sliding_window"] = None
    recipe = replace(_PLAIN, layer_extras=_sinks) if flag(full, "attention_sinks", windowed) else _PLAIN
    anatomy = read_decoder(full, recipe)
    outer = [tensor for tensor in anatomy.outer_tensors if not tensor.name.endswith("cos_sin_cache")]
    tables = (anatomy.rope.cache,) * _number_of_tables(full)
    return replace(anatomy, outer_tensors=(*outer, *rope_tables(*tables)))


def _sinks(config: Config) -> Tensors:
    return (sinks("model.layers.{}.self_attn.sinks", count(config, "num_attention_heads")),)


def _number_of_tables(config: Config) -> int:
    """Count distinct rotary bases; 0 means that a layer does not rotate."""
    bases = list_of(config, "layer_rope_theta", count(config, "num_hidden_layers"))
    if bases is None:
        return 1
    if not all(type(base) in (int, float) for base in bases):
        raise BadField("config.json has layer_rope_theta, which must be a list of numbers.")
    return len({float(base) for base in bases if base})


READERS: Final = {"GraniteForCausalLM": read_granite, "GraniteSWAForCausalLM": read_granite}
"""The architectures of this file and their readers."""
