"""The decoders of the first years: GPT-2, GPT-J, OPT, BLOOM and Falcon.

Layer norms with biases, feed-forward blocks without a gate, learned positions or attention biased by
distance (no rotary table). The engine creates everything outside of the layers on every pipeline stage.
Sources: vLLM's `models/{gpt2,gpt_j,opt,bloom,falcon}.py` (0.32.0) and the class defaults of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, elsewhere, replicated_linear, whole
from stowage.model.class_defaults import with_class_defaults
from stowage.model.config_fields import count, flag
from stowage.model.families.decoder import norm, read_decoder
from stowage.model.families.recipe import Config, Norm, Recipe, Rotary
from stowage.model.tensors import ParameterTensor, Place, Shard, StoredTensor

_CLASSIC: Final = Recipe(
    gated=False,
    norm=Norm.WEIGHT_AND_BIAS,
    norms=("ln_1", "ln_2"),
    derived_head_dim=True,
    everywhere=True,
)


def _gpt(config: Config) -> Config:
    """Give the usual names to the fields of GPT-2 and GPT-J."""
    hidden = count(config, "n_embd")
    return {
        **config,
        "hidden_size": hidden,
        "num_attention_heads": count(config, "n_head"),
        "num_hidden_layers": count(config, "n_layer"),
        "intermediate_size": count(config, "n_inner", 4 * hidden),
        "max_position_embeddings": count(config, "n_positions"),
    }


def _gpt_j(config: Config) -> Config:
    usual = _gpt(config)
    head_dim = usual["hidden_size"] // usual["num_attention_heads"]
    return {**usual, "partial_rotary_factor": count(config, "rotary_dim", 64) / head_dim}


def _bloom(config: Config) -> Config:
    """Give the usual names to BLOOM's fields; each query head has a key and a value head."""
    hidden = count(config, "hidden_size", config.get("n_embed"))
    heads = count(config, "num_attention_heads", config.get("n_head"))
    layers = count(config, "num_hidden_layers", config.get("n_layer"))
    sizes = {"hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": layers}
    return {**config, **sizes, "num_key_value_heads": heads, "intermediate_size": 4 * hidden}


def _falcon(config: Config) -> Config:
    """Give the usual names to Falcon's fields; the engine's feed-forward block is always four times as wide."""
    heads, hidden = count(config, "num_attention_heads"), count(config, "hidden_size")
    kv_heads = 1 if flag(config, "multi_query") else heads
    if flag(config, "new_decoder_architecture"):
        kv_heads = count(config, "num_kv_heads", heads)
    return {**config, "num_key_value_heads": kv_heads, "intermediate_size": 4 * hidden}


def _opt(config: Config) -> Config:
    hidden = count(config, "hidden_size")
    sizes = {
        "intermediate_size": count(config, "ffn_dim"),
        "word_embed_proj_dim": count(config, "word_embed_proj_dim", hidden),
    }
    return {**config, **sizes}


def _position_table(name: str, rows_beyond: int = 0) -> Callable[[Config], Tensors]:
    """Give learned positions: one row each, and `rows_beyond` that padding uses."""

    def extras(config: Config) -> Tensors:
        rows = count(config, "max_position_embeddings") + rows_beyond
        return (whole(f"{name}.weight", (rows, count(config, "hidden_size")), place=Place.EVERY),)

    return extras


def _opt_extras(config: Config) -> Tensors:
    """Give learned positions and, where words have vectors of another size, the projections in and out."""
    prefix, hidden = "model.decoder", count(config, "hidden_size")
    size = count(config, "word_embed_proj_dim")
    positions = _position_table(f"{prefix}.embed_positions", 2)(config)
    if size == hidden:
        return positions
    projections = (
        *replicated_linear(f"{prefix}.project_out", size, hidden),
        *replicated_linear(f"{prefix}.project_in", hidden, size),
    )
    return (*positions, *elsewhere(projections, Place.EVERY))


def _bloom_extras(config: Config) -> Tensors:
    name = "transformer.word_embeddings_layernorm"
    return norm(name, count(config, "hidden_size"), Norm.WEIGHT_AND_BIAS, place=Place.EVERY)


def _head_bias(config: Config) -> Tensors:
    shape, name = (count(config, "vocab_size"),), "lm_head.bias"
    return (ParameterTensor(name, shape, Shard.VOCABULARY, Place.EVERY, (StoredTensor(name, shape),)),)


_GPT2: Final = replace(
    _CLASSIC,
    model_type="gpt2",
    adapt=_gpt,
    layer="transformer.h.{}",
    embedding="transformer.wte",
    final_norm="transformer.ln_f",
    attention="attn",
    qkv="c_attn",
    qkv_parts=("c_attn",),
    output="c_proj",
    up="c_fc",
    up_parts=("c_fc",),
    down="c_proj",
    stored={"transformer.": ""},
    stored_transposed=True,
    qkv_bias=True,
    output_bias=True,
    up_bias=True,
    down_bias=True,
    rotary=Rotary.NOTHING,
    outer_extras=_position_table("transformer.wpe"),
)
_GPT_J: Final = replace(
    _CLASSIC,
    model_type="gptj",
    adapt=_gpt_j,
    layer="transformer.h.{}",
    embedding="transformer.wte",
    final_norm="transformer.ln_f",
    attention="attn",
    output="out_proj",
    up="fc_in",
    up_parts=("fc_in",),
    down="fc_out",
    norms=("ln_1",),
    up_bias=True,
    down_bias=True,
    outer_extras=_head_bias,
)
_BLOOM: Final = replace(
    _CLASSIC,
    model_type="bloom",
    adapt=_bloom,
    layer="transformer.h.{}",
    embedding="transformer.word_embeddings",
    final_norm="transformer.ln_f",
    attention="self_attention",
    qkv="query_key_value",
    qkv_parts=("query_key_value",),
    output="dense",
    up="dense_h_to_4h",
    up_parts=("dense_h_to_4h",),
    down="dense_4h_to_h",
    norms=("input_layernorm", "post_attention_layernorm"),
    stored={"transformer.": ""},
    qkv_bias=True,
    output_bias=True,
    up_bias=True,
    down_bias=True,
    rotary=Rotary.NOTHING,
    outer_extras=_bloom_extras,
)
_FALCON: Final = replace(
    _BLOOM,
    model_type="falcon",
    adapt=_falcon,
    stored={},
    qkv_bias="bias",
    output_bias="bias",
    up_bias="bias",
    down_bias="bias",
    windowed=False,
    outer_extras=lambda _config: (),
)
_OPT: Final = replace(
    _CLASSIC,
    model_type="opt",
    adapt=_opt,
    layer="model.decoder.layers.{}",
    embedding="model.decoder.embed_tokens",
    output="out_proj",
    mlp="",
    up="fc1",
    up_parts=("fc1",),
    down="fc2",
    norms=("self_attn_layer_norm", "final_layer_norm"),
    qkv_bias="enable_bias",
    output_bias="enable_bias",
    up_bias="enable_bias",
    down_bias="enable_bias",
    rotary=Rotary.NOTHING,
    embedding_field="word_embed_proj_dim",
    outer_extras=_opt_extras,
)


def read_falcon(config: Config) -> Anatomy:
    """Read Falcon: which norms a layer has, and whether it rotates, are choices of config.json."""
    full = with_class_defaults(config, "falcon")
    rotary = Rotary.NOTHING if flag(full, "alibi") else Rotary.TABLE
    two = count(full, "num_ln_in_parallel_attn", 2 if flag(full, "new_decoder_architecture") else 1) == 2
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    if flag(full, "parallel_attn"):
        norms = ("ln_attn", "ln_mlp") if two else ("input_layernorm",)
    return read_decoder(full, replace(_FALCON, rotary=rotary, norms=norms))


def read_opt(config: Config) -> Anatomy:
    """Read OPT; models that normalise after each block have no last norm."""
    full = with_class_defaults(config, "opt")
    last = flag(full, "do_layer_norm_before") and not flag(full, "_remove_final_layer_norm")
    kind = Norm.WEIGHT_AND_BIAS if flag(full, "layer_norm_elementwise_affine") else Norm.NOTHING
    return read_decoder(
        full, replace(_OPT, norm=kind, final_norm="model.decoder.final_layer_norm" if last else None)
    )


def _reader(recipe: Recipe) -> Callable[[Config], Anatomy]:
    return partial(read_decoder, recipe=recipe)


READERS: Final[Mapping[str, Callable[[Config], Anatomy]]] = {
    "BloomForCausalLM": _reader(_BLOOM),
    "FalconForCausalLM": read_falcon,
    "GPT2LMHeadModel": _reader(_GPT2),
    "GPTJForCausalLM": _reader(_GPT_J),
    "OPTForCausalLM": read_opt,
}
"""The architectures of this file and their readers."""
