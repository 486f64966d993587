"""MoonViT, the vision tower of Kimi-VL and of Kimi K2.5, and its projector.

Sources: moonvit.py, kimi_vl.py, kimi_k25_vit.py and kimi_k25.py of vLLM 0.32.0. Kimi-VL builds both without the
checkpoint's quantisation. The projector is whole on every rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from stowage.model.blocks import Tensors, whole
from stowage.model.config_fields import BadField, count, mapping, word
from stowage.model.encoder_defaults import encoder_default
from stowage.model.families.text_inside import require
from stowage.model.families.tower_parts import (
    LayerNames,
    LayerSize,
    TowerAnatomy,
    affine,
    buffer,
    encoder_layer,
    norm,
    numbered,
    renamed,
    tower_tensors,
    with_prefixes,
)
from stowage.model.profile import EncoderProfile
from stowage.model.tensors import Tower

Config = Mapping[str, Any]

_TOWER: Final = Tower(("image",))
_LAYER: Final = LayerNames(("norm0", "norm1"), "wqkv", "wo", "mlp.fc0", "mlp.fc1")


@dataclass(frozen=True, slots=True)
class _Size:
    hidden: int
    inner: int
    layers: int
    heads: int
    patch: int
    grid: tuple[int, int]
    merge: int


def read_kimi_vl_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower and projector of Kimi-VL from the whole config.json."""
    size = _size(require(config, "vision_config"), "init_")
    return TowerAnatomy(
        (
            *tower_tensors(_tower(size), _TOWER, engine="vision_tower.", quantised=False),
            *tower_tensors(
                _projector(size, text_hidden), _TOWER, engine="multi_modal_projector.", quantised=False
            ),
        ),
        (_encoder("image", size, text_hidden),),
    )


def read_kimi_k25_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower and projector of Kimi K2.5, where images and pieces of videos are one modality.

    Every rank holds the tower whole where tensor parallelism does not divide its heads. The engine knows the
    sizes by the names of transformers' class and takes its defaults where a file still has older names. It
    never quantises tower and projector of a compressed-tensors checkpoint (`_maybe_ignore_quant_config`).
    """
    vision = require(config, "vision_config")
    quantised = _quantization_method(config) != "compressed-tensors"
    size = _size(vision, "")
    tower = Tower(("vision_chunk",), num_heads=size.heads)
    times = buffer("patch_embed.pos_emb.time_weight", (count(vision, "pos_emb_time", 4), 1, size.hidden))
    projector = tuple(
        renamed(tensor, lambda name: name, with_prefixes({"linear_1": "proj.0", "linear_2": "proj.2"}))
        for tensor in _projector(size, text_hidden)
    )
    return TowerAnatomy(
        (
            *tower_tensors((*_tower(size), times), tower, engine="vision_tower.", quantised=quantised),
            *tower_tensors(projector, tower, engine="mm_projector.", quantised=quantised),
        ),
        (_encoder("vision_chunk", size, text_hidden),),
    )


def _quantization_method(config: Config) -> str | None:
    settings = mapping(config, "quantization_config") or mapping(
        mapping(config, "text_config"), "quantization_config"
    )
    return word(settings, "quant_method")


def _size(vision: Config, prefix: str) -> _Size:
    return _Size(
        hidden=count(vision, "hidden_size", 1152),
        inner=count(vision, "intermediate_size", 4304),
        layers=count(vision, "num_hidden_layers", 27),
        heads=count(vision, "num_attention_heads", 16),
        patch=count(vision, "patch_size", 14),
        grid=(count(vision, f"{prefix}pos_emb_height", 64), count(vision, f"{prefix}pos_emb_width", 64)),
        merge=_merge(vision),
    )


def _tower(size: _Size) -> Tensors:
    layer = encoder_layer("encoder.blocks.{}", _LAYER, LayerSize(size.hidden, size.inner))
    return (
        *affine("patch_embed.proj", (size.hidden, 3, size.patch, size.patch), bias=size.hidden),
        whole("patch_embed.pos_emb.weight", (*size.grid, size.hidden)),
        *numbered(layer, size.layers),
        *norm("encoder.final_layernorm", size.hidden),
    )


def _projector(size: _Size, text_hidden: int) -> Tensors:
    merged = size.hidden * size.merge
    return (
        *norm("pre_norm", size.hidden),
        *affine("linear_1", (merged, merged), bias=merged),
        *affine("linear_2", (text_hidden, merged), bias=text_hidden),
    )


def _encoder(modality: str, size: _Size, text_hidden: int) -> EncoderProfile:
    kind = "moonvit" if modality == "image" else "kimi_k25"
    patches = encoder_default(kind, "image_max_patches")
    steps = 1 if modality == "image" else encoder_default(kind, "frames_per_chunk")
    return EncoderProfile(
        modality, size.hidden, size.inner, size.layers, size.heads, patches // size.merge, patches * steps,
        text_hidden, whole_where_indivisible=modality != "image",
    )  # fmt: skip


def _merge(vision: Config) -> int:
    sizes = vision.get("merge_kernel_size", (2, 2))
    if not isinstance(sizes, (list, tuple)) or len(sizes) != 2 or not all(type(n) is int for n in sizes):
        raise BadField("config.json has merge_kernel_size that is not a pair of whole numbers.")
    return int(sizes[0]) * int(sizes[1])
