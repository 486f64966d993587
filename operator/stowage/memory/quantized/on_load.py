"""Quantising a plain checkpoint while it is loaded: what the model then holds, and what loading needs.

The engine's names of the methods, the releases that have them and their layouts are data
(`quantized/on_load.toml`). A checkpoint that is quantised already is taken as it is when the asked method
is its own, and refused otherwise, as the engine does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.memory.device import DeviceMemory
from stowage.memory.layout import RankLayout
from stowage.memory.release.engine_version import EngineVersion, Release, release_numbers
from stowage.memory.shape import EngineShape
from stowage.memory.weights import rank_weights
from stowage.model.dtype import element_type
from stowage.model.profile import LayerProfile, ModelProfile
from stowage.model.quantization import complete_experts
from stowage.model.shared_layers import shared_layers
from stowage.model.tensors import ParameterTensor, Scheme

_SAME: Final[Mapping[str, frozenset[str]]] = {
    "awq": frozenset({"awq", "awq_marlin", "auto_awq", "marlin"}),
    "gptq": frozenset({"gptq", "gptq_marlin", "auto_gptq", "marlin"}),
    "modelopt": frozenset({"modelopt", "fp8"}),
    "modelopt_fp4": frozenset({"modelopt_fp4", "modelopt", "fp4", "nvfp4"}),
    "modelopt_mixed": frozenset({"modelopt_mixed", "modelopt", "fp4"}),
    "modelopt_mxfp8": frozenset({"modelopt_mxfp8", "modelopt", "mxfp8"}),
    "mxfp4": frozenset({"mxfp4", "gpt_oss_mxfp4"}),
    "inc": frozenset({"inc", "auto-round"}),
}
"""Names under which the engine takes a checkpoint's own method."""


@lru_cache(maxsize=256)
def quantized_on_load(
    profile: ModelProfile, method: str | None, version: EngineVersion
) -> ModelProfile | Refusal:
    """Give the profile as it is held with `--quantization METHOD`, or why the engine would not start.

    The note that is added says what the device needs while the weights are loaded.
    """
    if method is None:
        return profile
    if profile.quantization is not None:
        return profile if method in _names_of(profile.quantization) else _conflict(profile, method)
    release = release_numbers(version.version)
    rows = [row for row in _table() if row["name"] == method]
    row = next((row for row in rows if release is not None and _holds(row, release)), None)
    if row is None:
        return _unknown(method, rows, version)
    return _quantized(profile, row)


def _names_of(method: str) -> frozenset[str]:
    return _SAME.get(method, frozenset({method}))


def _conflict(profile: ModelProfile, method: str) -> Refusal:
    message = (
        f"The checkpoint is quantised by {profile.quantization}; quantization {method!r} contradicts it."
    )
    return Refusal(Reason.PIN_CONFLICT, message, "Leave quantization out.")


def _unknown(method: str, rows: list[dict[str, Any]], version: EngineVersion) -> Refusal:
    known = ", ".join(dict.fromkeys(row["name"] for row in _table()))
    message = f"vLLM {version.version} cannot quantise by {method!r} while it loads."
    hint = next((row["hint"] for row in rows if "hint" in row), None) or f"Methods are {known}."
    return Refusal(Reason.UNSUPPORTED_QUANTIZATION, message, hint)


def _quantized(profile: ModelProfile, row: Mapping[str, Any]) -> ModelProfile:
    @shared_layers
    def converted(layer: LayerProfile) -> LayerProfile:
        tensors = tuple(_converted(tensor, row) for tensor in layer.tensors)
        return replace(layer, tensors=complete_experts(tensors))

    return replace(
        profile,
        layers=tuple(map(converted, profile.layers)),
        draft_layers=tuple(map(converted, profile.draft_layers)),
        outer_tensors=tuple(_converted(tensor, row) for tensor in profile.outer_tensors),
        quantization=row["name"],
        notes=(*profile.notes, _note(row)),
    )


def _converted(tensor: ParameterTensor, row: Mapping[str, Any]) -> ParameterTensor:
    linear = tensor.linear
    role = "linear" if linear is not None and linear.role == "copy" else linear.role if linear else ""
    if linear is None or role not in ("linear", "experts") or row.get(role) is None:
        return tensor
    return replace(tensor, linear=replace(linear, scheme=_scheme(row["name"], row[role])))


def _scheme(name: str, fields: Mapping[str, Any]) -> Scheme:
    block = fields.get("block")
    return Scheme(
        "bitsandbytes" if name == "bitsandbytes" else "online",
        fields["weight"],
        fields["strategy"],
        group_size=fields.get("group_size"),
        block=(block[0], block[1]) if block else None,
        activation="fp8" if fields["weight"] == "fp8" else None,
        double_quantized=fields.get("double_quantized", False),
    )


def _note(row: Mapping[str, Any]) -> str:
    if row["peak"] == "layer":
        return (
            f"Quantising by {row['name']} while loading needs the finished weights and one layer in 16 bits."
        )
    return (
        f"Quantising by {row['name']} while loading first puts the whole model on the device in 16 bits, "
        "which must fit for a moment."
    )


def load_peak_holds_model(method: str, version: EngineVersion) -> bool:
    """Tell whether the whole plain model is on the device before it is quantised."""
    release = release_numbers(version.version)
    return any(
        row["name"] == method and row["peak"] == "model" and release is not None and _holds(row, release)
        for row in _table()
    )


def check_load_peak(
    plain: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> Refusal | None:
    """Refuse a shape whose plain weights do not fit on the device while they wait to be quantised."""
    method = shape.quantization
    if method is None or plain.quantization is not None or not load_peak_holds_model(method, version):
        return None
    dtype = element_type(shape.dtype) or plain.dtype
    peak = max(
        rank_weights(plain, _layout(shape, stage), dtype).tensor_bytes
        for stage in range(shape.pipeline_parallel_size)
    )
    if peak <= device.total_bytes:
        return None
    message = (
        f"vLLM {version.version} quantises by {method!r} only after {peak / 2**30:.1f} GiB of 16-bit weights "
        f"are on the device, and {device.name} has {device.total_bytes / 2**30:.1f} GiB."
    )
    return Refusal(
        Reason.INSUFFICIENT_MEMORY, message, "Use a quantised checkpoint, a newer engine, or more ranks."
    )


def _layout(shape: EngineShape, stage: int) -> RankLayout:
    return RankLayout(
        shape.tensor_parallel_size,
        shape.pipeline_parallel_size,
        stage,
        shape.data_parallel_size,
        shape.enable_expert_parallel,
    )


def _holds(row: Mapping[str, Any], release: Release) -> bool:
    since, until = release_numbers(row.get("since", "0.0.0")), release_numbers(row.get("until", "999.0.0"))
    return since is not None and until is not None and since <= release < until


@cache
def _table() -> tuple[dict[str, Any], ...]:
    text = files("stowage.memory.quantized").joinpath("on_load.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["method"])
