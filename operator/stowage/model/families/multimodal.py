"""Multimodal architectures: which tower goes with which language model, and under which names.

A row says how to read the tower, where config.json keeps the text part and which reader it has, and how names
of the text part change in the engine and in the checkpoint. Sources: the registered model files of vLLM 0.32.0
and their weight mappings. The text readers are given from outside, so that this file depends on none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import rope_tables
from stowage.model.config_fields import mapping
from stowage.model.families import phi4_multimodal
from stowage.model.families.audio_whisper import (
    read_qwen2_5_omni_audio_tower,
    read_qwen2_audio_tower,
    read_qwen3_omni_audio_tower,
    read_ultravox_tower,
)
from stowage.model.families.minimax_m3 import read_minimax_m3_tower
from stowage.model.families.text_inside import composed, read_text, require, text_architecture, text_fields
from stowage.model.families.tower_parts import TowerAnatomy
from stowage.model.families.vision.gemma4 import (
    read_gemma4_audio_tower,
    read_gemma4_embedders,
    read_gemma4_vision_tower,
)
from stowage.model.families.vision.glm import read_glm4v_tower
from stowage.model.families.vision.intern import read_interns1_tower, read_internvl_tower
from stowage.model.families.vision.llama4 import read_llama4_tower
from stowage.model.families.vision.llava import (
    read_gemma3_tower,
    read_idefics3_tower,
    read_llava_next_tower,
    read_llava_onevision_tower,
    read_llava_tower,
    read_mistral3_tower,
    read_paligemma_tower,
)
from stowage.model.families.vision.minicpm import (
    minicpmv_language_model,
    read_minicpmv_tower,
    read_phi3_vision_tower,
)
from stowage.model.families.vision.moon import read_kimi_k25_tower, read_kimi_vl_tower
from stowage.model.families.vision.qwen import (
    deepstack_layers,
    read_qwen2_5_tower,
    read_qwen2_tower,
    read_qwen3_omni_tower,
    read_qwen3_tower,
)

Config = Mapping[str, Any]
Reader = Callable[[Config], Anatomy]
TowerReader = Callable[[Config, int], TowerAnatomy]

_DEFAULT_ROPE_FACTOR: Final = 4
_ENGINE: Final = {"model.": "language_model.model.", "lm_head": "language_model.lm_head"}
_UNCHANGED: Final[Mapping[str, str]] = {}
_INSIDE_MODEL: Final = {"model.": "model.language_model."}
_INSIDE_TEXT_MODEL: Final = {"model.": "model.text_model."}
_INSIDE_LLM: Final = {"model.": "llm.model.", "lm_head": "llm.lm_head"}
_LLM: Final = ("llm_config", "text_config")
_THINKER: Final = {"model.": "thinker.model.", "lm_head": "thinker.lm_head"}


@dataclass(frozen=True, slots=True)
class MultimodalFamily:
    """How one architecture is put together.

    `text` are the names that the text part may have in config.json, `architecture` the text's when it is not
    said there, or how to find it. `root`: the part of config.json that describes all of this. `plain_rope`:
    the rotary table has one row a position, although it is multimodal. `deepstack`: the first decoder layers
    take features of the tower, so the first pipeline stage must hold them.
    """

    towers: tuple[TowerReader, ...]
    architecture: str | Callable[[Config], str] | None = None
    text: tuple[str, ...] = ("text_config",)
    engine: Mapping[str, str] = field(default_factory=lambda: _ENGINE)
    stored: Mapping[str, str] = field(default_factory=lambda: _ENGINE)
    plain_rope: bool = False
    deepstack: bool = False
    supports_pipeline: bool = True
    root: str | None = None


def _vision(reader: Callable[..., TowerAnatomy]) -> TowerReader:
    """Make a reader of `vision_config` alone one of the whole file."""
    return lambda config, _text_hidden: reader(config.get("vision_config") or {})


_QWEN3_TOWER: Final = (_vision(read_qwen3_tower),)


def _audio(reader: Callable[..., TowerAnatomy]) -> TowerReader:
    """Make a reader of `audio_config` alone one of the whole file."""
    return lambda config, _text_hidden: reader(config.get("audio_config") or {})


_QWEN2_5_OMNI: Final = MultimodalFamily(
    (_vision(partial(read_qwen2_5_tower, stored="thinker.visual.")), _audio(read_qwen2_5_omni_audio_tower)),
    "Qwen2ForCausalLM",
    stored=_THINKER,
    root="thinker_config",
)

FAMILIES: Final[Mapping[str, MultimodalFamily]] = {
    "Qwen2VLForConditionalGeneration": MultimodalFamily(
        (_vision(read_qwen2_tower),), "Qwen2ForCausalLM", stored=_UNCHANGED
    ),
    "Qwen2_5_VLForConditionalGeneration": MultimodalFamily(
        (_vision(read_qwen2_5_tower),), "Qwen2ForCausalLM", stored=_UNCHANGED
    ),
    "OpenCUAForConditionalGeneration": MultimodalFamily(
        (_vision(read_qwen2_5_tower),), "Qwen2ForCausalLM", stored=_UNCHANGED, plain_rope=True
    ),
    "Qwen3VLForConditionalGeneration": MultimodalFamily(
        _QWEN3_TOWER, "Qwen3ForCausalLM", stored=_INSIDE_MODEL, plain_rope=True, deepstack=True
    ),
    "Qwen3VLMoeForConditionalGeneration": MultimodalFamily(
        _QWEN3_TOWER, "Qwen3MoeForCausalLM", stored=_INSIDE_MODEL, plain_rope=True, deepstack=True
    ),
    "Gemma3ForConditionalGeneration": MultimodalFamily((read_gemma3_tower,), "Gemma3ForCausalLM"),
    "Gemma4ForConditionalGeneration": MultimodalFamily(
        (read_gemma4_vision_tower, read_gemma4_audio_tower), "Gemma4ForCausalLM", stored=_INSIDE_MODEL
    ),
    "Gemma4UnifiedForConditionalGeneration": MultimodalFamily(
        (read_gemma4_embedders,), "Gemma4ForCausalLM", stored=_INSIDE_MODEL
    ),
    "Mistral3ForConditionalGeneration": MultimodalFamily((read_mistral3_tower,)),
    "LlavaForConditionalGeneration": MultimodalFamily((read_llava_tower,)),
    "LlavaNextForConditionalGeneration": MultimodalFamily((read_llava_next_tower,)),
    "LlavaOnevisionForConditionalGeneration": MultimodalFamily((read_llava_onevision_tower,)),
    "PaliGemmaForConditionalGeneration": MultimodalFamily((read_paligemma_tower,)),
    "LightOnOCRForConditionalGeneration": MultimodalFamily((read_mistral3_tower,), stored=_INSIDE_MODEL),
    "Llama4ForConditionalGeneration": MultimodalFamily((read_llama4_tower,), "Llama4ForCausalLM"),
    "Idefics3ForConditionalGeneration": MultimodalFamily(
        (read_idefics3_tower,), "LlamaForCausalLM", engine=_INSIDE_TEXT_MODEL, stored=_INSIDE_TEXT_MODEL,
        supports_pipeline=False,
    ),
    "SmolVLMForConditionalGeneration": MultimodalFamily(
        (read_idefics3_tower,), "LlamaForCausalLM", engine=_INSIDE_TEXT_MODEL, stored=_INSIDE_TEXT_MODEL,
        supports_pipeline=False,
    ),
    "InternVLChatModel": MultimodalFamily((read_internvl_tower,), text=_LLM),
    "SkyworkR1VChatModel": MultimodalFamily((read_internvl_tower,), text=_LLM),
    "InternVLForConditionalGeneration": MultimodalFamily((read_interns1_tower,)),
    "InternS1ForConditionalGeneration": MultimodalFamily((read_interns1_tower,)),
    "KimiVLForConditionalGeneration": MultimodalFamily((read_kimi_vl_tower,), "DeepseekV2ForCausalLM"),
    "KimiK25ForConditionalGeneration": MultimodalFamily((read_kimi_k25_tower,), "DeepseekV2ForCausalLM"),
    "Glm4vForConditionalGeneration": MultimodalFamily(
        (_vision(read_glm4v_tower),), "Glm4ForCausalLM", stored=_INSIDE_MODEL
    ),
    "Glm4vMoeForConditionalGeneration": MultimodalFamily(
        (_vision(read_glm4v_tower),), "Glm4MoeForCausalLM", stored=_INSIDE_MODEL
    ),
    "MiniMaxM3SparseForConditionalGeneration": MultimodalFamily(
        (read_minimax_m3_tower,), "MiniMaxM3SparseForCausalLM"
    ),
    "Qwen2AudioForConditionalGeneration": MultimodalFamily((read_qwen2_audio_tower,), "Qwen2ForCausalLM"),
    "UltravoxModel": MultimodalFamily((read_ultravox_tower,)),
    "Qwen2_5OmniModel": _QWEN2_5_OMNI,
    "Qwen2_5OmniForConditionalGeneration": _QWEN2_5_OMNI,
    "Qwen3OmniMoeForConditionalGeneration": MultimodalFamily(
        (_vision(read_qwen3_omni_tower), _audio(read_qwen3_omni_audio_tower)), "Qwen3MoeForCausalLM",
        stored=_THINKER, root="thinker_config", deepstack=True,
    ),
    "MiniCPMV": MultimodalFamily(
        (read_minicpmv_tower,), minicpmv_language_model, engine=_INSIDE_LLM, stored=_INSIDE_LLM
    ),
    "Phi3VForCausalLM": MultimodalFamily(
        (read_phi3_vision_tower,), "Phi3ForCausalLM", stored=_UNCHANGED
    ),
}  # fmt: skip


def read_multimodal(config: Config, family: MultimodalFamily, text_readers: Mapping[str, Reader]) -> Anatomy:
    """Read towers and language model of one architecture and join them; raises BadField as readers do."""
    config = require(config, family.root) if family.root else config
    fields = text_fields(config, *family.text)
    architecture = _architecture(config, family, fields)
    text = read_text(text_readers, architecture, fields)
    if family.plain_rope and _has_mrope(fields):
        text = _with_plain_rope(text)
    towers = tuple(reader(config, text.hidden_size) for reader in family.towers)
    joined = composed(text, towers, engine=family.engine, stored=family.stored)
    deep = deepstack_layers(config.get("vision_config") or {}) if family.deepstack else 0
    return replace(
        joined,
        supports_pipeline=text.supports_pipeline and family.supports_pipeline,
        min_first_stage_layers=max(text.min_first_stage_layers, deep),
        items_in_one_batch=fields.get("use_bidirectional_attention") == "vision",
    )


def _architecture(config: Config, family: MultimodalFamily, fields: Config) -> str:
    stated = family.architecture
    if isinstance(stated, str):
        return stated
    return stated(config) if stated else text_architecture(config, fields, *family.text)


def readers(text_readers: Mapping[str, Reader]) -> dict[str, Reader]:
    """Give the architectures of this file and their readers, for language models read by `text_readers`."""
    joined: dict[str, Reader] = {
        name: partial(read_multimodal, family=family, text_readers=text_readers)
        for name, family in FAMILIES.items()
    }
    return {**joined, **phi4_multimodal.readers(text_readers)}


def _has_mrope(fields: Config) -> bool:
    return any("mrope_section" in mapping(fields, name) for name in ("rope_parameters", "rope_scaling"))


def _with_plain_rope(text: Anatomy) -> Anatomy:
    """Give the rotary table one row a position: readers of text models take the engine's default of four."""
    table = text.rope.cache
    plain = replace(table, rows=table.rows // _DEFAULT_ROPE_FACTOR, multimodal=True)
    old, new = rope_tables(table), rope_tables(plain)
    outer = tuple(new[0] if tensor == old[0] else tensor for tensor in text.outer_tensors)
    return replace(text, rope=replace(text.rope, cache=plain), outer_tensors=outer)
