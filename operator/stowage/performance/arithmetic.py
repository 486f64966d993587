"""Which number format a weight is multiplied in on a GPU, and the peak that holds for it.

What is stored in few bits is not computed in few bits: weight-only formats are widened to 16 bits first, and so
are formats that the matrix units of a GPU lack.
"""

from __future__ import annotations

from enum import StrEnum

from stowage.hardware.gpu import Gpu
from stowage.model.tensors import Scheme

_MICRO_SCALED_SINCE = (10, 0)


class Arithmetic(StrEnum):
    """Formats that matrix units multiply in."""

    SIXTEEN_BIT = "16-bit"
    FP8 = "fp8"
    INT8 = "int8"
    FP4 = "fp4"


def arithmetic_of(scheme: Scheme | None, gpu: Gpu) -> Arithmetic:
    """Give the format that a weight of this layout is multiplied in.

    MXFP4 experts take MXFP8 activations where the GPU has scaled matrix units (vLLM's FlashInfer kernels for
    compute capability 10), else 16-bit ones. INT8 kernels ended with compute capability 9.
    """
    if scheme is None:
        return Arithmetic.SIXTEEN_BIT
    if scheme.weight == "mxfp4" and (10, 0) <= gpu.compute_capability < (11, 0):
        return Arithmetic.FP8
    wanted = scheme.activation or ""
    if wanted.startswith(("fp8", "mxfp8")) and gpu.fp8_flops is not None:
        return Arithmetic.FP8
    if wanted.startswith(("nvfp4", "fp4", "mxfp4")) and gpu.fp4_flops is not None:
        return Arithmetic.FP4
    if (
        wanted.startswith("int8")
        and gpu.int8_ops is not None
        and gpu.compute_capability < _MICRO_SCALED_SINCE
    ):
        return Arithmetic.INT8
    return Arithmetic.SIXTEEN_BIT


def peak_flops(arithmetic: Arithmetic, gpu: Gpu) -> float:
    """Give the dense peak of a GPU in a format, in operations per second."""
    wide = float(gpu.bf16_flops or gpu.fp16_flops)
    match arithmetic:
        case Arithmetic.FP8:
            return float(gpu.fp8_flops or wide)
        case Arithmetic.FP4:
            return float(gpu.fp4_flops or wide)
        case Arithmetic.INT8:
            return float(gpu.int8_ops or wide)
    return wide


def is_widened(scheme: Scheme | None, arithmetic: Arithmetic) -> bool:
    """Whether ordinary units widen each element of a weight before the matrix units can take it."""
    if scheme is None or arithmetic is not Arithmetic.SIXTEEN_BIT:
        return False
    return scheme.weight not in ("bf16", "fp16")
