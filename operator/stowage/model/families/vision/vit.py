"""Plain vision transformers: SigLIP, CLIP, Idefics and Pixtral, as LLaVA-like models use them.

Sources: siglip.py, clip.py, idefics2_vision_model.py and pixtral.py of vLLM 0.32.0, class defaults of
transformers. A model that takes the features of an earlier layer loads only the layers up to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from stowage.model.blocks import Tensors, whole
from stowage.model.config_fields import BadField, UnsupportedFeature, count, word
from stowage.model.families.tower_parts import (
    LayerNames,
    LayerSize,
    affine,
    buffer,
    encoder_layer,
    norm,
    numbered,
)
from stowage.model.profile import EncoderProfile

Config = Mapping[str, Any]

_SPLIT_QKV: Final = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_CLIP: Final = LayerNames(
    ("layer_norm1", "layer_norm2"), "self_attn.qkv_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2",
    qkv_parts=_SPLIT_QKV,
)  # fmt: skip
_PIXTRAL: Final = LayerNames(
    ("attention_norm", "ffn_norm"), "attention.qkv_proj", "attention.o_proj",
    "feed_forward.gate_up_proj", "feed_forward.down_proj",
    qkv_parts=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    up_parts=("feed_forward.gate_proj", "feed_forward.up_proj"),
)  # fmt: skip
_SIGLIP_DEFAULTS: Final = (768, 3072, 12, 12, 224, 16)
_CLIP_DEFAULTS: Final = (768, 3072, 12, 12, 224, 32)
_IDEFICS_DEFAULTS: Final = (1152, 3072, 12, 16, 224, 32)
_PIXTRAL_DEFAULTS: Final = (1024, 4096, 24, 16, 1024, 16)


class VitSize:
    """The sizes of a plain vision transformer; absent fields take the class default of its kind."""

    def __init__(self, vision: Config, defaults: tuple[int, int, int, int, int, int]) -> None:
        """Read the sizes; raises BadField for values that cannot be used."""
        self.hidden = count(vision, "hidden_size", defaults[0])
        self.inner = count(vision, "intermediate_size", defaults[1])
        self.layers = count(vision, "num_hidden_layers", defaults[2])
        self.heads = count(vision, "num_attention_heads", defaults[3])
        self.image = count(vision, "image_size", defaults[4])
        self.patch = count(vision, "patch_size", defaults[5])
        self.channels = count(vision, "num_channels", 3)
        self.gated = defaults is _PIXTRAL_DEFAULTS

    @property
    def grid(self) -> int:
        """Patches along one side of an image of the native size."""
        return self.image // self.patch

    def encoder(self, tokens: int, patches: int, output_size: int) -> EncoderProfile:
        """Give the tower's size for working memory, for images of at most so many tokens and patches."""
        return EncoderProfile(
            "image", self.hidden, self.inner, self.layers, self.heads, tokens, patches, output_size,
            gated=self.gated,
        )  # fmt: skip


def feature_layers(config: Config, layers: int, default: int | None = -1) -> int:
    """Give how many layers a LLaVA-like model loads: up to the deepest of `vision_feature_layer`."""
    stated = config.get("vision_feature_layer", default)
    wanted = stated if isinstance(stated, (list, tuple)) else (stated,)
    if not wanted or not all(type(layer) is int and -layers <= layer <= layers for layer in wanted):
        raise BadField(f"config.json says vision_feature_layer: {stated!r}; the tower has {layers} layers.")
    return max(int(layers + layer + 1 if layer < 0 else layer) for layer in wanted)


def vit_size(vision: Config) -> VitSize:
    """Read the sizes of the tower that `model_type` in `vision_config` names."""
    return VitSize(vision, _KINDS[_kind(vision)])


def vit_tensors(vision: Config, size: VitSize, layers: int, *, post_norm: bool) -> Tensors:
    """Give the tensors of the first `layers` layers and what stands before and after them."""
    kind = _kind(vision)
    if kind == "pixtral":
        return _pixtral(size, layers)
    tensors = (*_embeddings(size, kind), *_layers(size, layers))
    return (*tensors, *norm("post_layernorm", size.hidden)) if post_norm else tensors


def is_pixtral(vision: Config) -> bool:
    """Tell whether the tower is Pixtral's, whose images keep their shape."""
    return _kind(vision) == "pixtral"


def has_class_token(vision: Config) -> bool:
    """Tell whether the tower adds a token for the whole image (CLIP)."""
    return _kind(vision) == "clip_vision_model"


_KINDS: Final = {
    "siglip_vision_model": _SIGLIP_DEFAULTS,
    "clip_vision_model": _CLIP_DEFAULTS,
    "idefics3": _IDEFICS_DEFAULTS,
    "idefics3_vision": _IDEFICS_DEFAULTS,
    "smolvlm_vision": _IDEFICS_DEFAULTS,
    "pixtral": _PIXTRAL_DEFAULTS,
}


def _kind(vision: Config) -> str:
    kind = word(vision, "model_type") or "clip_vision_model"
    if kind not in _KINDS:
        raise UnsupportedFeature(f"config.json has a vision tower of type {kind!r}, which is not supported.")
    return kind


def _embeddings(size: VitSize, kind: str) -> Tensors:
    hidden, clip = size.hidden, kind == "clip_vision_model"
    positions = size.grid**2 + (1 if clip else 0)
    shape = (hidden, size.channels, size.patch, size.patch)
    tensors = (
        *affine("embeddings.patch_embedding", shape, bias=None if clip else hidden),
        whole("embeddings.position_embedding.weight", (positions, hidden)),
    )
    if kind not in ("clip_vision_model", "siglip_vision_model"):
        return tensors
    tensors = (*tensors, buffer("embeddings.position_ids", (1, positions), 8))
    if not clip:
        return tensors
    return (whole("embeddings.class_embedding", (hidden,)), *tensors, *norm("pre_layrnorm", hidden))


def _layers(size: VitSize, layers: int) -> Tensors:
    layer = encoder_layer("encoder.layers.{}", _CLIP, LayerSize(size.hidden, size.inner))
    if size.hidden % 64 or size.inner % 64:
        layer = tuple(replace(t, linear=None) if ".mlp." in t.name else t for t in layer)
    return numbered(layer, layers)


def _pixtral(size: VitSize, layers: int) -> Tensors:
    parts = LayerSize(
        size.hidden, size.inner, gated=True, norm_bias=False, qkv_bias=False, out_bias=False, mlp_bias=False
    )
    half_head = size.hidden // size.heads // 2
    return (
        *affine("patch_conv", (size.hidden, size.channels, size.patch, size.patch), bias=None),
        *norm("ln_pre", size.hidden, bias=False),
        *numbered(encoder_layer("transformer.layers.{}", _PIXTRAL, parts), layers),
        buffer("patch_positional_embedding.inv_freq", (half_head,), 4),
        buffer("patch_positional_embedding.original_inv_freq", (half_head,), 4),
    )
