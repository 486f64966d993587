"""Dense decoders with a model file of their own in the engine that differ from Llama in names, norms or biases.

Each row says only what differs; numbers come from config.json. Sources: vLLM's model files named like the
architectures (0.32.0). Where the engine creates embedding, last norm and head without asking for the
pipeline stage, every stage has them (`everywhere`), whether it needs them or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, whole
from stowage.model.config_fields import UnsupportedFeature, count, flag
from stowage.model.families.decoder import read_decoder
from stowage.model.families.recipe import Config, Norm, QkNorm, Recipe, Rotary
from stowage.model.families.windows import every_nth_full
from stowage.model.tensors import ParameterTensor, Place, Shard


def _either_bias(config: Config) -> Config:
    """Let `bias` count as `attention_bias`, as the engine does in its Llama and what derives from it."""
    return {**config, "attention_bias": flag(config, "attention_bias") or flag(config, "bias")}


def _cohere(config: Config) -> Config:
    """Let `model_max_length` decide the rotary table; the head is always the embedding."""
    positions = count(config, "model_max_length", count(config, "max_position_embeddings"))
    return {**config, "max_position_embeddings": positions, "tie_word_embeddings": True}


def _cohere2(config: Config) -> Config:
    interval = count(config, "sliding_window_pattern", 4)
    return _with_types(_cohere(config), interval)


def _exaone4(config: Config) -> Config:
    """Fill in layer_types as the class does; where no window is stated, every layer sees everything."""
    if config.get("sliding_window") is None:
        return _either_bias(config)
    pattern = config.get("sliding_window_pattern")
    interval = len(pattern) if isinstance(pattern, str) else count(config, "sliding_window_pattern")
    return _with_types(_either_bias(config), interval)


def _with_types(config: Config, interval: int) -> Config:
    if config.get("layer_types") is not None:
        return config
    return {**config, "layer_types": list(every_nth_full(count(config, "num_hidden_layers"), interval))}


def _exaone3(config: Config) -> Config:
    return {**_either_bias(config), "num_hidden_layers": count(config, "num_layers")}


def _chatglm(config: Config) -> Config:
    """Give the usual names to ChatGLM's fields; half of each head rotates."""
    heads = count(config, "num_attention_heads")
    multi_query = flag(config, "multi_query_attention")
    return {
        **config,
        "num_hidden_layers": count(config, "num_layers", 28),
        "num_key_value_heads": count(config, "multi_query_group_num", 1) if multi_query else heads,
        "intermediate_size": count(config, "ffn_hidden_size", 13696),
        "vocab_size": count(config, "padded_vocab_size", 65024),
        "max_position_embeddings": count(config, "seq_length", 2048),
        "add_qkv_bias": flag(config, "add_qkv_bias") or flag(config, "add_bias_linear"),
        "partial_rotary_factor": 0.5,
    }


def _telechat(config: Config) -> Config:
    """Give TeleChat2's fields their usual names; all query heads have keys and values of their own."""
    heads = count(config, "n_head")
    return {
        **config,
        "num_hidden_layers": count(config, "n_layer"),
        "num_attention_heads": heads,
        "num_key_value_heads": count(config, "num_key_value_heads", heads),
        "intermediate_size": count(config, "ffn_hidden_size"),
        "max_position_embeddings": count(
            config, "max_position_embeddings", count(config, "seq_length", 8192)
        ),
    }


def _step1(config: Config) -> Config:
    """Give Step-1's groups of queries their usual name; one where none is stated."""
    groups = count(config, "num_attention_groups", count(config, "num_key_value_heads", 1))
    return {**config, "num_key_value_heads": groups}


def _minicpm(config: Config) -> Config:
    if config.get("num_experts"):
        raise UnsupportedFeature(
            "A MiniCPM model with experts (num_experts) is not supported by this version."
        )
    return config


def _activation_parameters(_config: Config) -> Tensors:
    """Give what xIELU learns and keeps: two parameters and two constants, in bfloat16 whatever runs."""
    prefix = "model.layers.{}.mlp.act_fn"
    learned = (whole(f"{prefix}.{name}", (1,), element_bytes=2) for name in ("alpha_p", "alpha_n"))
    kept = (
        ParameterTensor(f"{prefix}.{name}", (), Shard.REPLICATED, Place.LAYER, element_bytes=2)
        for name in ("beta", "eps")
    )
    return (*learned, *kept)


_LIKE_LLAMA: Final = Recipe(
    adapt=_either_bias,
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    up_bias="mlp_bias",
    down_bias="mlp_bias",
)
_COHERE: Final = Recipe(norms=("input_layernorm",), everywhere=True)
_CHATGLM: Final = Recipe(
    adapt=_chatglm,
    layer="transformer.encoder.layers.{}",
    embedding="transformer.embedding",
    final_norm="transformer.encoder.final_layernorm",
    head="transformer.output_layer",
    attention="self_attention",
    qkv="query_key_value",
    qkv_parts=("query_key_value",),
    output="dense",
    up="dense_h_to_4h",
    up_parts=("dense_h_to_4h",),
    down="dense_4h_to_h",
    stored={"transformer.embedding": "transformer.embedding.word_embeddings"},
    qkv_bias="add_qkv_bias",
    output_bias="add_bias_linear",
    up_bias="add_bias_linear",
    down_bias="add_bias_linear",
    derived_head_dim=True,
    everywhere=True,
)


def read_chatglm(config: Config) -> Anatomy:
    """Read ChatGLM, whose kind of norms and last norm are choices of config.json."""
    rms, last = flag(config, "rmsnorm", True), flag(config, "post_layer_norm", True)
    kind = Norm.WEIGHT if rms else Norm.WEIGHT_AND_BIAS
    final_norm = _CHATGLM.final_norm if last else None
    return read_decoder(config, replace(_CHATGLM, norm=kind, final_norm=final_norm))


RECIPES: Final[Mapping[str, Recipe]] = {
    "ApertusForCausalLM": replace(
        _LIKE_LLAMA,
        model_type="apertus",
        gated=False,
        up="up_proj",
        up_parts=("up_proj",),
        norms=("attention_layernorm", "feedforward_layernorm"),
        qk_norm=QkNorm.HEAD,
        layer_extras=_activation_parameters,
    ),
    "CohereForCausalLM": replace(
        _COHERE, model_type="cohere", adapt=_cohere, qk_norm=QkNorm.PER_HEAD, qk_norm_when="use_qk_norm"
    ),
    "Cohere2ForCausalLM": replace(
        _COHERE, model_type="cohere2", adapt=_cohere2, derived_head_dim=True, extra_window=1
    ),
    "Ernie4_5ForCausalLM": replace(_LIKE_LLAMA, model_type="ernie4_5", output_bias=False),
    "ExaoneForCausalLM": replace(
        _LIKE_LLAMA,
        adapt=_exaone3,
        layer="transformer.h.{}",
        embedding="transformer.wte",
        final_norm="transformer.ln_f",
        attention="attn.attention",
        output="out_proj",
        up_parts=("c_fc_0", "c_fc_1"),
        down="c_proj",
        norms=("ln_1", "ln_2"),
    ),
    "Exaone4ForCausalLM": replace(
        _LIKE_LLAMA,
        model_type="exaone4",
        adapt=_exaone4,
        norms=("post_attention_layernorm", "post_feedforward_layernorm"),
        qk_norm=QkNorm.HEAD,
    ),
    "Glm4ForCausalLM": Recipe(
        model_type="glm4",
        up_parts=("gate_up_proj",),
        norms=(
            "input_layernorm",
            "post_attention_layernorm",
            "post_self_attn_layernorm",
            "post_mlp_layernorm",
        ),
        qkv_bias="attention_bias",
    ),
    "InternLM2ForCausalLM": Recipe(
        embedding="model.tok_embeddings",
        head="output",
        attention="attention",
        qkv="wqkv",
        qkv_parts=("wqkv",),
        output="wo",
        mlp="feed_forward",
        up_parts=("w1", "w3"),
        down="w2",
        norms=("attention_norm", "ffn_norm"),
        derived_head_dim=True,
        everywhere=True,
    ),
    "MiniCPMForCausalLM": Recipe(adapt=_minicpm, derived_head_dim=True, everywhere=True),
    "NemotronForCausalLM": replace(
        _LIKE_LLAMA,
        model_type="nemotron",
        gated=False,
        up="up_proj",
        up_parts=("up_proj",),
        norm=Norm.WEIGHT_AND_BIAS,
    ),
    "OrionForCausalLM": Recipe(norm=Norm.WEIGHT_AND_BIAS, derived_head_dim=True, everywhere=True),
    "PanguEmbeddedForCausalLM": _LIKE_LLAMA,
    "SolarForCausalLM": _LIKE_LLAMA,
    "StableLmForCausalLM": Recipe(
        model_type="stablelm",
        norm=Norm.WEIGHT_AND_BIAS,
        qkv_bias="use_qkv_bias",
        derived_head_dim=True,
        everywhere=True,
    ),
    "Step1ForCausalLM": Recipe(
        adapt=_step1,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        up_bias="mlp_bias",
        down_bias="mlp_bias",
        derived_head_dim=True,
        rotary=Rotary.NOTHING,
    ),
    "TeleChat2ForCausalLM": Recipe(
        adapt=_telechat,
        qkv_parts=("query", "key_value"),
        output_bias=True,
        down_bias=True,
        derived_head_dim=True,
        stored={
            "model.embed_tokens": "transformer.word_embeddings",
            "model.norm": "transformer.ln_f",
            "model.layers.{}.self_attn.o_proj": "transformer.h.{}.self_attention.dense",
            "model.layers.{}.self_attn": "transformer.h.{}.self_attention",
            "model.layers.{}": "transformer.h.{}",
        },
    ),
}
"""Architectures that one recipe describes."""


def _reader(recipe: Recipe) -> Callable[[Config], Anatomy]:
    return partial(read_decoder, recipe=recipe)


def read_hyperclovax(config: Config) -> Anatomy:
    """Read HyperCLOVA X, whose layers have a norm behind each block unless config.json says otherwise."""
    recipe = replace(_LIKE_LLAMA, model_type="hyperclovax")
    if flag(config, "use_post_norm", True):
        recipe = replace(recipe, norms=(*recipe.norms, "post_norm1", "post_norm2"))
    return read_decoder(config, recipe)


READERS: Final[Mapping[str, Callable[[Config], Anatomy]]] = {
    **{name: _reader(recipe) for name, recipe in RECIPES.items()},
    "ChatGLMModel": read_chatglm,
    "ChatGLMForConditionalGeneration": read_chatglm,
    "HyperCLOVAXForCausalLM": read_hyperclovax,
}
"""The architectures of this file and their readers."""
