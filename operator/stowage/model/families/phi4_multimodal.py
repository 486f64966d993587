"""Phi-4 multimodal: a SigLIP tower, a conformer for speech, and a Phi-3 decoder with fused projections.

Sources: phi4mm.py, phi4mm_audio.py and phi4mm_utils.py of vLLM 0.32.0. The vision tower's sizes are in the
code, not in config.json. The adapters in the checkpoint are not loaded with the model (they are served as LoRA
adapters); its linear layers are stored as `base_layer`. The speech encoder is whole on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, whole
from stowage.model.config_fields import count, mapping
from stowage.model.encoder_defaults import encoder_default
from stowage.model.families.text_inside import composed, read_text
from stowage.model.families.tower_parts import (
    TowerAnatomy,
    affine,
    buffer,
    norm,
    numbered,
    renamed,
    tower_tensors,
)
from stowage.model.families.vision.vit import vit_size, vit_tensors
from stowage.model.profile import EncoderProfile
from stowage.model.tensors import ParameterTensor, Tower

Config = Mapping[str, Any]
Reader = Callable[[Config], Anatomy]

_VISION: Final = Tower(("image", "video"))
_AUDIO: Final = Tower(("audio",))
_SIGLIP: Final = {
    "model_type": "idefics3_vision",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 448,
    "patch_size": 14,
}
_LAYERS_USED: Final = 26
_WITH_ADAPTERS: Final = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
_STORED: Final = "model.embed_tokens_extend."


def read_phi4_multimodal(config: Config, *, text_readers: Mapping[str, Reader]) -> Anatomy:
    """Read all three parts of Phi4MMForCausalLM; raises BadField as readers do."""
    not_text = ("audio_processor", "embd_layer", "img_processor", "architectures", "quantization_config")
    fields = {key: value for key, value in config.items() if key not in not_text}
    text = _stored_below_adapters(
        read_text(text_readers, "Phi3ForCausalLM", {**fields, "model_type": "phi3"})
    )
    towers = (_vision(text.hidden_size), _speech(config, text.hidden_size))
    return composed(text, towers, engine={}, stored={})


def readers(text_readers: Mapping[str, Reader]) -> dict[str, Reader]:
    """Give the architecture of this file and its reader."""
    return {"Phi4MMForCausalLM": partial(read_phi4_multimodal, text_readers=text_readers)}


def _stored_below_adapters(text: Anatomy) -> Anatomy:
    def stored(name: str) -> str:
        module = next((each for each in _WITH_ADAPTERS if f".{each}" in name), None)
        return name if module is None else name.replace(f".{module}", f".{module}.base_layer")

    changed = {
        layer: replace(
            layer, tensors=tuple(renamed(tensor, lambda name: name, stored) for tensor in layer.tensors)
        )
        for layer in dict.fromkeys(text.layers)
    }
    return replace(text, layers=tuple(changed[layer] for layer in text.layers))


def _vision(text_hidden: int) -> TowerAnatomy:
    size = vit_size(_SIGLIP)
    rest = (
        whole("glb_GN", (1, 1, size.hidden)),
        whole("sub_GN", (1, 1, 1, size.hidden)),
        *_projection("img_projection", size.hidden, text_hidden),
    )
    engine, stored = "vision_encoder.", f"{_STORED}image_embed."
    tower = vit_tensors(_SIGLIP, size, _LAYERS_USED, post_norm=False)
    crops = encoder_default("phi4mm", "image_max_crops") + 1
    tokens = encoder_default("phi4mm", "image_max_tokens")
    return TowerAnatomy(
        (
            *tower_tensors(
                tower, _VISION, engine=f"{engine}img_processor.", stored=f"{stored}img_processor."
            ),
            *tower_tensors(rest, _VISION, engine=engine, stored=stored, quantised=False),
        ),
        (size.encoder(tokens, crops * size.grid**2, text_hidden),),
    )


def _speech(config: Config, text_hidden: int) -> TowerAnatomy:
    audio = mapping(mapping(config, "audio_processor"), "config")
    hidden, heads = count(audio, "attention_dim", 1024), count(audio, "attention_heads", 16)
    inner, layers = count(audio, "linear_units", 1536), count(audio, "num_blocks", 24)
    bins, reduction = count(audio, "input_size", 80), count(audio, "time_reduction", 8)
    distance = count(mapping(audio, "relative_attention_bias_args"), "t5_bias_max_distance", 500)
    channels = count(mapping(audio, "nemo_conv_settings"), "conv_channels", hidden)
    encoder = (
        *_subsampling(channels, reduction),
        *affine("encoder.embed.out", (hidden, channels * -(-bins // reduction)), bias=hidden),
        whole("encoder.relative_attention_bias_layer.bias_values.weight", (2 * distance, heads)),
        whole("encoder.encoder_embedding.global_mean", (bins,)),
        whole("encoder.encoder_embedding.global_invstd", (bins,)),
        *numbered(_conformer(audio, hidden, inner), layers),
        buffer("encoder.dev_type", ()),
    )
    speech = _projection("audio_projection", hidden, text_hidden)
    beside_images = _projection("audio_projection_for_vision", hidden, text_hidden)
    engine, stored = "embed_tokens_extend.", f"{_STORED}audio_embed."
    place = partial(tower_tensors, tower=_AUDIO, engine=engine, quantised=False)
    frames = encoder_default("phi4mm", "audio_max_frames") // reduction
    profile = EncoderProfile(
        "audio", hidden, 2 * inner, layers, heads, frames, frames, text_hidden, divided=False
    )
    return TowerAnatomy(
        (
            *place(encoder, stored=stored),
            *_under(place(speech, stored=stored), "audio_projection.", "audio_projection.speech."),
            *_under(
                place(beside_images, stored=stored), "audio_projection_for_vision.", "audio_projection.vision."
            ),
        ),
        (profile,),
    )  # fmt: skip


def _under(tensors: Tensors, engine: str, stored: str) -> Tensors:
    return tuple(
        renamed(tensor, lambda name: name, lambda name: name.replace(engine, stored)) for tensor in tensors
    )


def _projection(name: str, in_size: int, text_hidden: int) -> Tensors:
    return (
        *affine(f"{name}.0", (text_hidden, in_size), bias=text_hidden),
        *affine(f"{name}.2", (text_hidden, text_hidden), bias=text_hidden),
    )


def _subsampling(channels: int, reduction: int) -> Tensors:
    tensors: list[ParameterTensor] = [*affine("encoder.embed.conv.0", (channels, 1, 3, 3), bias=channels)]
    for step in range(reduction.bit_length() - 2):
        first = 2 + 3 * step
        tensors += affine(f"encoder.embed.conv.{first}", (channels, 1, 3, 3), bias=channels)
        tensors += affine(f"encoder.embed.conv.{first + 1}", (channels, channels, 1, 1), bias=channels)
    return tuple(tensors)


def _conformer(audio: Config, hidden: int, inner: int) -> Tensors:
    prefix, kernel = "encoder.encoders.{}", count(audio, "kernel_size", 3)
    conv = f"{prefix}.conv"
    tensors: list[ParameterTensor] = []
    for name in ("feed_forward_in", "feed_forward_out"):
        tensors += norm(f"{prefix}.{name}.layer_norm", hidden)
        tensors += affine(f"{prefix}.{name}.net.0.linear", (2 * inner, hidden), bias=2 * inner)
        tensors += affine(f"{prefix}.{name}.net.2", (hidden, inner), bias=hidden)
    for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
        tensors += affine(f"{prefix}.self_attn.{name}", (hidden, hidden), bias=hidden)
    tensors += norm(f"{conv}.layer_norm", hidden)
    tensors += (whole(f"{conv}.glu.b1", (1, hidden, 1)), whole(f"{conv}.glu.b2", (1, hidden, 1)))
    tensors += affine(f"{conv}.glu.ext_pw_conv_1d", (2 * hidden, hidden, 1), bias=2 * hidden)
    tensors += affine(f"{conv}.ext_pw_conv_1d", (hidden, hidden, 1), bias=hidden)
    tensors += affine(f"{conv}.dw_sep_conv_1d.dw_conv", (hidden, 1, kernel), bias=hidden)
    tensors += affine(f"{conv}.dw_sep_conv_1d.pw_conv", (hidden, hidden, 1), bias=hidden)
    return (*tensors, *norm(f"{prefix}.layer_norm_att", hidden), *norm(f"{prefix}.layer_norm", hidden))
