"""The vision tower of GLM-4.1V and GLM-4.5V.

Source: glm4_1v.py of vLLM 0.32.0 and the class defaults of transformers. The feed-forward blocks of its layers
are as wide as the decoder's hidden size; `intermediate_size` belongs to the merger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.blocks import column_linear, row_linear, whole
from stowage.model.config_fields import count
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

_TOWER: Final = Tower(("image", "video"))
_ROPE_POSITIONS: Final = 8192
_LAYER: Final = LayerNames(
    ("norm1", "norm2"), "attn.qkv", "attn.proj", "mlp.gate_up_proj", "mlp.down_proj",
    up_parts=("mlp.gate_proj", "mlp.up_proj"),
)  # fmt: skip


def read_glm4v_tower(vision: Mapping[str, Any]) -> TowerAnatomy:
    """Read the tower from `vision_config`."""
    hidden, depth = count(vision, "hidden_size", 1536), count(vision, "depth", 24)
    heads, inner = count(vision, "num_heads", 12), count(vision, "intermediate_size", 13696)
    out_size, patch = count(vision, "out_hidden_size", 4096), count(vision, "patch_size", 14)
    merge, time = count(vision, "spatial_merge_size", 2), count(vision, "temporal_patch_size", 2)
    positions = (count(vision, "image_size", 336) // patch) ** 2
    size = LayerSize(
        hidden, out_size, gated=True, norm_bias=False, qkv_bias=False, out_bias=False, mlp_bias=False
    )
    merger = {"merger.gate_proj": inner, "merger.up_proj": inner}
    tensors = (
        *affine("patch_embed.proj", (hidden, count(vision, "in_channels", 3), time, patch, patch), bias=hidden),
        *numbered(encoder_layer("blocks.{}", _LAYER, size), depth),
        *column_linear("merger.proj", {"merger.proj": out_size}, out_size),
        *norm("merger.post_projection_norm", out_size),
        *column_linear("merger.gate_up_proj", merger, out_size),
        *row_linear("merger.down_proj", out_size, inner),
        whole("embeddings.position_embedding.weight", (positions, hidden)),
        buffer("embeddings.position_ids", (1, positions), 8),
        *norm("post_conv_layernorm", hidden, bias=False),
        *affine("downsample", (out_size, hidden, merge, merge), bias=out_size),
        *norm("post_layernorm", hidden, bias=False),
        buffer("rotary_pos_emb.cos_sin_cache", (_ROPE_POSITIONS, hidden // heads // 2)),
    )  # fmt: skip
    unit = (patch * merge) ** 2
    encoders = tuple(
        EncoderProfile(
            modality, hidden, out_size, depth, heads, tokens, tokens * merge**2, out_size, gated=True
        )
        for modality, tokens in (
            ("image", encoder_default("glm4v", "image_max_pixels") // unit),
            ("video", encoder_default("glm4v", "video_max_pixels") // unit),
        )
    )
    return TowerAnatomy(tower_tensors(tensors, _TOWER, engine="visual.", stored="model.visual."), encoders)
