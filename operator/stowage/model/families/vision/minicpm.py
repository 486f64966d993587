"""MiniCPM-V: a SigLIP tower whose patches a resampler reduces to a fixed number of tokens, and Phi-3 vision.

Sources: minicpmv.py, idefics2_vision_model.py, phi3v.py and clip.py of vLLM 0.32.0. Both keep the language
model's fields at the top of config.json. The resampler is whole on every rank; its table of positions is a
buffer. Phi-3 vision always has the same CLIP tower and an embedding of its own beside the decoder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.blocks import Tensors, whole
from stowage.model.config_fields import BadField, UnsupportedFeature, count, flag, mapping
from stowage.model.encoder_defaults import encoder_default
from stowage.model.families.text_inside import require
from stowage.model.families.tower_parts import (
    TowerAnatomy,
    affine,
    buffer,
    norm,
    tower_tensors,
    undivided,
)
from stowage.model.families.vision.vit import VitSize, vit_size, vit_tensors
from stowage.model.profile import EncoderProfile
from stowage.model.tensors import ParameterTensor, Place, Shard, StoredTensor, Tower

Config = Mapping[str, Any]

_IMAGE: Final = Tower(("image",))
_TOWER: Final = Tower(("image", "video"))
_MAX_GRID: Final = 70
_TIMED_POSITIONS: Final = 36_000
_CLIP_LARGE: Final = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
_CLIP_LARGE_LAYERS: Final = 23
_LANGUAGE_MODELS: Final = {
    (2, 5): "LlamaForCausalLM",
    (2, 6): "Qwen2ForCausalLM",
    (4, 0): "LlamaForCausalLM",
    (4, 5): "Qwen3ForCausalLM",
}


def minicpmv_language_model(config: Config) -> str:
    """Give the architecture of the language model, which follows from the version."""
    version = minicpmv_version(config)
    if version not in _LANGUAGE_MODELS:
        raise UnsupportedFeature(f"MiniCPM-V {version[0]}.{version[1]} is not supported by this version.")
    return _LANGUAGE_MODELS[version]


def minicpmv_version(config: Config) -> tuple[int, int]:
    """Read the version; files without one are 2.0 or 2.5, which differ in size."""
    stated = config.get("version")
    if stated is None:
        small = config.get("hidden_size") == 2304 and config.get("query_num") == 64
        return (2, 0) if small else (2, 5)
    major, point, minor = str(stated).partition(".")
    if not (major.isdigit() and point and minor.isdigit()):
        raise BadField(f"config.json says version: {stated!r}; it must be a number like 2.6.")
    return int(major), int(minor)


def read_minicpmv_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower and resampler from the whole config.json."""
    vision = {**require(config, "vision_config"), "model_type": "idefics3_vision"}
    size, queries = vit_size(vision), count(config, "query_num", 64)
    layers = size.layers - (1 if flag(config, "drop_vision_last_layer", True) else 0)
    tower = vit_tensors(vision, size, layers, post_norm=True)
    resampler = _resampler(size.hidden, text_hidden, queries)
    if minicpmv_version(config) >= (4, 5):
        resampler = (*resampler, buffer("temporal_pos_embed", (_TIMED_POSITIONS, text_hidden)))
    slices = count(mapping(config, "slice_config"), "max_slice_nums", 9) + 1
    frames = encoder_default("minicpmv", "video_max_frames")
    patches = encoder_default("minicpmv", "slice_max_patches")

    def encoder(modality: str, pieces: int, frame: int = 0) -> EncoderProfile:
        return EncoderProfile(
            modality, size.hidden, size.inner, layers, size.heads, pieces * queries, pieces * patches,
            text_hidden, frame,
        )  # fmt: skip

    return TowerAnatomy(
        (
            *tower_tensors(tower, _TOWER, engine="vpm."),
            *tower_tensors(resampler, _TOWER, engine="resampler.", quantised=False),
        ),
        (encoder("image", slices), encoder("video", frames, queries)),
    )


def read_phi3_vision_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower, separators, projection and the second token embedding from the whole config.json."""
    size, vocab_size = vit_size(_CLIP_LARGE), count(config, "vocab_size")
    joined = count(mapping(config, "img_processor"), "image_dim_out", 1024) * 4
    tower = vit_tensors(_CLIP_LARGE, size, _CLIP_LARGE_LAYERS, post_norm=False)
    rest = (
        whole("glb_GN", (1, 1, joined)),
        whole("sub_GN", (1, 1, 1, joined)),
        *affine("img_projection.0", (text_hidden, joined), bias=text_hidden),
        *affine("img_projection.2", (text_hidden, text_hidden), bias=text_hidden),
    )
    root = "vision_embed_tokens."
    return TowerAnatomy(
        (
            _second_embedding(vocab_size, text_hidden),
            *tower_tensors(
                tower,
                _IMAGE,
                engine=f"{root}img_processor.vision_model.",
                stored=f"model.{root}img_processor.vision_model.",
            ),
            *tower_tensors(rest, _IMAGE, engine=root, stored=f"model.{root}", quantised=False),
        ),
        (_phi3_encoder(size, text_hidden),),
    )


def _resampler(hidden: int, text_hidden: int, queries: int) -> Tensors:
    keys = affine("kv_proj", (text_hidden, hidden), bias=None) if hidden != text_hidden else ()
    return undivided(
        (
            whole("query", (queries, text_hidden)),
            whole("proj", (text_hidden, text_hidden)),
            *keys,
            whole("attn.in_proj_weight", (3 * text_hidden, text_hidden)),
            whole("attn.in_proj_bias", (3 * text_hidden,)),
            *affine("attn.out_proj", (text_hidden, text_hidden), bias=text_hidden),
            *norm("ln_q", text_hidden),
            *norm("ln_kv", text_hidden),
            *norm("ln_post", text_hidden),
            buffer("pos_embed", (_MAX_GRID, _MAX_GRID, text_hidden)),
        )
    )


def _second_embedding(vocab_size: int, hidden: int) -> ParameterTensor:
    shape = (vocab_size, hidden)
    return ParameterTensor(
        "embed_tokens.weight",
        shape,
        Shard.VOCABULARY,
        Place.EVERY,
        stored=(StoredTensor("model.vision_embed_tokens.wte.weight", shape),),
        tower=Tower(("image",), always_divided=True),
    )


def _phi3_encoder(size: VitSize, text_hidden: int) -> EncoderProfile:
    crops = encoder_default("phi3_v", "image_max_crops")
    tokens = encoder_default("phi3_v", "image_max_tokens")
    return size.encoder(tokens, (crops + 1) * (size.grid**2 + 1), text_hidden)
