"""Models that join a plain vision transformer to a decoder by a projector: LLaVA, Mistral 3, Gemma 3, Idefics 3.

Sources: llava.py, llava_next.py, llava_onevision.py, mistral3.py, gemma3_mm.py and idefics3.py of vLLM 0.32.0.
Each reader takes the whole config.json and the size of the decoder, and gives tower and projector; how many
tokens an image has follows the engine's processing infos, with what the processor alone knows from
encoder_defaults.toml.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from stowage.model.blocks import Tensors, column_linear, replicated_linear, row_linear, whole
from stowage.model.config_fields import BadField, count, flag
from stowage.model.encoder_defaults import encoder_default
from stowage.model.families.text_inside import require
from stowage.model.families.tower_parts import TowerAnatomy, affine, norm, tower_tensors, undivided
from stowage.model.families.vision.vit import (
    VitSize,
    feature_layers,
    has_class_token,
    is_pixtral,
    vit_size,
    vit_tensors,
)
from stowage.model.tensors import Tower

Config = Mapping[str, Any]

IMAGE: Final = Tower(("image",))
_PROJECTOR: Final = Tower(("image",), always_divided=True)
_IMAGE_AND_VIDEO: Final = Tower(("image", "video"))


def read_llava_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower and projector of LLaVA 1.5 and of Pixtral in the same form."""
    vision = require(config, "vision_config")
    size = vit_size(vision)
    projector = tower_tensors(
        _two_layers(size.hidden, text_hidden, bias=flag(config, "multimodal_projector_bias", True)),
        _PROJECTOR,
        engine="multi_modal_projector.",
    )
    patches = size.grid**2 + (1 if has_class_token(vision) else 0)
    keeps_all = is_pixtral(vision) or config.get("vision_feature_select_strategy") == "full"
    tokens = patches if keeps_all else patches - 1
    tower = _tower(vision, size, feature_layers(config, size.layers, -2))
    return TowerAnatomy((*tower, *projector), (size.encoder(tokens, patches, text_hidden),))


def read_llava_next_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower, projector and line marker of LLaVA-NeXT, which cuts an image into tiles and adds it whole."""
    basic, vision = read_llava_tower(config, text_hidden), require(config, "vision_config")
    size = vit_size(vision)
    tiles = max(rows * columns for rows, columns in _pinpoints(config, size.image))
    per_tile = size.grid**2 + (1 if has_class_token(vision) else 0)
    tokens = max(
        rows * columns * size.grid**2 + rows * size.grid for rows, columns in _pinpoints(config, size.image)
    )
    tokens += basic.encoders[0].max_item_tokens
    newline = tower_tensors((_newline(text_hidden),), IMAGE, engine="")
    newline = tuple(replace(tensor, tower=None) for tensor in newline)
    encoder = size.encoder(tokens, (tiles + 1) * per_tile, text_hidden)
    return TowerAnatomy((*newline, *basic.tensors), (encoder,))


def read_llava_onevision_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower, projector and line marker of LLaVA-OneVision; the projector is whole on every rank."""
    vision = require(config, "vision_config")
    size = vit_size(vision)
    tower = _tower(vision, size, feature_layers(config, size.layers), _IMAGE_AND_VIDEO)
    plain = _two_layers(size.hidden, text_hidden, bias=flag(config, "multimodal_projector_bias", True))
    projector = tower_tensors(
        undivided(plain), _IMAGE_AND_VIDEO, engine="multi_modal_projector.", quantised=False
    )
    newline = tower_tensors((_newline(text_hidden),), IMAGE, engine="")
    newline = tuple(replace(tensor, tower=None) for tensor in newline)
    tiles = encoder_default("llava_onevision", "image_max_tiles")
    lines = math.isqrt(tiles) * size.grid
    image = size.encoder((tiles + 1) * size.grid**2 + lines, (tiles + 1) * size.grid**2, text_hidden)
    frames, frame = encoder_default("llava_onevision", "video_max_frames"), (-(-size.grid // 2)) ** 2
    video = replace(
        image,
        modality="video",
        max_item_tokens=frames * frame + 1,
        max_item_patches=frames * size.grid**2,
        frame_tokens=frame,
    )
    return TowerAnatomy((*newline, *tower, *projector), (image, video))


def read_mistral3_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower, patch merger and projector of Mistral Small 3.1 and later, and of Ministral 3."""
    vision = require(config, "vision_config")
    size, merge = vit_size(vision), count(config, "spatial_merge_size", 2)
    bias = flag(config, "multimodal_projector_bias")
    merger = (
        *norm("norm", size.hidden, bias=False),
        *affine("patch_merger.merging_layer", (size.hidden, size.hidden * merge**2), bias=None),
    )
    projector = (
        *tower_tensors(merger, IMAGE, engine="multi_modal_projector."),
        *tower_tensors(
            _two_layers(size.hidden, text_hidden, bias=bias), _PROJECTOR, engine="multi_modal_projector."
        ),
    )
    side = -(-size.image // (size.patch * merge))
    encoder = size.encoder(side**2, (side * merge) ** 2, text_hidden)
    tower = _tower(vision, size, feature_layers(config, size.layers))
    return TowerAnatomy((*tower, *projector), (encoder,))


def read_gemma3_tower(
    config: Config, text_hidden: int, *, engine: str = "", stored: str = ""
) -> TowerAnatomy:
    """Read SigLIP tower and projector of Gemma 3; `config` is the whole config.json."""
    vision = {"model_type": "siglip_vision_model", **require(config, "vision_config")}
    size = vit_size(vision)
    tower = vit_tensors(vision, size, size.layers, post_norm=True)
    projector = (
        whole("mm_input_projection_weight", (size.hidden, text_hidden)),
        *norm("mm_soft_emb_norm", size.hidden, bias=False),
    )
    root, kept = f"{engine}vision_tower.vision_model.", f"{stored}vision_tower.vision_model."
    tensors = (
        *tower_tensors(tower, IMAGE, engine=root, stored=kept),
        *tower_tensors(
            projector, IMAGE, engine=f"{engine}multi_modal_projector.", stored=f"{stored}multi_modal_projector."
        ),
    )  # fmt: skip
    tokens = count(config, "mm_tokens_per_image", 256)
    return TowerAnatomy(tensors, (size.encoder(tokens, size.grid**2, text_hidden),))


def read_paligemma_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read SigLIP tower and projector of PaliGemma; every patch becomes a token."""
    vision = {"model_type": "siglip_vision_model", **require(config, "vision_config")}
    size = vit_size(vision)
    tower = vit_tensors(vision, size, size.layers, post_norm=True)
    projector = affine(
        "linear", (count(vision, "projection_dim", text_hidden), size.hidden), bias=text_hidden
    )
    tensors = (
        *tower_tensors(tower, IMAGE, engine="vision_tower.vision_model."),
        *tower_tensors(projector, IMAGE, engine="multi_modal_projector."),
    )
    return TowerAnatomy(tensors, (size.encoder(size.grid**2, size.grid**2, text_hidden),))


def read_idefics3_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read tower and connector of Idefics 3 and SmolVLM, which cut an image into tiles and add it whole."""
    vision = {"model_type": "idefics3", **require(config, "vision_config")}
    size, scale = vit_size(vision), count(config, "scale_factor", 2)
    connector = replicated_linear("modality_projection.proj", text_hidden, size.hidden * scale**2)
    tensors = (
        *tower_tensors(
            vit_tensors(vision, size, size.layers, post_norm=True), IMAGE, engine="model.vision_model."
        ),
        *tower_tensors(connector, IMAGE, engine="model.connector."),
    )
    tiles = encoder_default("idefics3", "image_max_tiles") + 1
    encoder = size.encoder(tiles * size.grid**2 // scale**2, tiles * size.grid**2, text_hidden)
    return TowerAnatomy(tensors, (encoder,))


def _tower(vision: Config, size: VitSize, layers: int, tower: Tower = IMAGE) -> Tensors:
    root = "vision_tower." if is_pixtral(vision) else "vision_tower.vision_model."
    return tower_tensors(vit_tensors(vision, size, layers, post_norm=False), tower, engine=root)


def _two_layers(hidden: int, text_hidden: int, *, bias: bool) -> Tensors:
    return (
        *column_linear("linear_1", {"linear_1": text_hidden}, hidden, bias=bias),
        *row_linear("linear_2", text_hidden, text_hidden, bias=bias),
    )


def _newline(text_hidden: int) -> Any:
    return whole("image_newline", (text_hidden,))


def _pinpoints(config: Config, image: int) -> list[tuple[int, int]]:
    stated = config.get("image_grid_pinpoints") or [[2 * image, 2 * image]]
    try:
        return [(int(height) // image, int(width) // image) for height, width in stated]
    except (TypeError, ValueError):
        raise BadField("config.json has image_grid_pinpoints that is not a list of pairs of sizes.") from None
