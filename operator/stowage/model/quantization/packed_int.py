"""Methods `awq`, `gptq` and `auto-round` (`inc`): integers packed into 32-bit words, with group scales.

vLLM: layers/quantization/auto_awq.py, auto_gptq.py, utils/gptq_utils.py, inc/ (0.32.0). AWQ skips modules by
contained text; GPTQ changes single modules by the regular expressions of `dynamic`; auto-round by the exact
names, name endings and regular expressions of `extra_config`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stowage.model.config_fields import BadField, flag, mapping, word
from stowage.model.quantization.module_names import ModuleNames, Patterns, compiled, contained
from stowage.model.quantization.rules import QuantizationRules
from stowage.model.quantization.settings import QuantizationSettings, UnsupportedQuantization, names
from stowage.model.tensors import Scheme


def read_awq(settings: QuantizationSettings) -> QuantizationRules:
    """Read an AWQ checkpoint: 4 bits, a zero point for each group of inputs and each output."""
    fields = settings.fields
    bits = _number(fields, "w_bit", "bits")
    if bits != 4:
        raise UnsupportedQuantization(f"AWQ with {bits} bits is not what the engine takes; it takes 4.")
    scheme = _grouped("awq", bits, _number(fields, "q_group_size", "group_size"), zero_point=True)
    ignored = Patterns(names(fields, "modules_to_not_convert"), contained)
    head = flag(fields, "lm_head")

    def scheme_of(module: ModuleNames) -> Scheme | None:
        skipped = (module.role == "head" and not head) or ignored.list_module(module)
        return None if skipped else scheme

    return QuantizationRules("awq", scheme_of, listed=bool(ignored))


def read_gptq(settings: QuantizationSettings) -> QuantizationRules:
    """Read a GPTQ checkpoint; `dynamic` may leave modules out or give them other bits and groups."""
    fields = settings.fields
    base = _gptq_scheme(fields, {})
    dynamic = mapping(fields, "dynamic")
    quantised = Patterns(names(fields, "modules_in_block_to_quantize"), contained)
    head = flag(fields, "lm_head")

    def scheme_of(module: ModuleNames) -> Scheme | None:
        if (module.role == "head" and not head) or (quantised and not quantised.list_module(module)):
            return None
        for pattern, changes in dynamic.items():
            if any(
                compiled(pattern.removeprefix("-:").removeprefix("+:")).match(name)
                for name in module.all_names
            ):
                return None if pattern.startswith("-:") else _gptq_scheme(fields, changes)
        return base

    return QuantizationRules("gptq", scheme_of, listed=bool(quantised))


def _gptq_scheme(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> Scheme:
    merged = {**fields, **changes}
    bits, group_size = _number(merged, "bits"), _number(merged, "group_size")
    if bits not in (2, 3, 4, 8):
        raise UnsupportedQuantization(f"GPTQ with {bits} bits is not what the engine takes.")
    scheme = _grouped("gptq", bits, group_size, zero_point=not flag(merged, "sym", True))
    return replace(scheme, act_order=flag(merged, "desc_act") and group_size != -1)


def read_auto_round(settings: QuantizationSettings) -> QuantizationRules:
    """Read an auto-round checkpoint of integers, packed as GPTQ or AWQ does."""
    fields = settings.fields
    kind = (word(fields, "data_type") or "int").lower()
    packing = word(fields, "packing_format") or "auto_round:auto_gptq"
    if kind != "int" or packing.rpartition("_")[2] not in ("gptq", "awq"):
        raise UnsupportedQuantization(
            f"auto-round with data_type {kind!r} and packing_format {packing!r} is not sized."
        )
    blocks = fields.get("block_name_to_quantize") or fields.get("to_quant_block_names")
    inside = tuple(blocks.split(",")) if isinstance(blocks, str) else names({"blocks": blocks}, "blocks")
    extra = mapping(fields, "extra_config")

    def scheme_of(module: ModuleNames) -> Scheme | None:
        changes = _extra(module, extra)
        if changes is None:
            if inside and not any(name.startswith(block) for block in inside for name in module.all_names):
                return None
            if not inside and module.role == "head":
                return None
        merged = {**fields, **(changes or {})}
        bits = _number(merged, "bits")
        if bits >= 16:
            return None
        zero_point = not flag(merged, "sym", True)
        if packing.endswith("awq"):
            return _grouped("awq", bits, _number(merged, "group_size"), zero_point=True)
        return _grouped("gptq", bits, _number(merged, "group_size"), zero_point=zero_point)

    return QuantizationRules("inc", scheme_of)


_PATTERN_SIGNS = re.compile(r"[*+?^$()\[\]{}|\\]")


def _extra(module: ModuleNames, extra: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Find what `extra_config` says of a module: by name, by the end of a name, or by a pattern."""
    for key, changes in extra.items():
        if not isinstance(changes, Mapping):
            raise BadField(
                f"The quantisation block says extra_config.{key}: {changes!r}; it must be an object."
            )
        if any(
            name == key or name.endswith(f".{key}") or f"model.{name}" == key for name in module.all_names
        ):
            return changes
    for key, changes in extra.items():
        if _PATTERN_SIGNS.search(key) and any(compiled(key).search(name) for name in module.all_names):
            return dict(changes)
    return None


def _grouped(method: str, bits: int, group_size: int, *, zero_point: bool) -> Scheme:
    if group_size == -1:
        return Scheme(method, f"int{bits}", "channel", zero_point=zero_point)
    return Scheme(method, f"int{bits}", "group", group_size=group_size, zero_point=zero_point)


def _number(fields: Mapping[str, Any], *keys: str) -> int:
    for key in keys:
        value = fields.get(key)
        if value is None:
            continue
        if type(value) is not int or value == 0 or value < -1:
            raise BadField(f"The quantisation block says {key}: {value!r}; it must be a whole number.")
        return value
    raise BadField(f"The quantisation block has no {keys[-1]}, which sizing needs.")
