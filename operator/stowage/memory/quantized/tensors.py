"""What a rank holds of a quantised weight, as the engine creates it before a checkpoint is loaded.

One matrix becomes a set of tensors: packed values, scales, zero points, scalars. Shapes follow from the
matrix on the rank, exactly as the `create_weights` of each method computes them in vLLM 0.32.0
(layers/quantization/: fp8, fbgemm_fp8, compressed_tensors/, auto_awq, auto_gptq, modelopt, mxfp4, online/;
bitsandbytes as of 0.27). What kernels then make of them is in `kernels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod

from stowage.model.tensors import Linear, Scheme


@dataclass(frozen=True, slots=True)
class RankTensor:
    """One tensor on a rank. `element_bytes` None: the dtype that the model runs in.

    `kind` says what a kernel may do with it: "values", "scales" (of channels, groups or blocks), "zeros",
    "scalars" (one number per part, expert or tensor), "shape", "bias" or "placeholder" (gone after loading).
    """

    name: str
    shape: tuple[int, ...]
    element_bytes: int | None
    kind: str

    def size_bytes(self, dtype_bytes: int) -> int:
        """Give the bytes when the model runs in a dtype of that many bytes."""
        return prod(self.shape) * (self.element_bytes or dtype_bytes)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight on a rank: `rows` outputs × `columns` inputs, fused from `parts` modules.

    `experts` is None for a plain linear layer; `which` is "w13_" or "w2_" for experts and empty otherwise.
    """

    module: str
    rows: int
    columns: int
    parts: int
    experts: int | None = None
    which: str = ""
    gated: bool = True

    @property
    def lead(self) -> tuple[int, ...]:
        """The dimension that counts experts, where there is one."""
        return () if self.experts is None else (self.experts,)

    def tensor(self, suffix: str, shape: tuple[int, ...], element_bytes: int | None, kind: str) -> RankTensor:
        """Make one tensor of this matrix; its experts come first."""
        return RankTensor(f"{self.module}.{self.which}{suffix}", (*self.lead, *shape), element_bytes, kind)

    def scalars(self, suffix: str, element_bytes: int | None = 4) -> RankTensor:
        """Make a number for each part; of experts each has its own, without a dimension where it is one."""
        shape = () if self.which == "w2_" else (self.parts,)
        return self.tensor(suffix, shape, element_bytes, "scalars")


def matrix_of(name: str, linear: Linear, shape: tuple[int, ...]) -> Matrix:
    """Describe a quantised weight of that name by its shape on the rank."""
    module, _, leaf = name.rpartition(".")
    if linear.role != "experts":
        return Matrix(module, shape[0], shape[1], len(linear.out_sizes))
    which = f"{leaf.partition('_')[0]}_"
    return Matrix(module, shape[1], shape[2], len(linear.out_sizes), shape[0], which, linear.gated)


def created_tensors(matrix: Matrix, scheme: Scheme) -> tuple[RankTensor, ...]:
    """Give the tensors that the engine creates for a matrix of this layout."""
    if scheme.weight.startswith("int"):
        return _integers(matrix, scheme)
    match scheme.weight:
        case "fp8":
            return _fp8(matrix, scheme)
        case "nvfp4":
            return _nvfp4(matrix, scheme)
        case "mxfp8":
            return _micro_scaled(matrix, "weight", 1)
        case "mxfp4":
            packed = "weight_packed" if scheme.method == "compressed-tensors" else "weight"
            return _micro_scaled(matrix, packed, 2)
    halves = matrix.rows * matrix.columns // 2
    return (matrix.tensor("weight", (halves, 1), 1, "values"),)


def _integers(matrix: Matrix, scheme: Scheme) -> tuple[RankTensor, ...]:
    bits = int(scheme.weight[3:])
    if scheme.method == "awq":
        return _awq(matrix, scheme, bits)
    if scheme.method == "gptq":
        return _gptq(matrix, scheme, bits)
    if scheme.activation == "int8":
        return _int8_both(matrix, scheme)
    if scheme.method == "compressed-tensors":
        return _packed(matrix, scheme, bits)
    return (
        matrix.tensor("weight", (matrix.rows, matrix.columns), 1, "values"),
        matrix.tensor("scale", (matrix.rows,), 4, "scales"),
    )


def _groups(matrix: Matrix, scheme: Scheme) -> int:
    return matrix.columns // scheme.group_size if scheme.group_size else 1


def _awq(matrix: Matrix, scheme: Scheme, bits: int) -> tuple[RankTensor, ...]:
    packed, groups = matrix.rows * bits // 32, _groups(matrix, scheme)
    return (
        matrix.tensor("qweight", (matrix.columns, packed), 4, "values"),
        matrix.tensor("qzeros", (groups, packed), 4, "zeros"),
        matrix.tensor("scales", (groups, matrix.rows), None, "scales"),
    )


def _gptq(matrix: Matrix, scheme: Scheme, bits: int) -> tuple[RankTensor, ...]:
    groups = _groups(matrix, scheme)
    found = (
        matrix.tensor("qweight", (matrix.columns * bits // 32, matrix.rows), 4, "values"),
        matrix.tensor("qzeros", (groups, matrix.rows * bits // 32), 4, "zeros"),
        matrix.tensor("scales", (groups, matrix.rows), None, "scales"),
    )
    if matrix.experts is None:
        return found
    return (*found, matrix.tensor("bias", (matrix.rows,), None, "placeholder"))


def _packed(matrix: Matrix, scheme: Scheme, bits: int) -> tuple[RankTensor, ...]:
    groups, apart = _groups(matrix, scheme), matrix.experts is not None
    columns = matrix.columns // (32 // bits) if apart else -(-matrix.columns * bits // 32)
    zeros = matrix.rows // (32 // bits) if apart else -(-matrix.rows * bits // 32)
    found = (
        matrix.tensor("weight_packed", (matrix.rows, columns), 4, "values"),
        matrix.tensor("weight_scale", (matrix.rows, groups), None, "scales"),
        matrix.tensor("weight_shape", (2,), None if apart else 8, "shape"),
    )
    if not scheme.zero_point:
        return found
    return (*found, matrix.tensor("weight_zero_point", (zeros, groups), 4, "zeros"))


def _int8_both(matrix: Matrix, scheme: Scheme) -> tuple[RankTensor, ...]:
    found = [matrix.tensor("weight", (matrix.rows, matrix.columns), 1, "values")]
    if scheme.strategy == "channel":
        found.append(matrix.tensor("weight_scale", (matrix.rows, 1), 4, "scales"))
    else:
        found.append(matrix.scalars("weight_scale"))
    if scheme.static_activation:
        found.append(matrix.tensor("input_scale", (1,), 4, "scalars"))
    if scheme.static_activation and scheme.zero_point:
        found.append(matrix.tensor("input_zero_point", (1,), 1, "scalars"))
    return tuple(found)


def _fp8(matrix: Matrix, scheme: Scheme) -> tuple[RankTensor, ...]:
    found = [matrix.tensor("weight", (matrix.rows, matrix.columns), 1, "values"), _fp8_scale(matrix, scheme)]
    if scheme.static_activation:
        shape = () if matrix.experts is not None else (matrix.parts,)
        found.append(matrix.tensor("input_scale", shape, 4, "scalars"))
    if scheme.method == "fbgemm_fp8":
        found.append(matrix.tensor("input_scale_ub", (), 4, "scalars"))
    return tuple(found)


def _fp8_scale(matrix: Matrix, scheme: Scheme) -> RankTensor:
    flat = scheme.method == "modelopt" and matrix.experts is None
    if scheme.block is not None:
        return _block_scale(matrix, scheme, scheme.block)
    if scheme.strategy == "channel":
        return matrix.tensor("weight_scale", (matrix.rows,) if flat else (matrix.rows, 1), 4, "scales")
    if scheme.method == "online":
        return matrix.tensor("weight_scale", () if matrix.experts is not None else (1,), 4, "scalars")
    return matrix.scalars("weight_scale")


def _block_scale(matrix: Matrix, scheme: Scheme, block: tuple[int, int]) -> RankTensor:
    if matrix.experts is not None:
        block = _refined(matrix, block) if scheme.method == "fp8" else block
    columns = -(-matrix.columns // block[1])
    if matrix.experts is not None:
        rows = matrix.parts * -(-(matrix.rows // matrix.parts) // block[0])
        name = "weight_scale" if scheme.method == "compressed-tensors" else "weight_scale_inv"
        return matrix.tensor(name, (rows, columns), scheme.scale_bytes, "scales")
    rows = -(-matrix.rows // block[0])
    if scheme.method == "modelopt":
        return matrix.tensor("weight_scale", (rows, 1, columns, 1), scheme.scale_bytes, "scales")
    name = "weight_scale" if scheme.method == "compressed-tensors" else "weight_scale_inv"
    return matrix.tensor(name, (rows, columns), scheme.scale_bytes, "scales")


def _refined(matrix: Matrix, block: tuple[int, int]) -> tuple[int, int]:
    """Split the blocks of expert scales where a rank's share of an expert cuts them (since 0.31).

    vLLM 0.32.0: fused_moe/oracle/fp8.py::refine_fp8_moe_block_shape; older engines refuse such a layout.
    """
    inner, hidden = matrix.rows // matrix.parts, matrix.columns
    if matrix.which == "w2_":
        inner, hidden = matrix.columns, matrix.rows
    common = gcd(*block, inner, hidden)
    aligned = inner % block[0] == 0 and inner % block[1] == 0
    return block if aligned or common < 32 else (common, common)


def _nvfp4(matrix: Matrix, scheme: Scheme) -> tuple[RankTensor, ...]:
    ours = scheme.method == "compressed-tensors"
    packed, scale = (matrix.rows, matrix.columns // 2), (matrix.rows, _groups(matrix, scheme))
    found = (
        matrix.tensor("weight_packed" if ours else "weight", packed, 1, "values"),
        matrix.tensor("weight_scale", scale, 1, "scales"),
        matrix.scalars("weight_global_scale" if ours else "weight_scale_2"),
    )
    if ours:
        known = scheme.activation is not None or matrix.experts is not None
        return (*found, matrix.scalars("input_global_scale")) if known else found
    if scheme.activation is None and matrix.experts is None:
        return (*found, matrix.tensor("input_scale", (matrix.parts,), None, "placeholder"))
    return (*found, matrix.scalars("input_scale"))


def _micro_scaled(matrix: Matrix, name: str, values_per_byte: int) -> tuple[RankTensor, ...]:
    return (
        matrix.tensor(name, (matrix.rows, matrix.columns // values_per_byte), 1, "values"),
        matrix.tensor("weight_scale", (matrix.rows, matrix.columns // 32), 1, "scales"),
    )
