"""Method `compressed-tensors`: groups of targets, each with formats for weights and activations.

vLLM: layers/quantization/compressed_tensors/ (0.32.0): `should_ignore_layer`, `find_matched_target` and
`_get_scheme_from_parts` decide in this order. What they do not know ends in a refusal here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stowage.model.config_fields import BadField, mapping, word
from stowage.model.quantization.module_names import ModuleNames, Patterns, equals_or_regex
from stowage.model.quantization.rules import QuantizationRules
from stowage.model.quantization.settings import QuantizationSettings, UnsupportedQuantization, names
from stowage.model.tensors import Scheme

_METHOD = "compressed-tensors"
_ACTIVATION_FORMATS = ("naive-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized")


@dataclass(frozen=True)
class _Numbers:
    """How one operand is quantised (compressed-tensors: QuantizationArgs with its defaults)."""

    bits: int
    kind: str
    strategy: str
    group_size: int | None
    block: tuple[int, int] | None
    symmetric: bool
    dynamic: bool

    @property
    def fp8(self) -> bool:
        return self.kind == "float" and self.bits == 8

    @property
    def nvfp4(self) -> bool:
        packed = self.kind == "float" and self.bits == 4 and self.symmetric
        return packed and self.strategy == "tensor_group" and self.group_size == 16


def read_compressed_tensors(settings: QuantizationSettings) -> QuantizationRules:
    """Read `config_groups` and `ignore`; `kv_cache_scheme` makes the KV cache fp8."""
    fields = settings.fields
    if mapping(fields, "sparsity_config").get("targets"):
        raise UnsupportedQuantization(
            "Sparse checkpoints of compressed-tensors are not loaded by the engine."
        )
    targets = _targets(fields)
    if not targets:
        raise UnsupportedQuantization("The compressed-tensors block has no config_groups with targets.")
    ignored = Patterns(names(fields, "ignore"), equals_or_regex)

    def scheme_of(module: ModuleNames) -> Scheme | None:
        if ignored.list_module(module):
            return None
        return _matched(module, targets)

    return QuantizationRules(_METHOD, scheme_of, _kv_cache_dtype(mapping(fields, "kv_cache_scheme")))


def _targets(fields: Mapping[str, Any]) -> dict[str, Scheme]:
    found: dict[str, Scheme] = {}
    overall = word(fields, "format") or ""
    for group in mapping(fields, "config_groups").values():
        if not isinstance(group, Mapping):
            raise BadField(f"The quantisation block has a config group {group!r}; it must be an object.")
        named = names(group, "targets")
        if len(named) == 1 and named[0].endswith("Attention"):
            continue
        scheme = _scheme(group, word(group, "format") or overall)
        found.update(dict.fromkeys(named, scheme))
    return found


def _matched(module: ModuleNames, targets: Mapping[str, Scheme]) -> Scheme | None:
    for target, scheme in targets.items():
        if equals_or_regex(target, module.module):
            return scheme
    matches = [_first(part, targets) for part in module.parts]
    if matches and None not in matches:
        return matches[0]
    by_kind = "linear" if module.role != "head" else "parallellmhead"
    for target, scheme in targets.items():
        if (
            not target.startswith("re:")
            and "." not in target
            and target.lower() in (by_kind, "routedexperts")
        ):
            return scheme
    return None


def _first(part: Sequence[str], targets: Mapping[str, Scheme]) -> Scheme | None:
    for target, scheme in targets.items():
        if any(equals_or_regex(target, name) for name in part):
            return scheme
    return None


def _scheme(group: Mapping[str, Any], form: str) -> Scheme:
    weights, inputs = _numbers(group, "weights"), _numbers(group, "input_activations")
    if weights is None:
        raise UnsupportedQuantization(
            "A config group of compressed-tensors does not say how weights are stored."
        )
    found = _float_scheme(weights, inputs) if weights.kind == "float" else _int_scheme(weights, inputs, form)
    if found is None or group.get("output_activations"):
        shown = f"{weights.bits}-bit {weights.kind} by {weights.strategy}"
        raise UnsupportedQuantization(f"compressed-tensors weights as {shown} in {form!r} are not sized.")
    return found


def _float_scheme(weights: _Numbers, inputs: _Numbers | None) -> Scheme | None:
    if weights.nvfp4:
        if inputs is not None and not inputs.nvfp4:
            return None
        return Scheme(_METHOD, "nvfp4", "group", 16, activation="nvfp4" if inputs else None)
    if weights.strategy == "group" and weights.group_size == 32 and weights.symmetric:
        activation = None if inputs is None else f"{inputs.kind}{inputs.bits}"
        if weights.bits in (4, 8):
            return Scheme(_METHOD, f"mxfp{weights.bits}", "group", 32, activation=activation)
    if not weights.fp8 or not weights.symmetric or weights.strategy not in ("tensor", "channel", "block"):
        return None
    static = inputs is not None and not inputs.dynamic
    return Scheme(
        _METHOD,
        "fp8",
        weights.strategy,
        block=weights.block,
        activation="fp8" if inputs else None,
        static_activation=static,
    )


def _int_scheme(weights: _Numbers, inputs: _Numbers | None, form: str) -> Scheme | None:
    grouped = weights.strategy in ("group", "channel")
    if inputs is None:
        if form != "pack-quantized" or not grouped or weights.dynamic:
            return None
        return Scheme(
            _METHOD,
            f"int{weights.bits}",
            weights.strategy,
            group_size=weights.group_size if weights.strategy == "group" else None,
            zero_point=not weights.symmetric,
        )
    int8 = weights.bits == inputs.bits == 8 and weights.symmetric and inputs.kind == "int"
    if form not in _ACTIVATION_FORMATS or not int8 or weights.strategy not in ("tensor", "channel"):
        return None
    static = not inputs.dynamic
    return Scheme(
        _METHOD,
        "int8",
        weights.strategy,
        activation="int8",
        static_activation=static,
        zero_point=static and not inputs.symmetric,
    )


def _numbers(group: Mapping[str, Any], key: str) -> _Numbers | None:
    fields = mapping(group, key)
    if not fields:
        return None
    if fields.get("actorder") in ("group", "dynamic"):
        raise UnsupportedQuantization(
            "compressed-tensors with group activation ordering is not loaded by the engine any more."
        )
    group_size, block = fields.get("group_size"), fields.get("block_structure")
    bits = fields.get("num_bits", 8)
    sizes = [
        bits,
        *([group_size] if group_size is not None else []),
        *(block if isinstance(block, list) else []),
    ]
    if not all(type(size) is int for size in sizes) or (block is not None and len(sizes) < 3):
        raise BadField(f"The quantisation block has {key} with sizes that are not whole numbers: {sizes!r}.")
    return _Numbers(
        bits=bits,
        kind=word(fields, "type") or "int",
        strategy=word(fields, "strategy") or _default_strategy(group_size),
        group_size=group_size,
        block=(block[0], block[1]) if isinstance(block, list) else None,
        symmetric=fields.get("symmetric") is not False,
        dynamic=bool(fields.get("dynamic")),
    )


def _default_strategy(group_size: int | None) -> str:
    if group_size is None:
        return "tensor"
    return "group" if group_size > 0 else "channel"


def _kv_cache_dtype(scheme: Mapping[str, Any]) -> str | None:
    if not scheme:
        return None
    if scheme.get("type") != "float" or scheme.get("num_bits") != 8 or scheme.get("symmetric") is False:
        raise UnsupportedQuantization(
            f"The checkpoint asks for a KV cache of {scheme.get('num_bits')}-bit {scheme.get('type')}; "
            "the engine takes 8-bit float only."
        )
    return "fp8"
