"""Which quantised models an engine release takes on a GPU and in a parallel layout.

Three kinds of rules: the method or layout is not in the release, the GPU's compute capability is too low, or
the matrices of a rank do not fit blocks and groups. An fp8 checkpoint on a GPU without fp8 is not refused:
the engine keeps the weights in 8 bits and computes in 16 (Marlin, weight-only). Tables with sources are in
`quantized/rules.toml`; shapes follow `validate_fp8_block_shape`, `verify_group_size_divides_partition` and
the `create_weights` of each method (vLLM 0.32.0).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.memory.device import DeviceMemory
from stowage.memory.layout import RankLayout
from stowage.memory.quantized.fit import misfit
from stowage.memory.release.engine_version import EngineVersion, Release, release_numbers
from stowage.memory.shape import EngineShape
from stowage.model.dtype import element_type
from stowage.model.profile import ModelProfile
from stowage.model.tensors import ParameterTensor, Scheme

_MAX_SUGGESTED_RANKS: Final = 16


def check_quantization(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> Refusal | None:
    """Give the first rule on quantisation that the shape breaks, or None."""
    release = release_numbers(version.version)
    if profile.quantization is None or release is None:
        return None
    return (
        _check_release(profile, version, release)
        or _check_device(profile, shape, device, release)
        or _check_loading(profile, shape)
        or _check_fit(profile, shape, release)
    )


@lru_cache(maxsize=256)
def schemes_of(profile: ModelProfile) -> tuple[Scheme, ...]:
    """Give the distinct layouts of a profile, in the order of its layers."""
    found = (tensor.linear.scheme for tensor in quantized_matrices(profile) if tensor.linear is not None)
    return tuple(dict.fromkeys(scheme for scheme in found if scheme is not None))


def quantized_matrices(profile: ModelProfile) -> Iterator[ParameterTensor]:
    """Give the quantised weights of the distinct layers and of what stands outside them."""
    for tensors in (profile.outer_tensors, *(layer.tensors for layer in dict.fromkeys(profile.layers))):
        for tensor in tensors:
            if tensor.linear is not None and tensor.linear.scheme is not None and not tensor.after_load:
                yield tensor


def _check_release(profile: ModelProfile, version: EngineVersion, release: Release) -> Refusal | None:
    for row in _table()["method"]:
        if profile.quantization in row["names"] and not _holds(row, release):
            message = f"vLLM {version.version} does not take checkpoints quantised by {profile.quantization}."
            hint = row.get("hint") or f"Use vLLM {row['since']} or newer."
            return Refusal(Reason.UNSUPPORTED_QUANTIZATION, message, hint)
    for row in _table()["layout"]:
        if any(scheme.act_order for scheme in schemes_of(profile)) and not _holds(row, release):
            message = f"vLLM {version.version} does not load {row['what']} any more."
            hint = f"Use a vLLM older than {row['until']}, or a checkpoint without it."
            return Refusal(Reason.UNSUPPORTED_QUANTIZATION, message, hint)
    return None


def _check_device(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, release: Release
) -> Refusal | None:
    if device.is_cpu:
        return None
    major, minor = device.compute_capability
    for scheme in schemes_of(profile):
        least = least_capability(scheme, release)
        if least is not None and 10 * major + minor < least:
            message = (
                f"{device.name} (compute capability {major}.{minor}) cannot run {_called(scheme)} weights "
                f"with this vLLM; they need {least // 10}.{least % 10}."
            )
            return Refusal(Reason.UNSUPPORTED_GPU, message, "Use a newer GPU, or another checkpoint.")
    needs_bf16 = any(scheme.method == "mxfp4" for scheme in schemes_of(profile))
    if needs_bf16 and (element_type(shape.dtype) == "float16" or major < 8):
        message = "MXFP4 weights run with bfloat16 activations only."
        return Refusal(Reason.UNSUPPORTED_DTYPE, message, "Use dtype auto on a GPU of 8.0 or newer.")
    return None


def least_capability(scheme: Scheme, release: Release) -> int | None:
    """Give ten times the least compute capability that a layout needs, None where the table says nothing."""
    found: int | None = None
    for row in _table()["capability"]:
        asked = (("methods", scheme.method), ("weights", scheme.weight), ("strategies", scheme.strategy))
        chosen = all(key not in row or value in row[key] for key, value in asked)
        if chosen and ("activations" not in row or scheme.activation in row["activations"]):
            found = row["least"] if _holds(row, release) else found
    return found


def _check_loading(profile: ModelProfile, shape: EngineShape) -> Refusal | None:
    packed = profile.quantization == "bitsandbytes" and shape.quantization is None
    if not packed or shape.tensor_parallel_size == 1:
        return None
    message = "The engine loads checkpoints quantised by bitsandbytes on one tensor-parallel rank only."
    return Refusal(Reason.INVALID_PARALLELISM, message, "Use TP 1, with pipeline parallel ranks if needed.")


def _check_fit(profile: ModelProfile, shape: EngineShape, release: Release) -> Refusal | None:
    layout = RankLayout(
        shape.tensor_parallel_size, 1, 0, shape.data_parallel_size, shape.enable_expert_parallel
    )
    dtype = element_type(shape.dtype) or profile.dtype
    problem = _misfit(profile, layout, dtype, release)
    if problem is None:
        return None
    return Refusal(Reason.INVALID_PARALLELISM, problem, _what_fits(profile, layout, dtype, release))


@lru_cache(maxsize=4096)
def _misfit(profile: ModelProfile, layout: RankLayout, dtype: str, release: Release) -> str | None:
    for tensor in quantized_matrices(profile):
        problem = misfit(tensor, layout, dtype, release)
        if problem is not None:
            return problem
    return None


def _what_fits(profile: ModelProfile, layout: RankLayout, dtype: str, release: Release) -> str:
    def works(size: int, expert_parallel: bool) -> bool:
        other = RankLayout(size, 1, 0, layout.data_parallel_size, expert_parallel)
        return _misfit(profile, other, dtype, release) is None

    powers = [size for size in (1, 2, 4, 8, _MAX_SUGGESTED_RANKS) if works(size, layout.expert_parallel)]
    tensor = f"TP {', '.join(map(str, powers))}" if powers else ""
    experts = any(tensor.linear and tensor.linear.role == "experts" for tensor in quantized_matrices(profile))
    spread = experts and not layout.expert_parallel and works(layout.tensor_parallel_size, True)
    choices = [choice for choice in (tensor, "enable_expert_parallel" if spread else "") if choice]
    return f"This works with {' or with '.join(choices)}." if choices else "Use another checkpoint."


def _called(scheme: Scheme) -> str:
    return f"{scheme.weight} ({scheme.method})"


def _holds(row: Mapping[str, Any], release: Release) -> bool:
    since, until = release_numbers(row.get("since", "0.0.0")), release_numbers(row.get("until", "999.0.0"))
    return since is not None and until is not None and since <= release < until


@cache
def _table() -> dict[str, Any]:
    text = files("stowage.memory.quantized").joinpath("rules.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
