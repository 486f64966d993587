"""The vision tower of Llama 4: pixel shuffle, rotary angles as complex numbers, no quantisation.

Source: mllama4.py of vLLM 0.32.0, which builds tower and projector without the checkpoint's quantisation, and
the class defaults of transformers. The decoder is read by the reader of its own architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.blocks import column_linear, row_linear, whole
from stowage.model.config_fields import count, positive
from stowage.model.encoder_defaults import encoder_default
from stowage.model.families.tower_parts import (
    LayerNames,
    LayerSize,
    TowerAnatomy,
    buffer,
    encoder_layer,
    norm,
    numbered,
    tower_tensors,
)
from stowage.model.profile import EncoderProfile
from stowage.model.tensors import Tower

_TOWER: Final = Tower(("image",))
_COMPLEX_BYTES: Final = 8
_LAYER: Final = LayerNames(
    ("input_layernorm", "post_attention_layernorm"), "self_attn.qkv_proj", "self_attn.o_proj", "mlp.fc1",
    "mlp.fc2", qkv_parts=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
)  # fmt: skip


def read_llama4_tower(config: Mapping[str, Any], text_hidden: int) -> TowerAnatomy:
    """Read tower, adapter and projector from the whole config.json; without vision_config class defaults hold."""
    vision = config.get("vision_config") or {}
    hidden, inner = count(vision, "hidden_size", 768), count(vision, "intermediate_size", 5632)
    layers, heads = count(vision, "num_hidden_layers", 34), count(vision, "num_attention_heads", 16)
    image, patch = count(vision, "image_size", 448), count(vision, "patch_size", 14)
    ratio = positive(vision, "pixel_shuffle_ratio", 0.5)
    shuffled = int(hidden // ratio**2)
    patches = (image // patch) ** 2
    middle, adapted = count(vision, "projector_input_dim", 4096), count(vision, "projector_output_dim", 4096)
    tower = (
        whole("class_embedding", (hidden,)),
        whole("positional_embedding_vlm", (patches + 1, hidden)),
        *column_linear(
            "patch_embedding.linear", {"patch_embedding.linear": hidden}, count(vision, "num_channels", 3) * patch**2
        ),
        *norm("layernorm_pre", hidden),
        *norm("layernorm_post", hidden),
        *numbered(encoder_layer("model.layers.{}", _LAYER, LayerSize(hidden, inner)), layers),
        *column_linear("vision_adapter.mlp.fc1", {"vision_adapter.mlp.fc1": middle}, shuffled),
        *row_linear("vision_adapter.mlp.fc2", adapted, middle),
        buffer(
            "model.rotary_emb.cos_sin_cache", (patches + 1, 1, hidden // heads // 2), _COMPLEX_BYTES
        ),
    )  # fmt: skip
    out_size = count(vision, "vision_output_dim", 7680)
    projector = column_linear("linear_1", {"linear_1": text_hidden}, out_size)
    tiles = encoder_default("llama4", "image_max_tiles") + 1
    tokens = tiles * int(patches * ratio**2)
    encoder = EncoderProfile(
        "image", hidden, inner, layers, heads, tokens, tiles * (patches + 1), text_hidden
    )
    return TowerAnatomy(
        (
            *tower_tensors(tower, _TOWER, engine="vision_model.", quantised=False),
            *tower_tensors(
                projector,
                Tower(("image",), always_divided=True),
                engine="multi_modal_projector.",
                quantised=False,
            ),
        ),
        (encoder,),
    )
