"""Holding an estimated model against the bytes of its checkpoint, where those are known.

What an estimate lacks of them becomes one more tensor that ranks divide; what it has too much only widens the
band, since checkpoints also lack what engines make. Never for models that are known tensor by tensor.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod
from typing import Final

from stowage.model.dtype import ELEMENT_BYTES
from stowage.model.profile import ModelProfile
from stowage.model.tensors import ParameterTensor, Place, Shard

_ROW: Final = 1 << 16
"""Bytes of one row of the tensor of what is missing: no rank gets a fraction of a row, whatever divides them."""

_BAND: Final = 0.05
"""Relative uncertainty left: which tensors ranks divide, and which of a checkpoint are not loaded."""


def with_total(profile: ModelProfile, total_bytes: int) -> ModelProfile:
    """Give an estimated profile whose weights add up to the checkpoint's bytes, as far as it lacks them."""
    counted = sum(map(partial(_bytes, profile), profile.outer_tensors))
    counted += sum(_bytes(profile, tensor) for layer in profile.layers for tensor in layer.tensors)
    missing = total_bytes - counted
    off = abs(missing) / max(1, total_bytes)
    if missing <= 0:
        return replace(profile, weight_band=max(_BAND, off), checkpoint_bytes=total_bytes)
    rows = 64 * -(-missing // (64 * _ROW))
    rest = ParameterTensor("not_described", (rows, _ROW), Shard.COLUMNS, Place.EVERY, element_bytes=1)
    return replace(
        profile,
        outer_tensors=(*profile.outer_tensors, rest),
        weight_band=max(_BAND, off / 2),
        checkpoint_bytes=total_bytes,
    )


def _bytes(profile: ModelProfile, tensor: ParameterTensor) -> int:
    """Give the bytes of a tensor in the checkpoint: quantised ones by their elements' size, roughly."""
    if not tensor.stored and tensor.tower is None:
        return 0
    size = tensor.element_bytes or ELEMENT_BYTES[profile.checkpoint_dtype]
    scheme = tensor.linear.scheme if tensor.linear is not None else None
    if scheme is not None and not tensor.after_load:
        return int(prod(tensor.shape) * _SCHEME_BYTES.get(scheme.weight, 1.0))
    return prod(tensor.shape) * size


_SCHEME_BYTES: Final = {"fp8": 1.01, "int8": 1.01, "int4": 0.53, "nvfp4": 0.57, "mxfp4": 0.54, "nf4": 0.53}
"""Bytes of one weight with its scales, by number format; the exact ones depend on group sizes."""
