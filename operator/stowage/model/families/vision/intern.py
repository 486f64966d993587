"""InternViT and the projectors of InternVL, in the form of its own repository and in that of transformers.

Sources: internvl.py, intern_vit.py, interns1.py and interns1_vit.py of vLLM 0.32.0. The two forms differ: the
first divides attention among ranks, the second keeps it whole and divides only the feed-forward block.
Attention also stays whole where tensor parallelism does not divide the heads (InternViT-6B has 25).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from stowage.model.blocks import Tensors, column_linear, row_linear, whole
from stowage.model.config_fields import BadField, count, flag, positive, word
from stowage.model.encoder_defaults import encoder_default
from stowage.model.families.text_inside import require
from stowage.model.families.tower_parts import TowerAnatomy, affine, norm, numbered, tower_tensors
from stowage.model.profile import EncoderProfile
from stowage.model.tensors import Tower

Config = Mapping[str, Any]

_TOWER: Final = Tower(("image", "video"))


@dataclass(frozen=True, slots=True)
class _Size:
    hidden: int
    inner: int
    layers: int
    heads: int
    grid: int
    patch: int
    norm_bias: bool


def read_internvl_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower and projector of InternVLChatModel (checkpoints with remote code)."""
    vision = require(config, "vision_config")
    size = _size(vision)
    selected = config.get("select_layer", -1)
    if type(selected) is not int or not -size.layers <= selected < size.layers:
        raise BadField(f"config.json says select_layer: {selected!r}; the tower has {size.layers} layers.")
    layers = size.layers + selected + 1 if selected < 0 else selected + 1
    tower = (
        whole("embeddings.class_embedding", (1, 1, size.hidden)),
        whole("embeddings.position_embedding", (1, size.grid**2 + 1, size.hidden)),
        *affine("embeddings.patch_embedding", (size.hidden, 3, size.patch, size.patch), bias=size.hidden),
        *numbered(_divided_layer(vision, size), layers),
    )
    attention = replace(_TOWER, num_heads=size.heads)
    shuffled = size.hidden * _shuffle(config) ** 2
    projector = (
        *norm("0", shuffled),
        *affine("1", (text_hidden, shuffled), bias=text_hidden),
        *affine("3", (text_hidden, text_hidden), bias=text_hidden),
    )
    tensors = tuple(
        replace(tensor, tower=attention) if ".attn." in tensor.name else tensor
        for tensor in tower_tensors(tower, _TOWER, engine="vision_model.")
    )
    tiles = count(config, "max_dynamic_patch", 12) + (1 if flag(config, "use_thumbnail", True) else 0)
    return TowerAnatomy(
        (*tensors, *tower_tensors(projector, _TOWER, engine="mlp1.", quantised=False)),
        _encoders(config, size, tiles, text_hidden),
    )


def read_interns1_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower and projector of InternVL in the form of transformers, and of Intern-S1."""
    vision = require(config, "vision_config")
    size = _size(vision)
    tower = (
        whole("embeddings.cls_token", (1, 1, size.hidden)),
        *affine(
            "embeddings.patch_embeddings.projection", (size.hidden, 3, size.patch, size.patch), bias=size.hidden
        ),
        *numbered(_whole_attention_layer(vision, size), size.layers),
    )  # fmt: skip
    if flag(vision, "use_absolute_position_embeddings", True):
        tower = (whole("embeddings.position_embeddings", (1, size.grid**2 + 1, size.hidden)), *tower)
    if flag(vision, "use_mask_token"):
        tower = (whole("embeddings.mask_token", (1, 1, size.hidden)), *tower)
    if not flag(vision, "use_mean_pooling", True):
        tower = (*tower, *norm("layernorm", size.hidden))
    shuffled = size.hidden * _shuffle(config) ** 2
    projector = (
        *norm("layer_norm", shuffled),
        *affine("linear_1", (text_hidden, shuffled), bias=text_hidden),
        *affine("linear_2", (text_hidden, text_hidden), bias=text_hidden),
    )
    tiles = encoder_default("internvl", "image_max_tiles") + 1
    return TowerAnatomy(
        (
            *tower_tensors(tower, _TOWER, engine="vision_tower."),
            *tower_tensors(projector, _TOWER, engine="multi_modal_projector.", quantised=False),
        ),
        _encoders(config, size, tiles, text_hidden),
    )


def _size(vision: Config) -> _Size:
    image, patch = _side(vision, "image_size", 448), _side(vision, "patch_size", 14)
    return _Size(
        hidden=count(vision, "hidden_size", 1024),
        inner=count(vision, "intermediate_size", 4096),
        layers=count(vision, "num_hidden_layers", 24),
        heads=count(vision, "num_attention_heads", 16),
        grid=image // patch,
        patch=patch,
        norm_bias=word(vision, "norm_type") != "rms_norm",
    )


def _side(vision: Config, name: str, default: int) -> int:
    stated = vision.get(name)
    return (
        count({name: stated[0]}, name)
        if isinstance(stated, list) and stated
        else count(vision, name, default)
    )


def _shuffle(config: Config) -> int:
    return int(1 / positive(config, "downsample_ratio", 0.5))


def _divided_layer(vision: Config, size: _Size) -> Tensors:
    prefix, hidden, inner = "encoder.layers.{}", size.hidden, size.inner
    qkv = f"{prefix}.attn.qkv"
    norms = _qk_norms(f"{prefix}.attn", hidden) if flag(vision, "qk_normalization") else ()
    return (
        *norm(f"{prefix}.norm1", hidden, bias=size.norm_bias),
        *norm(f"{prefix}.norm2", hidden, bias=size.norm_bias),
        *column_linear(qkv, {qkv: 3 * hidden}, hidden, bias=flag(vision, "qkv_bias")),
        *norms,
        *row_linear(f"{prefix}.attn.proj", hidden, hidden, bias=True),
        *_mlp(prefix, hidden, inner),
        whole(f"{prefix}.ls1", (hidden,)),
        whole(f"{prefix}.ls2", (hidden,)),
    )


def _whole_attention_layer(vision: Config, size: _Size) -> Tensors:
    prefix, hidden = "encoder.layer.{}", size.hidden
    bias = hidden if flag(vision, "attention_bias") else None
    norms = _qk_norms(f"{prefix}.attention", hidden) if flag(vision, "use_qk_norm") else ()
    projections = (affine(f"{prefix}.attention.{name}_proj", (hidden, hidden), bias=bias) for name in "qkv")
    return (
        whole(f"{prefix}.lambda_1", (hidden,)),
        whole(f"{prefix}.lambda_2", (hidden,)),
        *(tensor for pair in projections for tensor in pair),
        *norms,
        *affine(f"{prefix}.attention.projection_layer", (hidden, hidden), bias=hidden),
        *_mlp(prefix, hidden, size.inner),
        *norm(f"{prefix}.layernorm_before", hidden, bias=size.norm_bias),
        *norm(f"{prefix}.layernorm_after", hidden, bias=size.norm_bias),
    )


def _mlp(prefix: str, hidden: int, inner: int) -> Tensors:
    return (
        *column_linear(f"{prefix}.mlp.fc1", {f"{prefix}.mlp.fc1": inner}, hidden, bias=True),
        *row_linear(f"{prefix}.mlp.fc2", hidden, inner, bias=True),
    )


def _qk_norms(prefix: str, hidden: int) -> Tensors:
    return (whole(f"{prefix}.q_norm.weight", (hidden,)), whole(f"{prefix}.k_norm.weight", (hidden,)))


def _encoders(config: Config, size: _Size, tiles: int, text_hidden: int) -> tuple[EncoderProfile, ...]:
    per_tile, patches = size.grid**2 // _shuffle(config) ** 2, size.grid**2 + 1
    frames = encoder_default("internvl", "video_max_frames")

    def encoder(modality: str, number: int, frame: int = 0) -> EncoderProfile:
        return EncoderProfile(
            modality, size.hidden, size.inner, size.layers, size.heads, number * per_tile, number * patches,
            text_hidden, frame, whole_where_indivisible=True,
        )  # fmt: skip

    return (encoder("image", tiles), encoder("video", frames, per_tile))
