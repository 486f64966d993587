"""Whisper: an audio encoder, and a decoder whose layers also attend to the encoder's output.

Source: whisper.py of vLLM 0.32.0. Positions are learned, there is no rotary table. Keys and values of the
encoder's output are cached once a request, in the decoder's cross attention. The token embedding is whole on
every rank and is the output head as well. Pipeline parallelism is not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, cache_scales, column_linear, row_linear, whole
from stowage.model.config_fields import BadField, count
from stowage.model.families.audio_whisper import encoder_tensors, whisper_size, without_key_bias
from stowage.model.families.tower_parts import LayerNames, LayerSize, encoder_layer, norm, renamed
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile
from stowage.model.rope import no_rope
from stowage.model.tensors import Place

_PREFIX: Final = "model.decoder.layers.{}"
_LAYER: Final = LayerNames(
    ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"), "self_attn.qkv_proj",
    "self_attn.out_proj", "mlp.fc1", "mlp.fc2",
    qkv_parts=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), up_parts=("fc1",),
    stored_down="fc2",
)  # fmt: skip


def read_whisper(config: Mapping[str, Any]) -> Anatomy:
    """Read encoder and decoder; raises BadField for values that cannot be used."""
    size, vocab_size = whisper_size(config), count(config, "vocab_size")
    hidden, inner = size.hidden, count(config, "decoder_ffn_dim", 5120)
    heads = count(config, "decoder_attention_heads", 20)
    if hidden % heads:
        raise BadField(f"config.json says d_model: {hidden}; it must be a multiple of {heads} heads.")
    own = AttentionProfile(heads, heads, hidden // heads, qkv_bias=True, output_bias=True)
    cross = replace(own, source="cross", cross_tokens=size.positions)
    layer = LayerProfile((own, cross), MlpProfile(inner, bias=True, gated=False), _layer(hidden, inner))
    positions = count(config, "max_target_positions", 448)
    decoder = (
        whole("model.decoder.embed_tokens.weight", (vocab_size, hidden)),
        whole("model.decoder.embed_positions.weight", (positions, hidden)),
        *norm("model.decoder.layer_norm", hidden),
    )
    encoder = tuple(renamed(tensor, lambda name: f"model.encoder.{name}") for tensor in encoder_tensors(size))
    return Anatomy(
        hidden_size=hidden,
        vocab_size=vocab_size,
        layers=(layer,) * count(config, "decoder_layers", 32),
        outer_tensors=tuple(replace(tensor, place=Place.EVERY) for tensor in (*encoder, *decoder)),
        tie_word_embeddings=True,
        rope=no_rope({"max_target_positions": positions, **config}),
        encoders=(
            replace(
                size.encoder(size.positions, size.positions, hidden, divided=True), max_items_per_prompt=1
            ),
        ),
        supports_pipeline=False,
    )


def _layer(hidden: int, inner: int) -> Tensors:
    cross = f"{_PREFIX}.encoder_attn"
    return without_key_bias(
        (
            *encoder_layer(_PREFIX, _LAYER, LayerSize(hidden, inner)),
            *cache_scales(f"{_PREFIX}.self_attn.attn"),
            *column_linear(f"{cross}.q_proj", {f"{cross}.q_proj": hidden}, hidden, bias=True),
            *column_linear(
                f"{cross}.kv_proj", {f"{cross}.k_proj": hidden, f"{cross}.v_proj": hidden}, hidden, bias=True
            ),
            *row_linear(f"{cross}.out_proj", hidden, hidden, bias=True),
            *cache_scales(f"{cross}.attn"),
        )
    )


READERS: Final = {"WhisperForConditionalGeneration": read_whisper}
"""The architecture of this file and its reader."""
