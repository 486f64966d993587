"""Architectures that the engine serves through the Transformers backend: no model file of its own.

The backend fuses what it recognises (query, key and value; gate and up), divides linear layers as the model's
plan says, and keeps rotary frequencies instead of a table. Sources: vLLM's
`models/transformers/{base,causal,utils}.py` and fusers (0.32.0), modelling files of transformers 5.19.0.
Releases before had model files for most of these; what they held differs by less than 0.1 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors
from stowage.model.config_fields import count, flag
from stowage.model.families.decoder import buffer, read_decoder
from stowage.model.families.recipe import Config, Norm, QkNorm, Recipe, Rotary
from stowage.model.families.windows import every_nth_full
from stowage.model.tensors import ParameterTensor, Place, Shard, StoredTensor


def _layer_types(interval: int) -> Callable[[Config], Config]:
    """Fill in layer_types where the class would: each `interval`-th layer sees everything."""

    def adapt(config: Config) -> Config:
        if config.get("layer_types") is not None:
            return config
        return {**config, "layer_types": list(every_nth_full(count(config, "num_hidden_layers"), interval))}

    return adapt


def _head_bias(config: Config) -> Tensors:
    """Give the bias of the output head, which is divided like the vocabulary."""
    shape, name = (count(config, "vocab_size"),), "lm_head.bias"
    return (ParameterTensor(name, shape, Shard.VOCABULARY, Place.LAST, (StoredTensor(name, shape),)),)


def _positions_and_mask(config: Config) -> Tensors:
    """Give learned positions, and the mask of a whole context that GPT-BigCode keeps as a buffer."""
    positions, name = count(config, "max_position_embeddings"), "model.wpe.weight"
    shape = (positions, count(config, "hidden_size"))
    place = Place.BOTH_ENDS if flag(config, "tie_word_embeddings") else Place.FIRST
    learned = ParameterTensor(name, shape, Shard.REPLICATED, place, (StoredTensor(name, shape),))
    return (learned, buffer("model.bias", (positions, positions), element_bytes=1))


def _multi_query(config: Config) -> Config:
    """Give GPT-2's field names their usual ones, and one key/value head where queries share it."""
    hidden, heads = count(config, "n_embd"), count(config, "n_head")
    return {
        **config,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": 1 if flag(config, "multi_query") else heads,
        "num_hidden_layers": count(config, "n_layer"),
        "intermediate_size": count(config, "n_inner", 4 * hidden),
        "max_position_embeddings": count(config, "n_positions"),
    }


def _no_window(config: Config) -> Config:
    return {**config, "sliding_window": None} if not flag(config, "use_sliding_window") else config


_LLAMA: Final = Recipe(
    rotary=Rotary.FREQUENCIES,
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    up_bias="mlp_bias",
    down_bias="mlp_bias",
)
_OLMO: Final = Recipe(rotary=Rotary.FREQUENCIES, qkv_bias="attention_bias", output_bias="attention_bias")
_OLMO2_NORMS: Final = ("post_attention_layernorm", "post_feedforward_layernorm")

RECIPES: Final[Mapping[str, Recipe]] = {
    "ArceeForCausalLM": replace(
        _LLAMA,
        model_type="arcee",
        gated=False,
        up="up_proj",
        up_parts=("up_proj",),
    ),
    "CwmForCausalLM": Recipe(
        model_type="cwm",
        rotary=Rotary.FREQUENCIES,
        up_bias="mlp_bias",
        down_bias="mlp_bias",
        adapt=_layer_types(4),
    ),
    "GlmForCausalLM": Recipe(
        model_type="glm",
        rotary=Rotary.FREQUENCIES,
        qkv_bias="attention_bias",
        up_parts=("gate_up_proj",),
    ),
    "GPTBigCodeForCausalLM": Recipe(
        model_type="gpt_bigcode",
        adapt=_multi_query,
        layer="model.h.{}",
        embedding="model.wte",
        final_norm="model.ln_f",
        attention="attn",
        qkv="c_attn",
        qkv_parts=("c_attn",),
        output="c_proj",
        up="c_fc",
        up_parts=("c_fc",),
        down="c_proj",
        norms=("ln_1", "ln_2"),
        stored={"model.": "transformer."},
        gated=False,
        norm=Norm.WEIGHT_AND_BIAS,
        qkv_bias=True,
        output_bias=True,
        up_bias=True,
        down_bias=True,
        derived_head_dim=True,
        rotary=Rotary.NOTHING,
        windowed=False,
        divided_mlp=False,
        outer_extras=_positions_and_mask,
    ),
    "GPTNeoXForCausalLM": Recipe(
        model_type="gpt_neox",
        embedding="model.embed_in",
        final_norm="model.final_layer_norm",
        attention="attention",
        qkv="query_key_value",
        qkv_parts=("query_key_value",),
        output="dense",
        up="dense_h_to_4h",
        up_parts=("dense_h_to_4h",),
        down="dense_4h_to_h",
        stored={"model.": "gpt_neox.", "lm_head": "embed_out"},
        gated=False,
        norm=Norm.WEIGHT_AND_BIAS,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        up_bias=True,
        down_bias=True,
        derived_head_dim=True,
        rotary=Rotary.FREQUENCIES,
    ),
    "HunYuanDenseV1ForCausalLM": Recipe(
        model_type="hunyuan_v1_dense",
        rotary=Rotary.FREQUENCIES,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm=QkNorm.HEAD,
        qk_norm_names=("query_layernorm", "key_layernorm"),
    ),
    "Jais2ForCausalLM": replace(
        _LLAMA,
        model_type="jais2",
        gated=False,
        up="up_proj",
        up_parts=("up_proj",),
        norm=Norm.WEIGHT_AND_BIAS,
    ),
    "OlmoForCausalLM": replace(
        _OLMO,
        model_type="olmo",
        norm=Norm.NOTHING,
    ),
    "Olmo2ForCausalLM": replace(
        _OLMO,
        model_type="olmo2",
        norms=_OLMO2_NORMS,
        qk_norm=QkNorm.WIDE,
    ),
    "Olmo3ForCausalLM": replace(
        _OLMO,
        model_type="olmo3",
        adapt=_layer_types(4),
        norms=_OLMO2_NORMS,
        qk_norm=QkNorm.WIDE,
        frequency_sets=2,
    ),
    "PhiForCausalLM": Recipe(
        model_type="phi",
        final_norm="model.final_layernorm",
        output="dense",
        up="fc1",
        up_parts=("fc1",),
        down="fc2",
        norms=("input_layernorm",),
        gated=False,
        norm=Norm.WEIGHT_AND_BIAS,
        qk_norm=QkNorm.HEAD,
        qk_norm_when="qk_layernorm",
        qk_norm_names=("q_layernorm", "k_layernorm"),
        qkv_bias=True,
        output_bias=True,
        up_bias=True,
        down_bias=True,
        rotary=Rotary.FREQUENCIES,
        outer_extras=_head_bias,
    ),
    "SeedOssForCausalLM": Recipe(
        model_type="seed_oss",
        rotary=Rotary.FREQUENCIES,
        qkv_bias="attention_bias",
        output_bias="attention_out_bias",
        up_bias="mlp_bias",
        down_bias="mlp_bias",
    ),
    "SmolLM3ForCausalLM": replace(
        _LLAMA,
        model_type="smollm3",
        adapt=_no_window,
    ),
    "Starcoder2ForCausalLM": Recipe(
        model_type="starcoder2",
        up="c_fc",
        up_parts=("c_fc",),
        down="c_proj",
        gated=False,
        norm=Norm.WEIGHT_AND_BIAS,
        qkv_bias="use_bias",
        output_bias="use_bias",
        up_bias="use_bias",
        down_bias="use_bias",
        rotary=Rotary.FREQUENCIES,
    ),
}
"""Architectures of `_TRANSFORMERS_SUPPORTED_MODELS` in vLLM's registry that are dense text decoders."""


def _reader(recipe: Recipe) -> Callable[[Config], Anatomy]:
    return partial(read_decoder, recipe=recipe)


READERS: Final = {name: _reader(recipe) for name, recipe in RECIPES.items()}
"""The architectures of this file and their readers."""
