"""Weights and buffers of one rank, exact to the byte.

Works from the tensor lists of the profile and the sharding rules; it knows no architecture itself. Results
are cached, since the planner asks for the same few layouts thousands of times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from math import prod

from stowage.memory.allocator import AllocatedBytes, allocate
from stowage.memory.layout import RankLayout
from stowage.memory.pipeline import stage_layers
from stowage.memory.sharding import rank_elements, rank_shape
from stowage.model.dtype import ELEMENT_BYTES
from stowage.model.profile import ModelProfile
from stowage.model.tensors import ParameterTensor, Place


@lru_cache(maxsize=4096)
def rank_weights(
    profile: ModelProfile, layout: RankLayout, dtype: str, split_limit_bytes: int | None = None
) -> AllocatedBytes:
    """Give the bytes that parameters and buffers take on a rank when the model runs in `dtype`."""
    sizes: Counter[int] = Counter()
    for tensor, number in _distinct_tensors(profile, layout):
        element_bytes = tensor.element_bytes or ELEMENT_BYTES[dtype]
        sizes[rank_elements(tensor, layout) * element_bytes] += number
    return allocate(sizes.items(), split_limit_bytes)


def rank_tensors(profile: ModelProfile, layout: RankLayout) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give name and shape of every tensor on a rank, under the engine's names."""
    for tensor in profile.outer_tensors:
        if _is_here(tensor, layout):
            yield tensor.name, rank_shape(tensor, layout)
    for number in stage_layers(profile.num_layers, layout.pipeline_parallel_size)[layout.stage]:
        for tensor in profile.layers[number].tensors:
            yield tensor.name.format(number), rank_shape(tensor, layout)


def unsharded_parameter_bytes(profile: ModelProfile) -> int:
    """Give the bytes of all parameters (no buffers, no padding) in the checkpoint's own dtype."""
    whole = RankLayout(1, 1, 0)
    elements = sum(
        number * prod(tensor.shape) for tensor, number in _distinct_tensors(profile, whole) if tensor.stored
    )
    return elements * ELEMENT_BYTES[profile.checkpoint_dtype]


def _distinct_tensors(profile: ModelProfile, layout: RankLayout) -> Iterator[tuple[ParameterTensor, int]]:
    for tensor in profile.outer_tensors:
        if _is_here(tensor, layout):
            yield tensor, 1
    here = stage_layers(profile.num_layers, layout.pipeline_parallel_size)[layout.stage]
    for layer, number in Counter(profile.layers[here.start : here.stop]).items():
        for tensor in layer.tensors:
            yield tensor, number


def _is_here(tensor: ParameterTensor, layout: RankLayout) -> bool:
    if tensor.place is Place.FIRST:
        return layout.is_first
    if tensor.place is Place.LAST:
        return layout.is_last
    if tensor.place is Place.BOTH_ENDS:
        return layout.is_first or layout.is_last
    return True
