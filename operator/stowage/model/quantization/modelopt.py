"""Method `modelopt`: FP8, NVFP4 and MXFP8 of NVIDIA's ModelOpt, for all modules or a layout per layer.

vLLM: layers/quantization/modelopt.py (0.32.0). Modules are left out by wildcards; the head is quantised
unless it is left out; MIXED_PRECISION lists every quantised module in `quantized_layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.config_fields import mapping
from stowage.model.quantization.module_names import ModuleNames, Wildcards
from stowage.model.quantization.rules import QuantizationRules
from stowage.model.quantization.settings import (
    QuantizationSettings,
    UnsupportedQuantization,
    inner_fields,
    names,
)
from stowage.model.tensors import Scheme

_ENGINE_NAMES: Final[Mapping[str, str]] = {
    "FP8": "modelopt",
    "FP8_PER_CHANNEL_PER_TOKEN": "modelopt",
    "FP8_PB_WO": "modelopt",
    "NVFP4": "modelopt_fp4",
    "W4A16_NVFP4": "modelopt_fp4",
    "MXFP8": "modelopt_mxfp8",
    "MIXED_PRECISION": "modelopt_mixed",
}
_KV_CACHE: Final[Mapping[str, str]] = {"fp8": "fp8_e4m3", "nvfp4": "nvfp4"}
_NEVER: Final = ("vision_tower", "vision_model", "vit_large_projector")


def read_modelopt(settings: QuantizationSettings) -> QuantizationRules:
    """Read the algorithm, the modules that are left out and the precision of the KV cache."""
    fields = inner_fields(settings)
    algorithm = str(fields.get("quant_algo") or "").upper()
    if algorithm not in _ENGINE_NAMES:
        raise UnsupportedQuantization(
            f"The checkpoint is quantised by ModelOpt's {algorithm or 'unnamed algorithm'}, which is not sized."
        )
    excluded = Wildcards((*names(fields, "exclude_modules", "ignore"), *_NEVER))
    layers = mapping(fields, "quantized_layers")
    weight_only = algorithm == "NVFP4" and _no_activations(settings.fields)

    def scheme_of(module: ModuleNames) -> Scheme | None:
        if excluded.list_module(module):
            return None
        if algorithm != "MIXED_PRECISION":
            return _scheme("W4A16_NVFP4" if weight_only else algorithm, fields)
        own = _own_algorithm(module, layers)
        return None if own is None else _scheme(own, fields)

    return QuantizationRules(_ENGINE_NAMES[algorithm], scheme_of, _kv_cache_dtype(settings.fields, fields))


def read_mxfp8(settings: QuantizationSettings) -> QuantizationRules:
    """Read a checkpoint whose method is plainly called mxfp8: the layout is that of ModelOpt's MXFP8."""
    fields = inner_fields(settings)
    listed = names(fields, "ignored_layers", "exclude_modules", "ignore")
    ignored = Wildcards((*listed, *_NEVER))

    def scheme_of(module: ModuleNames) -> Scheme | None:
        return None if ignored.list_module(module) else _scheme("MXFP8", fields)

    return QuantizationRules("modelopt_mxfp8", scheme_of)


def _scheme(algorithm: str, fields: Mapping[str, Any]) -> Scheme:
    group_size = fields.get("group_size") or 16
    match algorithm:
        case "FP8":
            return Scheme("modelopt", "fp8", "tensor", activation="fp8", static_activation=True)
        case "FP8_PER_CHANNEL_PER_TOKEN":
            return Scheme("modelopt", "fp8", "channel", activation="fp8")
        case "FP8_PB_WO" | "FP8_BLOCK_SCALES":
            return Scheme("modelopt", "fp8", "block", block=(128, 128), activation="fp8")
        case "NVFP4":
            return Scheme(
                "modelopt", "nvfp4", "group", group_size, activation="nvfp4", static_activation=True
            )
        case "W4A16_NVFP4":
            return Scheme("modelopt", "nvfp4", "group", group_size)
        case "MXFP8":
            return Scheme("modelopt", "mxfp8", "group", 32, activation="mxfp8")
    raise UnsupportedQuantization(f"A module is quantised by ModelOpt's {algorithm}, which is not sized.")


def _own_algorithm(module: ModuleNames, layers: Mapping[str, Any]) -> str | None:
    """Find a module's algorithm: by its name or its parts', else by anything below it."""
    found = {
        str(mapping(layers, name).get("quant_algo")).upper() for name in module.all_names if name in layers
    }
    if not found and module.role == "experts":
        above = tuple(f"{name.rpartition('.experts')[0]}." for name in module.all_names)
        below = tuple(f"{name.rpartition('.experts')[0]}.experts." for name in module.all_names)
        found = _algorithms_below(layers, below) or _algorithms_below(layers, above)
    if len(found) > 1:
        raise UnsupportedQuantization(f"Parts of {module.module} have different layouts: {sorted(found)}.")
    return found.pop() if found else None


def _algorithms_below(layers: Mapping[str, Any], prefixes: tuple[str, ...]) -> set[str]:
    for name in layers:
        if name.startswith(prefixes):
            return {str(mapping(layers, name).get("quant_algo")).upper()}
    return set()


def _no_activations(fields: Mapping[str, Any]) -> bool:
    groups = mapping(fields, "config_groups")
    return bool(groups) and all(
        isinstance(group, Mapping) and group.get("input_activations") is None for group in groups.values()
    )


def _kv_cache_dtype(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> str | None:
    """Follow vLLM's get_kv_cache_quant_algo_string; what is not known there leaves the cache as it is."""
    scheme = inner.get("kv_cache_scheme") or outer.get("kv_cache_scheme")
    if isinstance(scheme, Mapping):
        if scheme.get("type") != "float":
            return None
        if scheme.get("num_bits") == 8 and scheme.get("dynamic") is False:
            return _KV_CACHE["fp8"]
        return _KV_CACHE["nvfp4"] if scheme.get("num_bits") == 4 else None
    algorithm = scheme or inner.get("kv_cache_quant_algo") or outer.get("kv_cache_quant_algo")
    return _KV_CACHE.get(str(algorithm).lower())
