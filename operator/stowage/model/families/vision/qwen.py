"""The vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL (the last also in Qwen3.5 and Qwen3-Omni).

Sources: Qwen2VisionTransformer, Qwen2_5_VisionTransformer and Qwen3_VisionTransformer of vLLM 0.32.0, and the
class defaults of transformers. Images and videos share the tower. How large an item may get is decided by the
processor's settings, which are not in config.json: see encoder_defaults.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from stowage.model.blocks import Tensors, column_linear, row_linear, whole
from stowage.model.config_fields import BadField, count
from stowage.model.encoder_defaults import encoder_default
from stowage.model.families.tower_parts import (
    LayerNames,
    LayerSize,
    TowerAnatomy,
    affine,
    buffer,
    encoder_layer,
    norm,
    numbered,
    tower_tensors,
)
from stowage.model.profile import EncoderProfile
from stowage.model.tensors import Tower

Config = Mapping[str, Any]

_TOWER: Final = Tower(("image", "video"))
_ROPE_POSITIONS: Final = 8192
_TEMPORAL_PATCH: Final = 2

_QWEN2: Final = LayerNames(("norm1", "norm2"), "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_QWEN2_5: Final = LayerNames(
    ("norm1", "norm2"),
    "attn.qkv",
    "attn.proj",
    "mlp.gate_up_proj",
    "mlp.down_proj",
    up_parts=("mlp.gate_proj", "mlp.up_proj"),
)
_QWEN3: Final = LayerNames(("norm1", "norm2"), "attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2")


@dataclass(frozen=True, slots=True)
class _MergerNames:
    deep: str
    norm: str
    layers: tuple[str, str]


_QWEN3_MERGERS: Final = _MergerNames("deepstack_merger_list", "norm", ("linear_fc1", "linear_fc2"))
_QWEN3_OMNI_MERGERS: Final = _MergerNames("merger_list", "ln_q", ("mlp.0", "mlp.2"))


def read_qwen2_tower(vision: Config, *, engine: str = "visual.", stored: str = "visual.") -> TowerAnatomy:
    """Read the tower of Qwen2-VL from `vision_config`; `hidden_size` there is what it gives out."""
    hidden, depth = count(vision, "embed_dim", 1280), count(vision, "depth", 32)
    heads, out_size = count(vision, "num_heads", 16), count(vision, "hidden_size", 3584)
    inner = hidden * count(vision, "mlp_ratio", 4)
    merged = hidden * count(vision, "spatial_merge_size", 2) ** 2
    tensors = (
        _patches(vision, hidden, patch_size=14, bias=False),
        numbered(encoder_layer("blocks.{}", _QWEN2, LayerSize(hidden, inner)), depth),
        norm("merger.ln_q", hidden),
        _merger("merger", ("mlp.0", "mlp.2"), merged, out_size),
        (_angles(hidden, heads),),
    )
    encoders = _encoders(vision, "qwen2_vl", (hidden, inner, depth, heads), out_size)
    return _anatomy(tensors, encoders, engine, stored)


def read_qwen2_5_tower(vision: Config, *, engine: str = "visual.", stored: str = "visual.") -> TowerAnatomy:
    """Read the tower of Qwen2.5-VL and of Qwen2.5-Omni from `vision_config`."""
    hidden, depth = count(vision, "hidden_size", 3584), count(vision, "depth", 32)
    heads, inner = count(vision, "num_heads", 16), count(vision, "intermediate_size", 3420)
    out_size = count(vision, "out_hidden_size", 3584)
    merged = hidden * count(vision, "spatial_merge_size", 2) ** 2
    size = LayerSize(hidden, inner, gated=True, norm_bias=False)
    tensors = (
        _patches(vision, hidden, patch_size=14, bias=False),
        numbered(encoder_layer("blocks.{}", _QWEN2_5, size), depth),
        norm("merger.ln_q", hidden, bias=False),
        _merger("merger", ("mlp.0", "mlp.2"), merged, out_size),
        (_angles(hidden, heads),),
    )
    encoders = _encoders(vision, "qwen2_vl", (hidden, inner, depth, heads), out_size, gated=True)
    return _anatomy(tensors, encoders, engine, stored)


def read_qwen3_tower(
    vision: Config, *, engine: str = "visual.", stored: str = "model.visual."
) -> TowerAnatomy:
    """Read the tower of Qwen3-VL and Qwen3.5 from `vision_config`.

    The mergers of `deepstack_visual_indexes` feed the first decoder layers, so every token's embedding holds
    theirs as well; Qwen3.5 has none.
    """
    positions = count(vision, "num_position_embeddings", 2304)
    return _qwen3_tower(vision, positions, _QWEN3_MERGERS, (engine, stored))


def read_qwen3_omni_tower(
    vision: Config, *, engine: str = "visual.", stored: str = "thinker.visual."
) -> TowerAnatomy:
    """Read the tower of Qwen3-Omni's thinker, which is that of Qwen3-VL under other names."""
    positions = (count(vision, "image_size", 768) // count(vision, "patch_size", 16)) ** 2
    return _qwen3_tower(vision, positions, _QWEN3_OMNI_MERGERS, (engine, stored))


def _qwen3_tower(
    vision: Config, positions: int, names: _MergerNames, prefixes: tuple[str, str]
) -> TowerAnatomy:
    hidden, depth = count(vision, "hidden_size", 1152), count(vision, "depth", 27)
    heads, inner = count(vision, "num_heads", 16), count(vision, "intermediate_size", 4304)
    out_size, deep = count(vision, "out_hidden_size", 3584), deepstack_layers(vision)
    merged = hidden * count(vision, "spatial_merge_size", 2) ** 2
    deep_merger = (
        *norm(f"{names.deep}.{{}}.{names.norm}", merged),
        *_merger(f"{names.deep}.{{}}", names.layers, merged, out_size),
    )
    tensors = (
        _patches(vision, hidden, patch_size=16, bias=True),
        (whole("pos_embed.weight", (positions, hidden)),),
        norm(f"merger.{names.norm}", hidden),
        _merger("merger", names.layers, merged, out_size),
        numbered(deep_merger, deep),
        numbered(encoder_layer("blocks.{}", _QWEN3, LayerSize(hidden, inner)), depth),
        (_angles(hidden, heads),),
    )
    encoders = _encoders(vision, "qwen3_vl", (hidden, inner, depth, heads), out_size * (1 + deep))
    return _anatomy(tensors, encoders, *prefixes)


def deepstack_layers(vision: Config) -> int:
    """Give the number of tower layers whose features are added to the first decoder layers (Qwen3-VL: 3)."""
    indexes = vision.get("deepstack_visual_indexes", (8, 16, 24))
    if not isinstance(indexes, (list, tuple)):
        raise BadField("config.json has deepstack_visual_indexes that is not a list.")
    return len(indexes)


def _anatomy(
    tensors: tuple[Tensors, ...], encoders: tuple[EncoderProfile, ...], engine: str, stored: str
) -> TowerAnatomy:
    flat = tuple(tensor for part in tensors for tensor in part)
    return TowerAnatomy(tower_tensors(flat, _TOWER, engine=engine, stored=stored), encoders)


def _patches(vision: Config, hidden: int, *, patch_size: int, bias: bool) -> Tensors:
    patch = count(vision, "patch_size", patch_size)
    time = count(vision, "temporal_patch_size", _TEMPORAL_PATCH)
    channels = count(vision, "in_channels", 3)
    return affine("patch_embed.proj", (hidden, channels, time, patch, patch), bias=hidden if bias else None)


def _merger(prefix: str, names: tuple[str, str], merged: int, out_size: int) -> Tensors:
    first, second = (f"{prefix}.{name}" for name in names)
    return (
        *column_linear(first, {first: merged}, merged, bias=True),
        *row_linear(second, out_size, merged, bias=True),
    )


def _angles(hidden: int, heads: int) -> Any:
    if hidden % heads:
        raise BadField(f"config.json gives the vision tower {hidden} elements and {heads} heads.")
    return buffer("rotary_pos_emb.cos_sin_cache", (_ROPE_POSITIONS, hidden // heads // 2))


def _encoders(
    vision: Config, kind: str, size: tuple[int, int, int, int], output_size: int, gated: bool = False
) -> tuple[EncoderProfile, ...]:
    hidden, inner, depth, heads = size
    merge = count(vision, "spatial_merge_size", 2)
    unit = count(vision, "patch_size", 14 if kind == "qwen2_vl" else 16) * merge

    def encoder(modality: str, tokens: int, frame_tokens: int = 0) -> EncoderProfile:
        return EncoderProfile(
            modality,
            hidden_size=hidden,
            intermediate_size=inner,
            num_layers=depth,
            num_heads=heads,
            max_item_tokens=tokens,
            max_item_patches=tokens * merge**2,
            output_size=output_size,
            frame_tokens=frame_tokens,
            gated=gated,
        )

    image = encoder_default(kind, "image_max_pixels") // unit**2
    frame = encoder_default(kind, "video_frame_max_pixels") // unit**2
    steps = encoder_default(kind, "video_max_frames") // _TEMPORAL_PATCH
    return (encoder("image", image), encoder("video", frame * steps, frame))
