"""Whisper's audio encoder, as the engine builds it and as transformers does, with the models that use it.

Ultravox takes the engine's (fused, divided among ranks); Qwen2-Audio and Qwen2.5-Omni take transformers' own
(separate projections, whole on every rank). Sources: whisper.py, ultravox.py, qwen2_audio.py and
qwen2_5_omni_thinker.py of vLLM 0.32.0. Keys have no bias in the checkpoint; where projections are fused the
engine adds zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from stowage.model.blocks import Tensors, replicated_linear, whole
from stowage.model.config_fields import count, flag, word
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
    tower_tensors,
    undivided,
)
from stowage.model.profile import EncoderProfile
from stowage.model.tensors import ParameterTensor, Tower

Config = Mapping[str, Any]

AUDIO: Final = Tower(("audio",))
_KERNEL: Final = 3
_PROJECTIONS: Final = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_FUSED: Final = LayerNames(
    ("self_attn_layer_norm", "final_layer_norm"), "self_attn.qkv_proj", "self_attn.out_proj", "mlp.fc1",
    "mlp.fc2", qkv_parts=_PROJECTIONS, up_parts=("fc1",), stored_down="fc2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WhisperSize:
    """The sizes of a Whisper encoder."""

    hidden: int
    inner: int
    layers: int
    heads: int
    mel_bins: int
    positions: int

    def encoder(self, tokens: int, patches: int, output_size: int, *, divided: bool) -> EncoderProfile:
        """Give the size for working memory, for clips of so many tokens and positions."""
        return EncoderProfile(
            "audio", self.hidden, self.inner, self.layers, self.heads, tokens, patches, output_size,
            divided=divided,
        )  # fmt: skip


def whisper_size(config: Config) -> WhisperSize:
    """Read the encoder's sizes; absent fields are those of Whisper large."""
    return WhisperSize(
        hidden=count(config, "d_model", 1280),
        inner=count(config, "encoder_ffn_dim", 5120),
        layers=count(config, "encoder_layers", 32),
        heads=count(config, "encoder_attention_heads", 20),
        mel_bins=count(config, "num_mel_bins", 128),
        positions=count(config, "max_source_positions", 1500),
    )


def encoder_tensors(size: WhisperSize) -> Tensors:
    """Give the encoder as the engine builds it, under names of its own root."""
    layer = without_key_bias(encoder_layer("layers.{}", _FUSED, LayerSize(size.hidden, size.inner)))
    return (
        *_convolutions(size),
        whole("embed_positions.weight", (size.positions, size.hidden)),
        *numbered(layer, size.layers),
        *norm("layer_norm", size.hidden),
    )


def without_key_bias(tensors: Tensors) -> Tensors:
    """Give the same tensors without a stored bias of the keys, which Whisper's checkpoints lack."""
    return tuple(
        replace(tensor, stored=tuple(kept for kept in tensor.stored if not kept.name.endswith("k_proj.bias")))
        for tensor in tensors
    )


def read_qwen2_audio_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read encoder and projector of Qwen2-Audio; both are whole on every rank and never quantised."""
    size = whisper_size(require(config, "audio_config"))
    positions = (whole("embed_positions.weight", (size.positions, size.hidden)),)
    tower = (*_plain_encoder(size), *positions, *norm("layer_norm", size.hidden))
    projector = undivided(replicated_linear("linear", text_hidden, size.hidden, bias=True))
    tensors = (
        *tower_tensors(tower, AUDIO, engine="audio_tower.", quantised=False),
        *tower_tensors(projector, AUDIO, engine="multi_modal_projector.", quantised=False),
    )
    tokens = size.positions // 2
    return TowerAnatomy(tensors, (size.encoder(tokens, size.positions, text_hidden, divided=False),))


def read_qwen2_5_omni_audio_tower(config: Config) -> TowerAnatomy:
    """Read the audio encoder of Qwen2.5-Omni's thinker from its `audio_config`."""
    size, out_size = whisper_size(config), count(config, "output_dim", 3584)
    tower = (
        *_plain_encoder(size),
        whole("audio_bos_eos_token.weight", (2, out_size)),
        *norm("ln_post", size.hidden),
        *affine("proj", (out_size, size.hidden), bias=out_size),
        buffer("positional_embedding.positional_embedding", (size.positions, size.hidden), 4),
    )
    seconds = encoder_default("qwen2_5_omni", "audio_max_seconds")
    frames = seconds * encoder_default("qwen2_5_omni", "audio_frames_per_second")
    tensors = tower_tensors(
        tower, AUDIO, engine="audio_tower.", stored="thinker.audio_tower.", quantised=False
    )
    return TowerAnatomy(tensors, (size.encoder(frames // 2, frames, out_size, divided=False),))


def read_qwen3_omni_audio_tower(config: Config) -> TowerAnatomy:
    """Read the audio encoder of Qwen3-Omni's thinker from its `audio_config`.

    Its attention is whole on every rank where tensor parallelism does not divide the heads.
    """
    size, out_size = whisper_size(config), count(config, "output_dim", 3584)
    channels, bins = count(config, "downsample_hidden_size", 480), size.mel_bins
    for _ in range(3):
        bins = (bins + 1) // 2
    names = replace(_FUSED, up="fc1", down="fc2", up_parts=(), stored_down=None)
    tower = (
        *affine("conv2d1", (channels, 1, _KERNEL, _KERNEL), bias=channels),
        *affine("conv2d2", (channels, channels, _KERNEL, _KERNEL), bias=channels),
        *affine("conv2d3", (channels, channels, _KERNEL, _KERNEL), bias=channels),
        *affine("conv_out", (size.hidden, channels * bins), bias=None),
        *numbered(encoder_layer("layers.{}", names, LayerSize(size.hidden, size.inner)), size.layers),
        *norm("ln_post", size.hidden),
        *affine("proj1", (size.hidden, size.hidden), bias=size.hidden),
        *affine("proj2", (out_size, size.hidden), bias=out_size),
        buffer("positional_embedding.positional_embedding", (size.positions, size.hidden), 4),
    )
    tensors = tuple(
        replace(tensor, tower=replace(AUDIO, num_heads=size.heads))
        if ".self_attn." in tensor.name
        else tensor
        for tensor in tower_tensors(
            tower, AUDIO, engine="audio_tower.", stored="thinker.audio_tower.", quantised=False
        )
    )
    tokens = encoder_default("qwen3_omni", "audio_max_tokens")
    encoder = replace(size.encoder(tokens, tokens, out_size, divided=True), whole_where_indivisible=True)
    return TowerAnatomy(tensors, (encoder,))


def read_ultravox_tower(config: Config, text_hidden: int) -> TowerAnatomy:
    """Read encoder and projector of Ultravox; the encoder comes from a Whisper checkpoint where one is named."""
    size = whisper_size(require(config, "audio_config"))
    layers = config.get("num_projector_layers") or 0
    if layers:
        projector = _transformer_projector(config, size, int(layers), text_hidden)
    else:
        projector = _feed_forward_projector(config, size, text_hidden)
    tensors = (
        *tower_tensors(
            encoder_tensors(size), AUDIO, engine="audio_tower.", stored="audio_tower.model.encoder."
        ),
        *tower_tensors(projector, AUDIO, engine="multi_modal_projector."),
    )
    clips = encoder_default("ultravox", "audio_max_clips")
    stacked = count(config, "stack_factor", 8)
    tokens = clips * -(-size.positions // stacked)
    encoder = size.encoder(tokens, clips * size.positions, text_hidden, divided=True)
    return TowerAnatomy(tensors, (encoder,))


def _feed_forward_projector(config: Config, size: WhisperSize, text_hidden: int) -> Tensors:
    stacked = size.hidden * count(config, "stack_factor", 8)
    inner = count(config, "hidden_size", 4096)
    gated = word(config, "projector_act") in (None, "swiglu")
    middle = inner // 2 if gated else inner
    mid_norm = flag(config, "projector_ln_mid")
    return (
        *norm("ln_pre", stacked, bias=False),
        *replicated_linear("linear_1", inner, stacked),
        *replicated_linear("linear_2", text_hidden, middle),
        *norm("ln_mid" if mid_norm else "ln_post", middle if mid_norm else text_hidden, bias=False),
    )


def _transformer_projector(config: Config, size: WhisperSize, layers: int, text_hidden: int) -> Tensors:
    stacked = size.hidden * count(config, "stack_factor", 8)
    layer = without_key_bias(encoder_layer("layers.{}", _FUSED, LayerSize(size.hidden, size.inner)))
    return (
        *norm("ln_pre", stacked, bias=False),
        *replicated_linear("linear_in", size.hidden, stacked, bias=True),
        whole("embed_positions.weight", (size.positions, size.hidden)),
        *numbered(layer, layers),
        *norm("ln_post", size.hidden, bias=False),
        *replicated_linear("linear_out", text_hidden, size.hidden, bias=True),
    )


def _convolutions(size: WhisperSize) -> Tensors:
    return (
        *affine("conv1", (size.hidden, size.mel_bins, _KERNEL), bias=size.hidden),
        *affine("conv2", (size.hidden, size.hidden, _KERNEL), bias=size.hidden),
    )


def _plain_encoder(size: WhisperSize) -> Tensors:
    hidden, inner = size.hidden, size.inner
    layer: list[ParameterTensor] = []
    for name in (*_PROJECTIONS, "self_attn.out_proj"):
        layer += affine(f"layers.{{}}.{name}", (hidden, hidden), bias=None if "k_proj" in name else hidden)
    layer += affine("layers.{}.fc1", (inner, hidden), bias=inner)
    layer += affine("layers.{}.fc2", (hidden, inner), bias=hidden)
    for name in _FUSED.norms:
        layer += norm(f"layers.{{}}.{name}", hidden)
    return (*_convolutions(size), *numbered(tuple(layer), size.layers))
