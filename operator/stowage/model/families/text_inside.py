"""The language model inside a multimodal one: read by the reader of its own architecture, then renamed.

Multimodal configurations nest the text part and leave out what equals the defaults of its class, so those are
filled in first (class_defaults.toml). The engine gives the inner model a prefix (`language_model.`), and the
checkpoint has names of its own. Whether embeddings are tied follows vLLM 0.32.0 (`with_hf_config`,
`maybe_untie_word_embeddings`): the outermost statement counts; without one, the text class's default, since
an own head in the checkpoint is used where there is one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.config_fields import BadField, UnsupportedFeature, flag, word
from stowage.model.families.tower_parts import TowerAnatomy, renamed, with_prefixes
from stowage.model.profile import LayerProfile
from stowage.model.shared_layers import shared_layers

Config = Mapping[str, Any]
Reader = Callable[[Config], Anatomy]

_NOT_TEXT: Final = frozenset(
    ("vision_config", "audio_config", "text_config", "llm_config", "architectures", "quantization_config")
)


@cache
def _class_defaults() -> dict[str, dict[str, Any]]:
    text = files("stowage.model").joinpath("class_defaults.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def text_fields(config: Config, *names: str) -> dict[str, Any]:
    """Give the fields of the text part: the nested object of the first name there is, else the outer fields.

    Fields that are absent take the class's defaults; `tie_word_embeddings` takes the outer value.
    """
    stated = {key: value for key, value in (_nested(config, names) or config).items() if key not in _NOT_TEXT}
    row = _class_defaults().get(word(stated, "model_type") or "", {})
    fields = {**{key: value for key, value in row.items() if key != "source"}, **stated}
    if config.get("tie_word_embeddings") is not None:
        fields["tie_word_embeddings"] = flag(config, "tie_word_embeddings")
    return fields


def _nested(config: Config, names: tuple[str, ...]) -> Config | None:
    return next((config[name] for name in names if isinstance(config.get(name), Mapping)), None)


def text_architecture(config: Config, fields: Config, *names: str) -> str:
    """Give the architecture of the text part: what it says itself, else what its model_type stands for."""
    stated = (_nested(config, names) or {}).get("architectures")
    if isinstance(stated, list) and stated and isinstance(stated[0], str):
        return stated[0]
    kind = word(fields, "model_type") or "llama"
    found = _BY_MODEL_TYPE.get(kind)
    if found is None:
        raise UnsupportedFeature(
            f"config.json nests a language model of type {kind!r}, which is not supported."
        )
    return found


_BY_MODEL_TYPE: Final = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "ministral3": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
    "llama4_text": "Llama4ForCausalLM",
}


def read_text(readers: Mapping[str, Reader], architecture: str, fields: Config) -> Anatomy:
    """Read the text part by the reader of its architecture; raises UnsupportedFeature where there is none."""
    reader = readers.get(architecture)
    if reader is None:
        raise UnsupportedFeature(f"The language model inside is a {architecture}, which is not supported.")
    return reader({**fields, "architectures": [architecture]})


def composed(
    text: Anatomy,
    towers: tuple[TowerAnatomy, ...],
    *,
    engine: Mapping[str, str],
    stored: Mapping[str, str],
) -> Anatomy:
    """Join a language model and its towers; `engine` and `stored` exchange prefixes of the text's names."""
    to_engine, to_stored = with_prefixes(engine), with_prefixes(stored)

    @shared_layers
    def inside(layer: LayerProfile) -> LayerProfile:
        return replace(
            layer, tensors=tuple(renamed(tensor, to_engine, to_stored) for tensor in layer.tensors)
        )

    outer = tuple(renamed(tensor, to_engine, to_stored) for tensor in text.outer_tensors)
    return replace(
        text,
        layers=tuple(inside(layer) for layer in text.layers),
        draft_layers=tuple(inside(layer) for layer in text.draft_layers),
        outer_tensors=(*outer, *(tensor for tower in towers for tensor in tower.tensors)),
        encoders=text.encoders + tuple(encoder for tower in towers for encoder in tower.encoders),
    )


def require(config: Config, name: str) -> Config:
    """Read a nested configuration that the family cannot do without; an empty object means class defaults."""
    value = config.get(name)
    if not isinstance(value, Mapping):
        raise BadField(f"config.json has no {name}, which this architecture needs.")
    return value
