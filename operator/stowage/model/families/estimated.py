"""Architectures that the engine serves and that nobody described here: sized by what they share with known ones.

A multimodal model holds, nearly always, a language model that is known to the byte; only its towers are worked out
from their sizes alone. Where the language model itself is unknown it is read as the plain decoder that its fields
describe (grouped or latent attention, dense or experts), or as the hybrid that has the same fields. All say so in a
note and carry a band. This must never serve an architecture that has a reader of its own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.config_fields import BadField, UnsupportedFeature, word
from stowage.model.families.estimated_towers import estimated_towers
from stowage.model.families.text_inside import text_fields
from stowage.model.profile import AttentionProfile, LayerProfile
from stowage.model.shared_layers import shared_layers
from stowage.model.tensors import ParameterTensor

Config = Mapping[str, Any]
Reader = Callable[[Config], Anatomy]

PLAIN_BAND: Final = 0.15
"""Relative uncertainty of weights that are read as a plain decoder's: biases, norms, gates and extra projections."""

_TOWER_BAND: Final = 0.5
"""Relative uncertainty of a tower's weights: feed-forward widths and projectors differ."""

_TEXT: Final = ("text_config", "llm_config", "language_config", "language_model_config", "decoder_config")
_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("n_head_kv", "num_kv_heads", "n_kv_heads", "multi_query_group_num"),
    "intermediate_size": ("n_inner", "ffn_dim", "hidden_dim", "ffn_hidden_size", "d_ff"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "seq_length", "max_sequence_length"),
    "num_experts": ("n_routed_experts", "num_local_experts", "moe_num_experts", "num_moe_experts"),
    "num_experts_per_tok": ("num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts", "moe_k"),
    "moe_intermediate_size": ("expert_hidden_dim", "moe_ffn_hidden_size", "expert_intermediate_size"),
    "head_dim": (),
    "vocab_size": (),
    "tie_word_embeddings": (),
    "decoder_sparse_step": (),
    "mlp_only_layers": (),
    "shared_expert_intermediate_size": (),
    "dtype": (),
    "torch_dtype": (),
}
_NUMBERS: Final = frozenset(
    ("intermediate_size", "num_experts_per_tok", "moe_intermediate_size", "num_experts")
)
_HEAD_DIM: Final = 128
"""Class default of most families whose heads do not add up to the hidden size."""

_CONTEXT: Final = 2048
"""Context that the engine takes where config.json states none (config/model.py)."""

_UNGATED: Final = frozenset(("gelu", "gelu_new", "gelu_fast", "quick_gelu", "relu", "relu2"))
"""Activations of feed-forward blocks without a gate; gated ones of today use silu or gelu_pytorch_tanh."""

_LATENT: Final = (
    "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "n_shared_experts",
    "n_routed_experts", "first_k_dense_replace", "moe_layer_freq",
)  # fmt: skip
_OTHER_MIXERS: Final[Mapping[str, tuple[str, ...]]] = {
    "linear_attn_config": ("KimiLinearForCausalLM",),
    "linear_num_value_heads": ("Qwen3NextForCausalLM", "Qwen3_5ForCausalLM"),
    "hybrid_override_pattern": ("NemotronHForCausalLM",),
    "layers_block_type": ("GraniteMoeHybridForCausalLM", "NemotronHForCausalLM", "Zamba2ForCausalLM"),
    "attn_type_list": ("MiniMaxText01ForCausalLM",),
    "attn_layer_period": ("JambaForCausalLM",),
    "mamba_d_ssm": ("FalconH1ForCausalLM",),
    "mamba_d_state": ("BambaForCausalLM", "GraniteMoeHybridForCausalLM"),
    "ssm_state_size": ("NemotronHForCausalLM",),
    "state_size": ("Mamba2ForCausalLM", "MambaForCausalLM"),
    "compress_ratios": ("DeepseekV4ForCausalLM",),
    "conv_L_cache": ("Lfm2MoeForCausalLM", "Lfm2ForCausalLM"),
}
"""Fields of layers that are not plain attention, and the readers that know such layers."""


@cache
def estimated_names() -> frozenset[str]:
    """Give the architectures that are estimated because the engine serves them and no reader knows them."""
    text = files("stowage.model").joinpath("estimated_architectures.toml").read_text(encoding="utf-8")
    return frozenset(tomllib.loads(text)["names"])


def estimate(config: Config, readers: Mapping[str, Reader]) -> Anatomy:
    """Read a model by what it shares with those that `readers` know; raises BadField where nothing is shared."""
    config = config["thinker_config"] if isinstance(config.get("thinker_config"), Mapping) else config
    fields = text_fields(config, *_TEXT)
    name = _known_text(config, fields, readers)
    try:
        if name is None:
            raise UnsupportedFeature("No reader knows this language model.")
        text, said = readers[name]({**fields, "architectures": [name]}), name
        band = 0.0
    except BadField:
        text, said = _plain(fields, readers)
        band = PLAIN_BAND
    towers = estimated_towers(config, text.hidden_size, _TEXT)
    return _joined(config, text, towers, said, band)


def _joined(
    config: Config,
    text: Anatomy,
    towers: tuple[tuple[ParameterTensor, ...], tuple[Any, ...]],
    said: str,
    band: float,
) -> Anatomy:
    tensors, encoders = towers
    tower_elements = sum(tensor.shape[0] * tensor.shape[1] for tensor in tensors)
    share = tower_elements / max(1, _elements(text) + tower_elements)
    name = (config.get("architectures") or ["An architecture without a name"])[0]
    note = f"{name} is not described tensor by tensor: its language model is sized as {said}"
    if tensors:
        note += ", its towers by their sizes"
    band = max(band, _TOWER_BAND * share, 0.01)
    return replace(
        text,
        outer_tensors=(*text.outer_tensors, *tensors),
        encoders=(*text.encoders, *encoders),
        weight_band=band,
        notes=(*text.notes, f"{note}."),
    )


def _elements(text: Anatomy) -> int:
    tensors = [*text.outer_tensors, *(tensor for layer in text.layers for tensor in layer.tensors)]
    total = 0
    for tensor in tensors:
        number = 1
        for size in tensor.shape:
            number *= size
        total += number
    return total


def _known_text(config: Config, fields: Config, readers: Mapping[str, Reader]) -> str | None:
    """Give the architecture of the language model: what it says itself, else what its model_type is called."""
    nested: Config = next((config[name] for name in _TEXT if isinstance(config.get(name), Mapping)), {})
    stated = nested.get("architectures")
    if isinstance(stated, list) and stated and stated[0] in readers:
        return str(stated[0])
    kind = _letters((word(fields, "model_type") or "").removesuffix("_text"))
    names = {_letters(name.removesuffix("ForCausalLM")): name for name in readers if "ForCausalLM" in name}
    return names.get(kind) if kind else None


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _plain(fields: Config, readers: Mapping[str, Reader]) -> tuple[Anatomy, str]:
    """Read the fields with the reader of the kind that they describe, a plain decoder's where nothing is special."""
    other = next((name for name in _OTHER_MIXERS if fields.get(name)), None)
    if other is not None:
        return _hybrid(fields, other, readers)
    given = _usual(fields)
    if fields.get("kv_lora_rank"):
        latent = {name: fields[name] for name in _LATENT if fields.get(name) is not None}
        return readers["DeepseekV3ForCausalLM"]({**given, **latent}), "one with latent attention"
    if "num_experts" in given:
        name, said = _experts(given, fields), "a mixture of experts"
    else:
        plain = word(fields, "hidden_act") in _UNGATED
        name, said = ("ArceeForCausalLM" if plain else "LlamaForCausalLM"), "a plain decoder"
    return _windowed(readers[name](given), fields), said


def _experts(given: dict[str, Any], fields: Config) -> str:
    """Complete the fields of experts, and give the reader that counts shared ones as this model does."""
    given.setdefault("moe_intermediate_size", given["intermediate_size"])
    given.setdefault("num_experts_per_tok", 2)
    shared = fields.get("n_shared_experts") or fields.get("num_shared_experts")
    if isinstance(shared, int):
        dense = fields.get("first_k_dense_replace") or 0
        given.update(
            n_routed_experts=given["num_experts"], n_shared_experts=shared, first_k_dense_replace=dense
        )
        return "Glm4MoeForCausalLM"
    return "Qwen2MoeForCausalLM" if "shared_expert_intermediate_size" in given else "Qwen3MoeForCausalLM"


def _hybrid(fields: Config, field: str, readers: Mapping[str, Reader]) -> tuple[Anatomy, str]:
    for name in _OTHER_MIXERS[field]:
        try:
            return readers[name]({**fields, "architectures": [name]}), f"a {name}"
        except BadField:
            continue
    raise UnsupportedFeature(
        f"The model has layers that are not attention ({field}), and no reader knows them; it is not sized."
    )


def _usual(fields: Config) -> dict[str, Any]:
    """Give the fields of a plain decoder under their usual names; one number where layers have different ones."""
    found = {name: _first(fields, (name, *others)) for name, others in _ALIASES.items()}
    given = {
        name: max(value) if name in _NUMBERS and isinstance(value, list) and value else value
        for name, value in found.items()
        if value is not None
    }
    hidden, heads = given.get("hidden_size"), given.get("num_attention_heads")
    if isinstance(hidden, int) and isinstance(heads, int):
        if hidden % max(1, heads):
            given.setdefault("head_dim", _HEAD_DIM)
        given.setdefault(
            "intermediate_size", given.get("moe_intermediate_size") or hidden * 8 // 3 // 64 * 64
        )
    given.setdefault("max_position_embeddings", _CONTEXT)
    return given


def _first(fields: Config, names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _windowed(text: Anatomy, fields: Config) -> Anatomy:
    """Give layers the window that layer_types say; without it every layer keeps all tokens."""
    kinds, window = fields.get("layer_types"), fields.get("sliding_window")
    if not isinstance(kinds, list) or not isinstance(window, int) or len(kinds) < len(text.layers):
        return text

    @shared_layers
    def windowed(layer: LayerProfile) -> LayerProfile:
        mixers = tuple(
            replace(mixer, sliding_window=window) if isinstance(mixer, AttentionProfile) else mixer
            for mixer in layer.mixers
        )
        return replace(layer, mixers=mixers)

    layers = tuple(
        windowed(layer) if "sliding" in str(kind) else layer
        for layer, kind in zip(text.layers, kinds, strict=False)
    )
    return replace(text, layers=layers)
