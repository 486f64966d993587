"""Which kernel serves a quantised weight, and the tensors that are on the device once it is loaded.

The choice is a look-up in `quantized/kernels.toml` by layout, role, compute capability and release; the
formulas are in `effects`. Without a matching row tensors stay as the engine created them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from stowage.memory.device import DeviceMemory
from stowage.memory.quantized.effects import EFFECTS, Loaded, expert_bias
from stowage.memory.quantized.tensors import Matrix, RankTensor, created_tensors, matrix_of
from stowage.memory.release.engine_version import EngineVersion, Release, release_numbers
from stowage.model.profile import ModelProfile
from stowage.model.tensors import ParameterTensor, Scheme


@dataclass(frozen=True, slots=True)
class Kernels:
    """What decides on kernels: ten times the compute capability (90 for 9.0), and the engine's release.

    `multimodal_rope_factor` is that release's, see `EngineVersion`.
    """

    capability: int
    release: Release
    multimodal_rope_factor: int = 1


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One row of the table; see its head for the meaning of the fields."""

    name: str
    weights: tuple[str, ...]
    role: str
    capability: tuple[int, int]
    effect: str
    since: Release | None
    until: Release | None
    align: tuple[int, int]
    methods: tuple[str, ...]
    strategies: tuple[str, ...]
    activations: tuple[str, ...]
    group_sizes: tuple[int, ...]
    rows_multiple: int
    columns_multiple: int


def kernels_of(device: DeviceMemory, version: EngineVersion) -> Kernels | None:
    """Give what chooses kernels on a GPU; None on CPU nodes, whose tensors stay as created."""
    release = release_numbers(version.version)
    if device.is_cpu or release is None:
        return None
    major, minor = device.compute_capability
    return Kernels(10 * major + minor, release, version.multimodal_rope_factor)


def quantized_tensors(
    tensor: ParameterTensor, shape: tuple[int, ...], kernels: Kernels | None
) -> tuple[RankTensor, ...]:
    """Give what a quantised weight, or a bias of quantised experts, becomes on a rank where it has `shape`."""
    linear = tensor.linear
    if linear is None or linear.scheme is None:
        raise ValueError(f"{tensor.name} is not quantised")
    if tensor.name.endswith("_bias"):
        return (_bias(RankTensor(tensor.name, shape, tensor.element_bytes, "bias"), linear.scheme, kernels),)
    matrix = matrix_of(tensor.name, linear, shape)
    row = chosen_kernel(matrix, linear.scheme, kernels)
    if row is None:
        return created_tensors(matrix, linear.scheme)
    return EFFECTS[row.effect](Loaded(matrix, linear.scheme, row.align))


def chosen_kernel(matrix: Matrix, scheme: Scheme, kernels: Kernels | None) -> KernelRow | None:
    """Give the row of the kernel that serves a matrix; None where tensors stay as created."""
    if kernels is None:
        return None
    role = "linear" if matrix.experts is None else "experts"
    return next((row for row in _rows() if _serves(row, role, scheme, kernels) and _fits(row, matrix)), None)


def _bias(bias: RankTensor, scheme: Scheme, kernels: Kernels | None) -> RankTensor:
    if kernels is None:
        return bias
    for row in _rows():
        if _serves(row, "experts", scheme, kernels):
            return expert_bias(bias, row.effect, row.align)
    return bias


def _serves(row: KernelRow, role: str, scheme: Scheme, kernels: Kernels) -> bool:
    if row.role != role or scheme.weight not in row.weights:
        return False
    if not row.capability[0] <= kernels.capability <= row.capability[1]:
        return False
    if (row.since and kernels.release < row.since) or (row.until and kernels.release >= row.until):
        return False
    asked = (
        (row.methods, scheme.method),
        (row.strategies, scheme.strategy),
        (row.activations, scheme.activation),
    )
    if any(known and value not in known for known, value in asked):
        return False
    return not row.group_sizes or scheme.group_size is None or scheme.group_size in row.group_sizes


def _fits(row: KernelRow, matrix: Matrix) -> bool:
    return matrix.rows % row.rows_multiple == 0 and matrix.columns % row.columns_multiple == 0


@cache
def _rows() -> tuple[KernelRow, ...]:
    text = files("stowage.memory.quantized").joinpath("kernels.toml").read_text(encoding="utf-8")
    return tuple(_row(fields) for fields in tomllib.loads(text)["kernel"])


def _row(fields: Mapping[str, Any]) -> KernelRow:
    since, until = fields.get("since"), fields.get("until")
    return KernelRow(
        name=fields["name"],
        weights=tuple(fields["weights"]),
        role=fields["role"],
        capability=(fields["capability"][0], fields["capability"][1]),
        effect=fields["effect"],
        since=release_numbers(since) if since else None,
        until=release_numbers(until) if until else None,
        align=tuple(fields.get("align", (1, 1))),
        methods=tuple(fields.get("methods", ())),
        strategies=tuple(fields.get("strategies", ())),
        activations=tuple(fields.get("activations", ())),
        group_sizes=tuple(fields.get("group_sizes", ())),
        rows_multiple=fields.get("rows_multiple", 1),
        columns_multiple=fields.get("columns_multiple", 1),
    )


_SCALES: Final = ("q_scale", "k_scale", "v_scale", "prob_scale")
_SCALES_AND_ZEROS: Final = ("k_scale", "v_scale", "q_scale", "k_zero_point", "v_zero_point", "q_zero_point")
_LATENT_TOO: Final = frozenset({"modelopt", "modelopt_fp4", "modelopt_mxfp8"})
_WITH_PLACEHOLDERS: Final = _LATENT_TOO | {"compressed-tensors", "fp8", "modelopt_mixed"}


def cache_scale_placeholders(tensor: ParameterTensor, profile: ModelProfile) -> tuple[RankTensor, ...]:
    """Give the parameters that attention creates to load scales of the KV cache into; gone after loading.

    They come with the buffer `_k_scale` of each attention layer (vLLM 0.32.0: quantization/kv_cache.py and
    CompressedTensorsKVCacheMethod).
    """
    method = profile.quantization
    if method not in _WITH_PLACEHOLDERS or not tensor.name.endswith("._k_scale"):
        return ()
    if method == "modelopt_mixed" and profile.kv_cache_dtype is None:
        return ()
    if ".mla_attn." in tensor.name and method not in _LATENT_TOO:
        return ()
    prefix = tensor.name.removesuffix("_k_scale")
    if method != "compressed-tensors":
        return tuple(RankTensor(f"{prefix}{name}", (), None, "placeholder") for name in _SCALES)
    return tuple(
        RankTensor(f"{prefix}{name}", (1,), 4 if name.endswith("scale") else None, "placeholder")
        for name in _SCALES_AND_ZEROS
    )
