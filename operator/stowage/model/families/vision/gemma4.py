"""The towers of Gemma 4: a vision and an audio encoder, or embedders without an encoder (unified variants).

Sources: gemma4_mm.py and gemma4_unified.py of vLLM 0.32.0, which take the towers from transformers 5 (whole on
every rank; their linear layers are replaced by quantised ones where the method allows), and the class defaults
there. A projection into the decoder's space belongs to each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from stowage.model.blocks import Tensors, column_linear, replicated_linear, whole
from stowage.model.config_fields import BadField, count, flag
from stowage.model.encoder_defaults import encoder_default
from stowage.model.families.text_inside import require
from stowage.model.families.tower_parts import TowerAnatomy, affine, buffer, norm, numbered, tower_tensors
from stowage.model.profile import EncoderProfile
from stowage.model.tensors import ParameterTensor, StoredTensor, Tower

Config = Mapping[str, Any]

_VISION: Final = Tower(("image", "video"))
_AUDIO: Final = Tower(("audio",))
_CHANNELS: Final = 3
_CLIPPING: Final = ("input_min", "input_max", "output_min", "output_max")
_NORMS: Final = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def read_gemma4_vision_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read the vision tower and its projection from the whole config.json."""
    vision = require(config, "vision_config")
    hidden, inner = count(vision, "hidden_size", 768), count(vision, "intermediate_size", 3072)
    heads, layers = count(vision, "num_attention_heads", 12), count(vision, "num_hidden_layers", 16)
    head_dim, patch = count(vision, "head_dim", 64), count(vision, "patch_size", 16)
    table = count(vision, "position_embedding_size", 10240)
    tower = (
        whole("patch_embedder.position_embedding_table", (2, table, hidden)),
        *replicated_linear("patch_embedder.input_proj", hidden, _CHANNELS * patch**2),
        *numbered(_vision_layer(vision, hidden, inner, head_dim), layers),
        buffer("encoder.rotary_emb.inv_freq", (head_dim // 4,), 4),
        buffer("encoder.rotary_emb.original_inv_freq", (head_dim // 4,), 4),
    )
    if flag(vision, "standardize"):
        tower = (*tower, whole("std_bias", (hidden,)), whole("std_scale", (hidden,)))
    tokens, pooled = count(vision, "default_output_length", 280), count(vision, "pooling_kernel_size", 3) ** 2
    frames = encoder_default("gemma4", "video_max_frames")
    image = EncoderProfile(
        "image", hidden, inner, layers, heads, tokens, tokens * pooled, text_hidden, divided=False, gated=True
    )
    video = replace(
        image,
        modality="video",
        max_item_tokens=frames * encoder_default("gemma4", "video_frame_tokens"),
        max_item_patches=frames * encoder_default("gemma4", "video_frame_soft_tokens") * pooled,
    )
    return TowerAnatomy(
        (
            *_placed(tower, _VISION, "vision_tower."),
            *_projection("embed_vision", hidden, text_hidden, _VISION),
        ),
        (image, video),
    )


def read_gemma4_audio_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read the audio tower and its projection; without an audio_config there is none."""
    if config.get("audio_config") is None:
        return TowerAnatomy((), ())
    audio = require(config, "audio_config")
    hidden, layers = count(audio, "hidden_size", 1024), count(audio, "num_hidden_layers", 12)
    heads, out_size = count(audio, "num_attention_heads", 8), count(audio, "output_proj_dims", 1536)
    first, second = _channels(audio)
    head = "subsample_conv_projection"
    tower = (
        whole(f"{head}.layer0.conv.weight", (first, 1, 3, 3)),
        whole(f"{head}.layer0.norm.weight", (first,)),
        whole(f"{head}.layer1.conv.weight", (second, first, 3, 3)),
        whole(f"{head}.layer1.norm.weight", (second,)),
        *replicated_linear(f"{head}.input_proj_linear", hidden, first // 4 * second),
        *numbered(_audio_layer(audio, hidden, heads), layers),
        *replicated_linear("output_proj", out_size, hidden, bias=True),
        buffer("rel_pos_enc.inv_timescales", (1, 1, hidden // 2)),
    )
    tokens = encoder_default("gemma4", "audio_max_tokens")
    encoder = EncoderProfile(
        "audio", hidden, 4 * hidden, layers, heads, tokens, tokens, text_hidden, divided=False
    )
    return TowerAnatomy(
        (*_placed(tower, _AUDIO, "audio_tower."), *_projection("embed_audio", out_size, text_hidden, _AUDIO)),
        (encoder,),
    )


def read_gemma4_embedders(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read the embedders of unified variants: patches and sound go to the decoder without an encoder.

    They are loaded whatever the limits per prompt are.
    """
    vision = require(config, "vision_config")
    width = count(vision, "mm_embed_dim", 3840)
    pixels = count(vision, "model_patch_size", 48) ** 2 * _CHANNELS
    embedder = (
        whole("pos_embedding", (count(vision, "mm_posemb_size", 1120), 2, width)),
        *norm("patch_ln1", pixels),
        *column_linear("patch_dense", {"patch_dense": width}, pixels, bias=True),
        *norm("patch_ln2", width),
        *norm("pos_norm", width),
    )
    projected = count(vision, "output_proj_dims", 3840)
    tensors = (
        *tower_tensors(
            embedder,
            Tower(("image", "video"), always_divided=True),
            engine="vision_embedder.",
            stored="model.vision_embedder.",
        ),
        *_projection("embed_vision", projected, text_hidden, _VISION, quantised=False),
    )
    tokens = count(vision, "num_soft_tokens", 280)
    encoders: tuple[EncoderProfile, ...] = (
        EncoderProfile("image", width, pixels, 1, 1, tokens, tokens, text_hidden, divided=False),
    )
    if config.get("audio_config") is not None:
        audio = require(config, "audio_config")
        size = count(audio, "output_proj_dims", 640)
        tensors = (*tensors, *_projection("embed_audio", size, text_hidden, _AUDIO, quantised=False))
        clip = encoder_default("gemma4", "audio_max_tokens")
        encoders = (
            *encoders,
            EncoderProfile("audio", size, size, 1, 1, clip, clip, text_hidden, divided=False),
        )
    return TowerAnatomy(tuple(replace(tensor, tower=None) for tensor in tensors), encoders)


def _placed(tensors: Tensors, tower: Tower, engine: str) -> Tensors:
    return tower_tensors(tensors, tower, engine=engine, stored=f"model.{engine}")


def _projection(
    name: str, in_size: int, text_hidden: int, tower: Tower, *, quantised: bool = True
) -> Tensors:
    linear = replicated_linear("embedding_projection", text_hidden, in_size)
    return tower_tensors(linear, tower, engine=f"{name}.", stored=f"model.{name}.", quantised=quantised)


def _vision_layer(vision: Config, hidden: int, inner: int, head_dim: int) -> Tensors:
    prefix = "encoder.layers.{}"
    queries = count(vision, "num_attention_heads", 12) * head_dim
    keys = count(vision, "num_key_value_heads", 12) * head_dim
    clipped = flag(vision, "use_clipped_linears")
    linears = (
        _linear(f"{prefix}.self_attn.q_proj", queries, hidden, clipped),
        _linear(f"{prefix}.self_attn.k_proj", keys, hidden, clipped),
        _linear(f"{prefix}.self_attn.v_proj", keys, hidden, clipped),
        _linear(f"{prefix}.self_attn.o_proj", hidden, queries, clipped),
        _linear(f"{prefix}.mlp.gate_proj", inner, hidden, clipped),
        _linear(f"{prefix}.mlp.up_proj", inner, hidden, clipped),
        _linear(f"{prefix}.mlp.down_proj", hidden, inner, clipped),
    )
    return (
        *(tensor for group in linears for tensor in group),
        whole(f"{prefix}.self_attn.q_norm.weight", (head_dim,)),
        whole(f"{prefix}.self_attn.k_norm.weight", (head_dim,)),
        *(whole(f"{prefix}.{name}.weight", (hidden,)) for name in _NORMS),
    )


def _audio_layer(audio: Config, hidden: int, heads: int) -> Tensors:
    prefix, clipped = "layers.{}", flag(audio, "use_clipped_linears", True)
    tensors: list[ParameterTensor] = []
    for name in ("feed_forward1", "feed_forward2"):
        block = f"{prefix}.{name}"
        tensors += _linear(f"{block}.ffw_layer_1", 4 * hidden, hidden, clipped)
        tensors += _linear(f"{block}.ffw_layer_2", hidden, 4 * hidden, clipped)
        tensors += norm(f"{block}.pre_layer_norm", hidden, bias=False)
        tensors += norm(f"{block}.post_layer_norm", hidden, bias=False)
    for name in ("q_proj", "k_proj", "v_proj", "post"):
        tensors += _linear(f"{prefix}.self_attn.{name}", hidden, hidden, clipped)
    tensors += replicated_linear(f"{prefix}.self_attn.relative_k_proj", hidden, hidden)
    tensors += (
        whole(f"{prefix}.self_attn.per_dim_scale", (hidden // heads,)),
        buffer(f"{prefix}.self_attn.softcap", ()),
    )
    tensors += _linear(f"{prefix}.lconv1d.linear_start", 2 * hidden, hidden, clipped)
    tensors += _linear(f"{prefix}.lconv1d.linear_end", hidden, hidden, clipped)
    kernel = count(audio, "conv_kernel_size", 5)
    tensors += affine(f"{prefix}.lconv1d.depthwise_conv1d", (hidden, 1, kernel), bias=None)
    for name in (
        "lconv1d.pre_layer_norm",
        "lconv1d.conv_norm",
        "norm_pre_attn",
        "norm_post_attn",
        "norm_out",
    ):
        tensors += norm(f"{prefix}.{name}", hidden, bias=False)
    return tuple(tensors)


def _linear(name: str, out_size: int, in_size: int, clipped: bool) -> Tensors:
    weight = replicated_linear(f"{name}.linear", out_size, in_size)
    if not clipped:
        return weight
    limits = (
        replace(buffer(f"{name}.{limit}", ()), stored=(StoredTensor(f"{name}.{limit}", ()),))
        for limit in _CLIPPING
    )
    return (*weight, *limits)


def _channels(audio: Config) -> tuple[int, int]:
    stated = audio.get("subsampling_conv_channels", (128, 32))
    if not isinstance(stated, (list, tuple)) or len(stated) != 2 or not all(type(n) is int for n in stated):
        raise BadField("config.json has subsampling_conv_channels that is not a pair of whole numbers.")
    return int(stated[0]), int(stated[1])
