"""Pieces that vision and audio towers share: layers of an encoder, and where a tower's tensors belong.

A tower is described under names of its own root; `tower_tensors` then gives them the engine's and the
checkpoint's prefixes, every pipeline stage as their place, and the modalities that they are loaded for. Rules
of vLLM's model files (0.32.0): `_mark_tower_model` in interfaces.py, `is_vit_use_data_parallel` in vision.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from stowage.model.blocks import Tensors, column_linear, row_linear, whole
from stowage.model.profile import EncoderProfile
from stowage.model.tensors import ParameterTensor, Place, Shard, StoredTensor, Tower


@dataclass(frozen=True, slots=True)
class TowerAnatomy:
    """What the reader of a tower gives: its tensors under their full names, and its size for working memory."""

    tensors: Tensors
    encoders: tuple[EncoderProfile, ...]


@dataclass(frozen=True, slots=True)
class LayerNames:
    """How the parts of one encoder layer are called, in the engine and, where that differs, in the checkpoint.

    `qkv_parts` and `up_parts` are the checkpoint's modules that the engine fuses (empty: one of the same
    name), `stored_out` and `stored_down` its names for the other two.
    """

    norms: tuple[str, ...]
    qkv: str
    out: str
    up: str
    down: str
    qkv_parts: tuple[str, ...] = ()
    up_parts: tuple[str, ...] = ()
    stored_out: str | None = None
    stored_down: str | None = None


@dataclass(frozen=True, slots=True)
class LayerSize:
    """The sizes of one encoder layer and which of its parts have a bias; `gated`: gate and up are fused."""

    hidden_size: int
    intermediate_size: int
    gated: bool = False
    norm_bias: bool = True
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True


def encoder_layer(prefix: str, names: LayerNames, size: LayerSize) -> Tensors:
    """Give norms, attention and feed-forward block of one layer; ranks divide them as in a decoder."""
    hidden, inner = size.hidden_size, size.intermediate_size
    norms = [norm(f"{prefix}.{name}", hidden, bias=size.norm_bias) for name in names.norms]
    qkv_parts, up_parts = names.qkv_parts or (names.qkv,), names.up_parts or (names.up,)
    qkv = {f"{prefix}.{part}": 3 * hidden // len(qkv_parts) for part in qkv_parts}
    up_rows = (2 if size.gated else 1) * inner // len(up_parts)
    up = {f"{prefix}.{part}": up_rows for part in up_parts}
    stored_out = f"{prefix}.{names.stored_out or names.out}"
    stored_down = f"{prefix}.{names.stored_down or names.down}"
    return (
        *(tensor for pair in norms for tensor in pair),
        *column_linear(f"{prefix}.{names.qkv}", qkv, hidden, bias=size.qkv_bias),
        *row_linear(f"{prefix}.{names.out}", hidden, hidden, stored=stored_out, bias=size.out_bias),
        *column_linear(f"{prefix}.{names.up}", up, hidden, bias=size.mlp_bias),
        *row_linear(f"{prefix}.{names.down}", hidden, inner, stored=stored_down, bias=size.mlp_bias),
    )


def norm(name: str, size: int, *, bias: bool = True, stored: str | None = None) -> Tensors:
    """Give a layer norm, or with `bias` false an RMS norm; every rank holds it whole."""
    return affine(name, (size,), bias=size if bias else None, stored=stored)


def affine(name: str, shape: tuple[int, ...], *, bias: int | None, stored: str | None = None) -> Tensors:
    """Give a weight and a bias of `bias` elements (None: no bias) that every rank holds whole: convolutions."""
    stored = stored or name
    weight = whole(f"{name}.weight", shape, stored=f"{stored}.weight")
    return (weight, whole(f"{name}.bias", (bias,), stored=f"{stored}.bias")) if bias else (weight,)


def buffer(name: str, shape: tuple[int, ...], element_bytes: int | None = None) -> ParameterTensor:
    """Give a tensor that is in no checkpoint: tables of positions and angles."""
    return ParameterTensor(name, shape, Shard.REPLICATED, Place.LAYER, element_bytes=element_bytes)


def numbered(tensors: Tensors, number: int) -> Tensors:
    """Give the tensors of `number` like layers, each under its number in place of `{}`."""
    return tuple(
        renamed(tensor, lambda name, index=index: name.format(index))  # type: ignore[misc]
        for index in range(number)
        for tensor in tensors
    )


def renamed(
    tensor: ParameterTensor, engine: Callable[[str], str], stored: Callable[[str], str] | None = None
) -> ParameterTensor:
    """Give a tensor under other names: `engine` for the engine's, `stored` (default the same) for the file's."""
    stored = stored or engine
    linear = tensor.linear
    if linear is not None:
        parts = tuple(stored(part) for part in linear.parts)
        linear = replace(linear, module=engine(linear.module), parts=parts)
    kept = tuple(StoredTensor(stored(item.name), item.shape, item.dtype) for item in tensor.stored)
    return replace(tensor, name=engine(tensor.name), stored=kept, linear=linear)


def with_prefixes(prefixes: Mapping[str, str]) -> Callable[[str], str]:
    """Give a function that exchanges the first prefix that a name starts with."""

    def exchange(name: str) -> str:
        found = next((old for old in prefixes if name.startswith(old)), None)
        return name if found is None else prefixes[found] + name.removeprefix(found)

    return exchange


def tower_tensors(
    tensors: Tensors, tower: Tower, *, engine: str, stored: str | None = None, quantised: bool = True
) -> Tensors:
    """Give a tower's tensors under the prefixes of the engine and of the checkpoint (default the same).

    `quantised` false: the engine builds the tower without the checkpoint's quantisation.
    """
    kept = engine if stored is None else stored
    named = (
        renamed(tensor, lambda name: f"{engine}{name}", lambda name: f"{kept}{name}") for tensor in tensors
    )
    return tuple(
        replace(
            tensor, place=Place.EVERY, tower=tower, linear=tensor.linear if quantised else None
        )
        for tensor in named
    )  # fmt: skip


def undivided(tensors: Tensors) -> Tensors:
    """Give the same tensors as every rank holds them whole: towers taken over from transformers."""
    return tuple(replace(tensor, shard=Shard.REPLICATED) for tensor in tensors)
