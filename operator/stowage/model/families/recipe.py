"""How an architecture differs from the usual decoder, as data: names, norms, biases, windows, placement.

Dense decoders share one skeleton (attention, feed-forward block, norms) and differ in what their modules are
called and which parts they have. A recipe holds no number of a model; `decoder.py` reads those from
config.json and builds the tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from stowage.model.blocks import Tensors

Config = Mapping[str, Any]
Flag = bool | str
"""True or false for every model of the architecture, or the name of the field that says it."""


class Norm(Enum):
    """What a layer norm keeps."""

    NOTHING = "no parameters at all"
    WEIGHT = "a weight"
    WEIGHT_AND_BIAS = "a weight and a bias"


class QkNorm(Enum):
    """How queries and keys are normalised."""

    NONE = "not at all"
    HEAD = "one weight for the elements of a head, shared by all heads"
    WIDE = "one weight for all elements of all heads, whole on every rank"
    PER_HEAD = "one weight for each head, divided with the heads"


class Rotary(Enum):
    """What a rank keeps for the rotary embedding."""

    TABLE = "a table of cosines and sines"
    FREQUENCIES = "two vectors of inverse frequencies in 32 bits (the Transformers backend)"
    NOTHING = "nothing: positions are learned, or attention is biased by distance"


def no_tensors(_config: Config) -> Tensors:
    """Give no further tensors."""
    return ()


def unchanged(config: Config) -> Config:
    """Give the configuration as it is."""
    return config


@dataclass(frozen=True, slots=True)
class Recipe:
    """One architecture; the defaults are those of Llama.

    `model_type` says whose class defaults fill absent fields where the file names none, `adapt` gives fields
    their usual names. Names of modules are the engine's, `*_parts` the checkpoint's modules that it fuses;
    `stored` exchanges prefixes between the two, and `stored_transposed` means that the file keeps the layers'
    matrices as in × out. `everywhere`: the engine creates embedding, last norm and head on every pipeline
    stage. `frequency_sets` counts the types of layers with rotary frequencies of their own, `divided_mlp`
    false means that the engine has no plan to divide the block, `windowed` false that it ignores a window.
    `extra_window` is added to the window; `layer_extras` and `outer_extras` are tensors besides the skeleton
    (of a layer, outside of them).
    """

    model_type: str | None = None
    adapt: Callable[[Config], Config] = unchanged
    layer: str = "model.layers.{}"
    embedding: str = "model.embed_tokens"
    final_norm: str | None = "model.norm"
    head: str = "lm_head"
    attention: str = "self_attn"
    qkv: str = "qkv_proj"
    qkv_parts: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    output: str = "o_proj"
    mlp: str = "mlp"
    up: str = "gate_up_proj"
    up_parts: tuple[str, ...] = ("gate_proj", "up_proj")
    down: str = "down_proj"
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    stored: Mapping[str, str] = field(default_factory=dict)
    stored_transposed: bool = False
    gated: bool = True
    norm: Norm = Norm.WEIGHT
    qk_norm: QkNorm = QkNorm.NONE
    qk_norm_when: Flag = True
    qk_norm_names: tuple[str, str] = ("q_norm", "k_norm")
    qkv_bias: Flag = False
    output_bias: Flag = False
    up_bias: Flag = False
    down_bias: Flag = False
    derived_head_dim: bool = False
    rotary: Rotary = Rotary.TABLE
    frequency_sets: int = 1
    windowed: bool = True
    extra_window: int = 0
    everywhere: bool = False
    divided_mlp: bool = True
    embedding_field: str = "hidden_size"
    layer_extras: Callable[[Config], Tensors] = no_tensors
    outer_extras: Callable[[Config], Tensors] = no_tensors
    supports_pipeline: bool = True
