"""Weights and buffers of one rank, exact to the byte.

Works from the tensor lists of the profile and the sharding rules; it knows no architecture itself. Results
are cached, since the planner asks for the same few layouts thousands of times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Final

from stowage.memory.allocator import AllocatedBytes, allocate
from stowage.memory.layout import RankLayout
from stowage.memory.pipeline import stage_layers
from stowage.memory.quantized.kernels import Kernels, cache_scale_placeholders, quantized_tensors
from stowage.memory.release.engine_version import Release
from stowage.memory.sharding import rank_elements, rank_shape
from stowage.model.dtype import ELEMENT_BYTES
from stowage.model.profile import ModelProfile
from stowage.model.tensors import ParameterTensor, Place, Shard

_LATENT_CACHED_SINCE: Final[Release] = (0, 7, 1)


@lru_cache(maxsize=4096)
def rank_weights(
    profile: ModelProfile,
    layout: RankLayout,
    dtype: str,
    split_limit_bytes: int | None = None,
    kernels: Kernels | None = None,
) -> AllocatedBytes:
    """Give the bytes that parameters and buffers take on a rank when the model runs in `dtype`.

    `kernels` None: as the engine creates them, before kernels repack quantised weights and before copies of
    weights are made.
    """
    sizes: Counter[int] = Counter()
    dtype_bytes = ELEMENT_BYTES[dtype]
    for tensor, number in _distinct_tensors(profile, layout):
        if _is_absent_copy(tensor, kernels):
            continue
        if _is_packed(tensor):
            for held in quantized_tensors(tensor, rank_shape(tensor, layout), kernels):
                sizes[held.size_bytes(dtype_bytes)] += number
            continue
        rows = kernels.multimodal_rope_factor if tensor.multimodal_rope and kernels else 1
        sizes[rank_elements(tensor, layout) * (tensor.element_bytes or dtype_bytes) * rows] += number
        if kernels is None:
            for held in cache_scale_placeholders(tensor, profile):
                sizes[held.size_bytes(dtype_bytes)] += number
    return allocate(sizes.items(), split_limit_bytes)


def rank_tensors(
    profile: ModelProfile, layout: RankLayout, kernels: Kernels | None = None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give name and shape of every tensor on a rank, under the engine's names."""
    here = stage_layers(profile.num_layers, layout.pipeline_parallel_size)[layout.stage]
    for tensor in profile.outer_tensors:
        if _is_here(tensor, layout) and _is_used(tensor, here):
            yield from _named(tensor, layout, profile, kernels)
    for number in here:
        for tensor in profile.layers[number].tensors:
            if _is_here(tensor, layout):
                for name, shape in _named(tensor, layout, profile, kernels):
                    yield name.format(number), shape


def _named(
    tensor: ParameterTensor, layout: RankLayout, profile: ModelProfile, kernels: Kernels | None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    shape = rank_shape(tensor, layout)
    if _is_absent_copy(tensor, kernels):
        return
    if _is_packed(tensor):
        for held in quantized_tensors(tensor, shape, kernels):
            yield held.name, held.shape
        return
    yield tensor.name, shape
    if kernels is None:
        for held in cache_scale_placeholders(tensor, profile):
            yield held.name, held.shape


def unsharded_parameter_bytes(profile: ModelProfile) -> int:
    """Give the bytes of all parameters (no buffers, no padding) in the checkpoint's own dtype."""
    whole = RankLayout(1, 1, 0)
    elements = sum(
        number * prod(tensor.shape) for tensor, number in _distinct_tensors(profile, whole) if tensor.stored
    )
    return elements * ELEMENT_BYTES[profile.checkpoint_dtype]


def _distinct_tensors(profile: ModelProfile, layout: RankLayout) -> Iterator[tuple[ParameterTensor, int]]:
    here = stage_layers(profile.num_layers, layout.pipeline_parallel_size)[layout.stage]
    for tensor in profile.outer_tensors:
        if _is_here(tensor, layout) and _is_used(tensor, here):
            yield tensor, 1
    for layer, number in Counter(profile.layers[here.start : here.stop]).items():
        for tensor in layer.tensors:
            if _is_here(tensor, layout):
                yield tensor, number


def _is_packed(tensor: ParameterTensor) -> bool:
    return tensor.linear is not None and tensor.linear.scheme is not None and not tensor.after_load


def _is_absent_copy(tensor: ParameterTensor, kernels: Kernels | None) -> bool:
    """Tell copies that are not made: by releases that cache keys and values of latent attention (before 0.7.1).

    Of a plain weight they are views, which take no memory of their own.
    """
    if not tensor.after_load:
        return False
    if kernels is not None and kernels.release < _LATENT_CACHED_SINCE:
        return True
    return kernels is None or tensor.linear is None or tensor.linear.scheme is None


def _is_used(tensor: ParameterTensor, here: range) -> bool:
    return not tensor.used_by or any(number in here for number in tensor.used_by)


def _is_here(tensor: ParameterTensor, layout: RankLayout) -> bool:
    if tensor.tower is not None and set(tensor.tower.modalities) <= set(layout.absent_modalities):
        return False
    if tensor.shard is Shard.EXPERT_MAP:
        return layout.expert_parallel and layout.expert_ranks > 1
    if tensor.place is Place.FIRST:
        return layout.is_first
    if tensor.place is Place.LAST:
        return layout.is_last
    if tensor.place is Place.BOTH_ENDS:
        return layout.is_first or layout.is_last
    return True
