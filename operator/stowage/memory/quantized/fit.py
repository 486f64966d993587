"""Whether a quantised matrix can be split over ranks without cutting blocks, groups or packed words.

One function gives the sentence of what does not fit; the rules and hints around it are in
`rules.py`. Sources: utils/fp8_utils.py (`validate_fp8_block_shape`, `_moe`), fused_moe/oracle/fp8.py
(`refine_fp8_moe_block_shape`), utils/marlin_utils.py, `create_weights` of each method in vLLM 0.32.0.
"""

from __future__ import annotations

from math import gcd
from typing import Final

from stowage.memory.layout import RankLayout
from stowage.memory.release.engine_version import Release
from stowage.memory.sharding import kv_heads_on_rank, rank_shape
from stowage.model.tensors import ParameterTensor, Scheme, Shard

_REFINED_BLOCKS_SINCE: Final[Release] = (0, 31, 0)
"""fused_moe/oracle/fp8.py of 0.31.0 splits the blocks of expert scales; 0.30.0 refuses."""

_MARLIN_PADS_SINCE: Final[Release] = (0, 24, 0)
"""utils/marlin_utils.py of 0.24.0 has marlin_padded_nk; 0.22.1 has not."""

_MERGED_MAY_CUT_BLOCKS_SINCE: Final[Release] = (0, 17, 0)
"""layers/linear.py of 0.17.1 has _maybe_allow_fp8_block_shape_mismatch; 0.13.0 has not."""

LEAST_REFINED: Final = 32
"""The smallest block that expert scales are split into."""


def misfit(tensor: ParameterTensor, layout: RankLayout, dtype: str, release: Release) -> str | None:
    """Say why the engine would refuse this weight in this layout, or None where it takes it."""
    linear = tensor.linear
    if linear is None or linear.scheme is None or tensor.name.endswith("_bias"):
        return None
    scheme, shape = linear.scheme, rank_shape(tensor, layout)
    if linear.role == "experts":
        problem = _expert_problem(
            scheme, _expert_sizes(tensor, len(linear.out_sizes), shape), layout, release
        )
    elif scheme.block is not None and scheme.weight == "fp8":
        merged_may_cut = scheme.method == "fp8" and release >= _MERGED_MAY_CUT_BLOCKS_SINCE
        problem = _block_problem(tensor, scheme.method, scheme.block, layout, merged_may_cut=merged_may_cut)
    elif scheme.weight.startswith("int") and scheme.activation is None:
        old = release < _MARLIN_PADS_SINCE and dtype == "bfloat16"
        problem = _packed_problem(scheme, shape, tensor.shape[1], old=old)
    else:
        multiple = {"nvfp4": 16, "mxfp4": 32, "mxfp8": 32}.get(scheme.weight, 1)
        problem = _not_multiple("inputs", shape[1], multiple)
    if problem is None:
        return None
    return f"TP {layout.tensor_parallel_size} {problem} ({linear.module}, {scheme.weight} weights)."


def _block_problem(
    tensor: ParameterTensor, method: str, block: tuple[int, int], layout: RankLayout, *, merged_may_cut: bool
) -> str | None:
    columns, split = rank_shape(tensor, layout)[1], layout.tensor_parallel_size > 1
    if method == "modelopt":
        return _not_multiple("inputs", columns, block[1])
    if tensor.shard is Shard.ROWS and split and columns % block[1]:
        return _not_multiple("inputs", columns, block[1])
    parts = _part_rows(tensor, layout)
    if tensor.shard in (Shard.ROWS, Shard.REPLICATED) or not split:
        parts = parts[:-1]
    elif merged_may_cut and len(parts) > 1:
        return None
    return next((found for rows in parts if (found := _not_multiple("outputs", rows, block[0]))), None)


def _part_rows(tensor: ParameterTensor, layout: RankLayout) -> tuple[int, ...]:
    """Give the rows of each fused part on a rank."""
    ranks, sizes = layout.tensor_parallel_size, tensor.linear.out_sizes if tensor.linear else ()
    if tensor.shard is Shard.HEADS and tensor.heads is not None:
        heads = tensor.heads
        key_value = kv_heads_on_rank(heads.num_kv_heads, ranks)
        query = heads.num_heads // ranks * heads.head_dim * heads.query_factor
        index = (key_value * heads.index_dim, heads.index_dim) if heads.index_dim else ()
        return (query, key_value * heads.head_dim, key_value * heads.value_dim, *index)
    return tuple(rows // ranks for rows in sizes) if tensor.shard is Shard.COLUMNS else sizes


def _packed_problem(scheme: Scheme, shape: tuple[int, ...], all_columns: int, *, old: bool) -> str | None:
    (rows, columns), group = shape, scheme.group_size
    if group is not None and group < all_columns and columns % group:
        return f"cuts a group of {group} inputs ({columns} a rank)"
    word = 32 // int(scheme.weight[3:])
    if scheme.method in ("awq", "gptq") and rows % word:
        return _not_multiple("outputs", rows, word)
    if old and scheme.method != "awq" and (rows % 64 or columns % 64):
        return f"leaves a matrix of {rows} × {columns} a rank; its kernels need multiples of 64"
    return None


def _expert_sizes(tensor: ParameterTensor, parts: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Give the inner and the hidden size of an expert on a rank."""
    if tensor.shard is Shard.EXPERT_ROWS:
        return shape[2], shape[1]
    return shape[1] // parts, shape[2]


def _expert_problem(
    scheme: Scheme, sizes: tuple[int, int], layout: RankLayout, release: Release
) -> str | None:
    if scheme.weight == "fp8" and scheme.block is not None:
        return _expert_block_problem(scheme, scheme.block, sizes, layout, release)
    group = scheme.group_size
    if scheme.weight.startswith("int") and scheme.method == "compressed-tensors" and group:
        size = next((size for size in sizes if size % group), None)
        return None if size is None else f"cuts a group of {group} inputs ({size} in an expert)"
    multiple = {"nvfp4": 16, "mxfp8": 32}.get(scheme.weight, 1)
    return _not_multiple("inner values in an expert", sizes[0], multiple)


def _expert_block_problem(
    scheme: Scheme, block: tuple[int, int], sizes: tuple[int, int], layout: RankLayout, release: Release
) -> str | None:
    inner, split = sizes[0], layout.tensor_parallel_size > 1 and not layout.expert_parallel
    if inner % block[0] == 0 and (not split or inner % block[1] == 0):
        return None
    if scheme.method == "fp8" and release >= _REFINED_BLOCKS_SINCE and gcd(*block, *sizes) >= LEAST_REFINED:
        return None
    return f"leaves {inner} inner values of an expert a rank, which its {block[0]} × {block[1]} blocks do not fit"


def _not_multiple(what: str, size: int, multiple: int) -> str | None:
    return f"leaves {size} {what} a rank, not a multiple of {multiple}" if size % multiple else None
