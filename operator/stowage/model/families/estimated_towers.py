"""Vision and audio towers of models that nobody described: sized by width, depth and feed-forward size alone.

Attention takes four, a feed-forward block two or three matrices a layer; patches and a projector of two layers come
on top. One tensor stands for all of it, whole on every rank, since it is not known which towers ranks divide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.profile import EncoderProfile
from stowage.model.tensors import ParameterTensor, Place, Shard, Tower

Config = Mapping[str, Any]

_WIDTH: Final = ("hidden_size", "embed_dim", "d_model", "width", "dim", "hidden_dim")
_DEPTH: Final = ("num_hidden_layers", "depth", "num_layers", "encoder_layers", "layers", "n_layer")
_INNER: Final = ("intermediate_size", "mlp_dim", "encoder_ffn_dim", "ffn_dim", "mlp_hidden_size")
_HEADS: Final = ("num_attention_heads", "num_heads", "encoder_attention_heads", "n_head", "heads")
_DEFAULT_IMAGE: Final = 1024
_DEFAULT_PATCH: Final = 14
_AUDIO_POSITIONS: Final = 1500
_MERGED: Final = 4
"""Positions that become one token: most towers merge squares of two by two."""


def estimated_towers(
    config: Config, text_hidden_size: int, text_names: tuple[str, ...]
) -> tuple[tuple[ParameterTensor, ...], tuple[EncoderProfile, ...]]:
    """Give one tensor and one encoder for every nested configuration that describes a tower."""
    tensors, encoders = [], []
    for name, inner in config.items():
        if name in text_names or not isinstance(inner, Mapping) or not name.endswith("_config"):
            continue
        sizes = _sizes(inner)
        if sizes is None:
            continue
        modality = "audio" if any(word in name for word in ("audio", "speech", "sound")) else "image"
        encoder = _encoder(modality, inner, sizes, text_hidden_size)
        encoders.append(encoder)
        shape = (_elements(encoder, text_hidden_size), 1)
        tensors.append(
            ParameterTensor(
                f"{name}.estimated", shape, Shard.REPLICATED, Place.EVERY, tower=Tower((modality,))
            )
        )
    return tuple(tensors), tuple(encoders)


def _sizes(inner: Config) -> tuple[int, int] | None:
    width, depth = _number(inner, _WIDTH), _number(inner, _DEPTH)
    return (width, depth) if width and depth else None


def _encoder(modality: str, inner: Config, sizes: tuple[int, int], output_size: int) -> EncoderProfile:
    width, depth = sizes
    positions = _AUDIO_POSITIONS
    if modality == "image":
        side = (_number(inner, ("image_size",)) or _DEFAULT_IMAGE) // (
            _number(inner, ("patch_size",)) or _DEFAULT_PATCH
        )
        positions = max(1, side) ** 2
    return EncoderProfile(
        modality,
        width,
        _number(inner, _INNER) or 4 * width,
        depth,
        _number(inner, _HEADS) or max(1, width // 64),
        max_item_tokens=max(1, positions // _MERGED),
        max_item_patches=positions,
        output_size=output_size,
        divided=False,
        gated=inner.get("hidden_act") == "silu",
    )


def _elements(encoder: EncoderProfile, text_hidden_size: int) -> int:
    width, inner = encoder.hidden_size, encoder.intermediate_size
    layer = 4 * width * width + (3 if encoder.gated else 2) * width * inner
    patches = 3 * _DEFAULT_PATCH**2 * width if encoder.modality == "image" else 0
    projector = width * _MERGED * text_hidden_size + text_hidden_size**2
    return encoder.num_layers * layer + patches + projector


def _number(inner: Config, names: tuple[str, ...]) -> int | None:
    values = (inner.get(name) for name in names)
    return next((value for value in values if type(value) is int and value > 0), None)
