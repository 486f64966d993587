"""What a family of architectures reads out of config.json: the parts that a profile is put together from."""

from __future__ import annotations

from dataclasses import dataclass

from stowage.model.profile import EncoderProfile, LayerProfile
from stowage.model.rope import Rope
from stowage.model.tensors import ParameterTensor


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The decoder's layers, the tensors outside of them, and the context that the rotary embedding allows.

    `draft_layers` are layers of the checkpoint that only speculative decoding loads (multi-token
    prediction). `encoders` are vision and audio towers; their tensors are among `outer_tensors`.
    `weight_band` is how far the weights may be off, as a share: 0 where every tensor is known.
    `items_in_one_batch`: tokens of an image or video see each other, so none may be cut. `residual_streams`: hidden
    states that run beside one another between layers.
    """

    hidden_size: int
    vocab_size: int
    layers: tuple[LayerProfile, ...]
    outer_tensors: tuple[ParameterTensor, ...]
    tie_word_embeddings: bool
    rope: Rope
    draft_layers: tuple[LayerProfile, ...] = ()
    encoders: tuple[EncoderProfile, ...] = ()
    supports_pipeline: bool = True
    min_first_stage_layers: int = 0
    notes: tuple[str, ...] = ()
    weight_band: float = 0.0
    items_in_one_batch: bool = False
    residual_streams: int = 1
