"""What kernels make of the tensors of a quantised weight after loading: one function for each layout.

Each takes the matrix, its layout, the tensors as created and the row of the table that chose it, and gives
the tensors that stay. Formulas are those of vLLM 0.32.0 (layers/quantization/utils: marlin_utils,
marlin_utils_fp8, marlin_utils_fp4, nvfp4_utils, mxfp4_utils); which of them holds where is data, in
quantized/kernels.toml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import lcm
from typing import Final

from stowage.memory.quantized.tensors import Matrix, RankTensor, created_tensors
from stowage.model.tensors import Scheme

Align = tuple[int, int]
"""Multiples of the rows (of experts: their inner size) and the columns (of experts: the hidden size)."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A matrix that has been loaded, its layout, and the multiples that its kernel needs."""

    matrix: Matrix
    scheme: Scheme
    align: Align


Effect = Callable[[Loaded], tuple[RankTensor, ...]]


def up(size: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-size // multiple) * multiple


def marlin_padded(rows: int, columns: int, group_size: int) -> tuple[int, int]:
    """Give rows and columns that fit Marlin's tiles: 64 × 128 or 128 × 64, whichever is smaller."""
    choices = (
        (up(rows, 64), up(columns, lcm(128, group_size))),
        (up(rows, 128), up(columns, lcm(64, group_size))),
    )
    return min(choices, key=lambda size: (size[0] * size[1], size[0] + size[1]))


def _expert_padded(matrix: Matrix, inner: int, hidden: int) -> Matrix:
    """Pad the inner size of each part, and the hidden size, to multiples."""
    if matrix.which == "w2_":
        return replace(matrix, rows=up(matrix.rows, hidden), columns=up(matrix.columns, inner))
    rows = matrix.parts * up(matrix.rows // matrix.parts, inner)
    return replace(matrix, rows=rows, columns=up(matrix.columns, hidden))


def _without(tensors: Iterable[RankTensor], *kinds: str) -> tuple[RankTensor, ...]:
    return tuple(tensor for tensor in tensors if tensor.kind not in kinds)


def _repacked(matrix: Matrix, scheme: Scheme, padded: Matrix) -> tuple[RankTensor, ...]:
    """Marlin's layout: the same values and scales at the padded size; zero points only where they are used."""
    dropped = (
        ("placeholder",) if scheme.zero_point or matrix.experts is not None else ("placeholder", "zeros")
    )
    found = _without(created_tensors(padded, scheme), *dropped)
    if matrix.experts is not None or scheme.weight != "nvfp4":
        return found
    scale = next(tensor for tensor in found if tensor.kind == "scalars")
    return (*_without(found, "scalars"), replace(scale, shape=()))


def _marlin(loaded: Loaded) -> tuple[RankTensor, ...]:
    matrix, scheme = loaded.matrix, loaded.scheme
    rows, columns = marlin_padded(matrix.rows, matrix.columns, scheme.group_size or 1)
    return _repacked(matrix, scheme, replace(matrix, rows=rows, columns=columns))


def _marlin_unpadded(loaded: Loaded) -> tuple[RankTensor, ...]:
    matrix, scheme = loaded.matrix, loaded.scheme
    return _repacked(matrix, scheme, matrix)


def _marlin_experts(loaded: Loaded) -> tuple[RankTensor, ...]:
    matrix, scheme = loaded.matrix, loaded.scheme
    inner = lcm(64, scheme.group_size or 1)
    return _repacked(matrix, scheme, _expert_padded(matrix, inner, 1))


def _machete(loaded: Loaded) -> tuple[RankTensor, ...]:
    """Zero points are unpacked and multiplied with the scales, which makes them 16-bit."""
    matrix, scheme = loaded.matrix, loaded.scheme
    created = _without(created_tensors(matrix, scheme), "placeholder")
    if not scheme.zero_point:
        return created
    scales = next(tensor for tensor in created if tensor.kind == "scales")
    return tuple(
        replace(tensor, shape=scales.shape, element_bytes=None) if tensor.kind == "zeros" else tensor
        for tensor in created
    )


def _marlin_fp8(loaded: Loaded) -> tuple[RankTensor, ...]:
    matrix, scheme = loaded.matrix, loaded.scheme
    group = scheme.block[1] if scheme.block else 1
    rows, columns = marlin_padded(matrix.rows, matrix.columns, group)
    return _wide_scales(replace(matrix, rows=rows, columns=columns), scheme)


def _marlin_fp8_experts(loaded: Loaded) -> tuple[RankTensor, ...]:
    matrix, scheme = loaded.matrix, loaded.scheme
    inner = lcm(64, scheme.block[1] if scheme.block else 1)
    return _wide_scales(_expert_padded(matrix, inner, 1), scheme)


def _wide_scales(padded: Matrix, scheme: Scheme) -> tuple[RankTensor, ...]:
    """Scales of tensors and blocks are repeated for every output channel, in the model's dtype."""
    groups = padded.columns // scheme.block[1] if scheme.block else 1
    found = []
    for tensor in created_tensors(padded, scheme):
        if tensor.kind == "scales" or tensor.name.endswith("weight_scale"):
            shape = (*padded.lead, groups, padded.rows)
            tensor = replace(tensor, shape=shape, element_bytes=None, kind="scales")
        found.append(tensor)
    return tuple(found)


def _packed_powers(loaded: Loaded) -> tuple[RankTensor, ...]:
    """DeepGEMM on SM100: one power of two for each row and block of columns, four to a 32-bit word."""
    matrix, scheme = loaded.matrix, loaded.scheme
    block = scheme.block[1] if scheme.block else matrix.columns
    words = up(matrix.columns, 4 * block) // (4 * block)
    return tuple(
        replace(tensor, shape=(up(matrix.rows, 4), words)) if tensor.kind == "scales" else tensor
        for tensor in created_tensors(matrix, scheme)
    )


def _one_scale(loaded: Loaded) -> tuple[RankTensor, ...]:
    matrix, scheme = loaded.matrix, loaded.scheme
    return tuple(
        replace(tensor, shape=()) if tensor.kind == "scalars" else tensor
        for tensor in created_tensors(matrix, scheme)
    )


def _swizzled(loaded: Loaded) -> tuple[RankTensor, ...]:
    """Block scales in tiles of 128 rows × 4 groups, values padded to the kernel's multiples."""
    matrix, scheme, align = loaded.matrix, loaded.scheme, loaded.align
    if matrix.experts is None:
        padded = replace(matrix, rows=up(matrix.rows, align[0]), columns=up(matrix.columns, align[1]))
    else:
        inner = align[0] if matrix.gated else 2 * align[0]
        padded = _expert_padded(matrix, inner, align[1])
    groups = up(padded.columns // (scheme.group_size or 1), 4)
    return tuple(
        replace(tensor, shape=(*padded.lead, up(padded.rows, 128), groups))
        if tensor.kind == "scales"
        else tensor
        for tensor in _without(created_tensors(padded, scheme), "placeholder")
    )


def _padded_experts(loaded: Loaded) -> tuple[RankTensor, ...]:
    matrix, scheme, align = loaded.matrix, loaded.scheme, loaded.align
    return created_tensors(_expert_padded(matrix, *align), scheme)


def _swizzled_hopper(loaded: Loaded) -> tuple[RankTensor, ...]:
    """triton_kernels' HopperMXScaleLayout: rows to a multiple of 32 × 8 warps."""
    matrix, scheme, align = loaded.matrix, loaded.scheme, loaded.align
    padded = _expert_padded(matrix, *align)
    return tuple(
        replace(tensor, shape=(*padded.lead, up(padded.rows, 256), tensor.shape[-1]))
        if tensor.kind == "scales"
        else tensor
        for tensor in created_tensors(padded, scheme)
    )


def _swizzled_hopper_in_fours(loaded: Loaded) -> tuple[RankTensor, ...]:
    """As above, with the groups of a row padded to a multiple of four."""
    return tuple(
        replace(tensor, shape=(*tensor.shape[:-1], up(tensor.shape[-1], 4)))
        if tensor.kind == "scales"
        else tensor
        for tensor in _swizzled_hopper(loaded)
    )


def _swizzled_hopper_twice(loaded: Loaded) -> tuple[RankTensor, ...]:
    """The swizzled scales, and the loaded ones that the release forgets to free."""
    created = created_tensors(_expert_padded(loaded.matrix, *loaded.align), loaded.scheme)
    kept = tuple(
        replace(tensor, name=f"{tensor.name}_as_loaded") for tensor in created if tensor.kind == "scales"
    )
    return (*_swizzled_hopper(loaded), *kept)


def _swizzled_hopper_squared(loaded: Loaded) -> tuple[RankTensor, ...]:
    """The same, with both dimensions of the packed values padded to 64 (layout_details/hopper_value.py)."""
    return tuple(
        replace(tensor, shape=(*tensor.shape[:-2], up(tensor.shape[-2], 64), up(tensor.shape[-1], 64)))
        if tensor.kind == "values"
        else tensor
        for tensor in _swizzled_hopper_twice(loaded)
    )


def _block_scales(loaded: Loaded) -> tuple[RankTensor, ...]:
    matrix, scheme = loaded.matrix, loaded.scheme
    return (*created_tensors(matrix, scheme), *_quant_state(matrix, scheme, nested=False))


def _block_scales_nested(loaded: Loaded) -> tuple[RankTensor, ...]:
    matrix, scheme = loaded.matrix, loaded.scheme
    return (*created_tensors(matrix, scheme), *_quant_state(matrix, scheme, nested=scheme.double_quantized))


def _quant_state(matrix: Matrix, scheme: Scheme, *, nested: bool) -> tuple[RankTensor, ...]:
    """bitsandbytes: a scale for each block of values and a table of 16 values; scales may be 8-bit themselves."""
    blocks = matrix.rows * matrix.columns // (scheme.group_size or 64)
    table = matrix.tensor("weight.quant_map", (matrix.parts, 16), 4, "scalars")
    if not nested:
        return (matrix.tensor("weight.absmax", (blocks,), 4, "scales"), table)
    return (
        matrix.tensor("weight.absmax", (blocks,), 1, "scales"),
        matrix.tensor("weight.nested_absmax", (-(-blocks // 256),), 4, "scales"),
        matrix.tensor("weight.nested_quant_map", (matrix.parts, 256), 4, "scalars"),
        table,
    )


EFFECTS: Final[Mapping[str, Effect]] = {
    "block_scales": _block_scales,
    "block_scales_nested": _block_scales_nested,
    "machete": _machete,
    "marlin": _marlin,
    "marlin_experts": _marlin_experts,
    "marlin_fp8": _marlin_fp8,
    "marlin_fp8_experts": _marlin_fp8_experts,
    "marlin_unpadded": _marlin_unpadded,
    "one_scale": _one_scale,
    "packed_powers": _packed_powers,
    "padded_experts": _padded_experts,
    "padded_experts_wide_bias": _padded_experts,
    "swizzled": _swizzled,
    "swizzled_hopper": _swizzled_hopper,
    "swizzled_hopper_in_fours": _swizzled_hopper_in_fours,
    "swizzled_hopper_squared": _swizzled_hopper_squared,
    "swizzled_hopper_twice": _swizzled_hopper_twice,
}
"""Every effect that a row of the table can name."""

WIDE_BIAS: Final = frozenset(
    {
        "padded_experts_wide_bias",
        "swizzled_hopper",
        "swizzled_hopper_in_fours",
        "swizzled_hopper_squared",
        "swizzled_hopper_twice",
    }
)
"""Effects that keep the experts' biases in 32 bits."""


def expert_bias(tensor: RankTensor, effect: str, align: Align) -> RankTensor:
    """Give an expert bias as a kernel keeps it: padded like the rows of its matrix, and perhaps in 32 bits."""
    if not effect.startswith(("padded_experts", "swizzled_hopper")):
        return tensor
    rows = tensor.shape[1]
    leaf = tensor.name.rpartition(".")[2]
    padded = up(rows, align[1]) if leaf.startswith("w2") else 2 * up(rows // 2, align[0])
    wide = 4 if effect in WIDE_BIAS else tensor.element_bytes
    return replace(tensor, shape=(tensor.shape[0], padded), element_bytes=wide)
