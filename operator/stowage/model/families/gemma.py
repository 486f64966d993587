"""Gemma 1 to 3, and what has their shape: text decoders of Google with wide heads and tied embeddings.

From the second generation on a layer has four norms, and layers with and without a sliding window alternate;
from the third on heads are normalised and the two kinds of layers rotate differently. The readers take the
text part of a multimodal configuration as well. Sources: vLLM's `models/{gemma,gemma2,gemma3}.py`
(0.32.0) and the configuration classes of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, rope_tables
from stowage.model.class_defaults import with_class_defaults
from stowage.model.config_fields import UnsupportedFeature, count
from stowage.model.families.decoder import buffer, read_decoder
from stowage.model.families.recipe import Config, QkNorm, Recipe, Rotary
from stowage.model.families.rotary_types import rotary_tables
from stowage.model.families.windows import FULL, SLIDING, every_nth_full, layer_types

_FOUR_NORMS: Final = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_GEMMA2_INTERVAL, _GEMMA3_INTERVAL = 2, 6


def embedding_scale(_config: Config) -> Tensors:
    """Give the number that embeddings are multiplied by, a buffer."""
    return (buffer("model.normalizer"),)


_GEMMA: Final = Recipe(model_type="gemma", everywhere=True, outer_extras=embedding_scale)
_GEMMA2: Final = replace(
    _GEMMA,
    model_type="gemma2",
    norms=_FOUR_NORMS,
    qkv_bias="attention_bias",
    output_bias="attention_bias",
)
_GEMMA3: Final = replace(_GEMMA2, model_type="gemma3_text", qk_norm=QkNorm.HEAD)


def read_gemma(config: Config) -> Anatomy:
    """Read the first generation; raises BadField for missing, wrong or not supported values."""
    return read_decoder(_causal(with_class_defaults(config, "gemma")), _GEMMA)


def read_gemma2(config: Config) -> Anatomy:
    """Read the second generation, whose head is always the embedding."""
    full = _with_types(_causal(with_class_defaults(config, "gemma2")), _GEMMA2_INTERVAL)
    return read_decoder({**full, "tie_word_embeddings": True}, _GEMMA2)


def read_gemma3(config: Config) -> Anatomy:
    """Read the third generation: a whole configuration, or the text part of a multimodal one."""
    full = _causal(with_class_defaults(config, "gemma3_text"))
    interval = count(full, "sliding_window_pattern", _GEMMA3_INTERVAL)
    return with_two_embeddings(_with_types(full, interval), _GEMMA3)


def with_two_embeddings(config: Config, recipe: Recipe) -> Anatomy:
    """Read a decoder whose sliding and full layers rotate differently.

    The context is the stated one: scaling factors are counted in it already (`_get_and_verify_max_len`).
    """
    number = count(config, "num_hidden_layers")
    types = layer_types(config, number) or (FULL,) * number
    plain = {**config, "rope_parameters": None, "rope_scaling": None}
    anatomy = read_decoder(plain, recipe)
    head_dim = anatomy.layers[0].attention.head_dim if anatomy.layers[0].attention else 0
    tables = rotary_tables(config, types, {SLIDING: head_dim, FULL: head_dim})
    outer = tuple(tensor for tensor in anatomy.outer_tensors if not tensor.name.endswith("cos_sin_cache"))
    return replace(anatomy, outer_tensors=(*outer, *rope_tables(*tables)))


def read_vault_gemma(config: Config) -> Anatomy:
    """Read VaultGemma, which the Transformers backend serves: two norms a layer, frequencies by layer type."""
    full = _with_types(_causal(with_class_defaults(config, "vaultgemma")), _GEMMA2_INTERVAL)
    recipe = Recipe(
        model_type="vaultgemma",
        norms=("input_layernorm", "pre_feedforward_layernorm"),
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        rotary=Rotary.FREQUENCIES,
        outer_extras=lambda _config: (buffer("model.embed_tokens.embed_scale"),),
    )
    return read_decoder(full, recipe)


READERS: Final[Mapping[str, Callable[[Config], Anatomy]]] = {
    "GemmaForCausalLM": read_gemma,
    "Gemma2ForCausalLM": read_gemma2,
    "Gemma3ForCausalLM": read_gemma3,
    "VaultGemmaForCausalLM": read_vault_gemma,
}
"""The architectures of this file and their readers."""


def _with_types(config: Config, interval: int) -> Config:
    if config.get("layer_types") is not None:
        return config
    return {**config, "layer_types": list(every_nth_full(count(config, "num_hidden_layers"), interval))}


def _causal(config: Config) -> Config:
    if config.get("use_bidirectional_attention") in (None, False, "vision"):
        return config
    raise UnsupportedFeature("A Gemma with bidirectional attention (an embedding model) is not supported.")
