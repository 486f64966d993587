"""DeepSeek V4: a block that says fp8, beside experts in another format that only config.json's root names.

`expert_dtype` (absent: "fp4") decides about experts, and `moe_quant_algo` of the block about NVFP4 ones; with
4-bit experts the scales of all other blocks are powers of two, one byte each. Source: vLLM's
models/deepseek_v4/quant_config.py (0.32.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from stowage.model.config_fields import mapping, word
from stowage.model.quantization.module_names import ModuleNames
from stowage.model.quantization.rules import QuantizationRules
from stowage.model.quantization.settings import UnsupportedQuantization
from stowage.model.tensors import Scheme

_FP4: Final = Scheme("mxfp4", "mxfp4", "group", 32)
_NVFP4: Final = Scheme("modelopt", "nvfp4", "group", 16, activation="nvfp4", static_activation=True)


def with_own_experts(rules: QuantizationRules, config: Mapping[str, Any]) -> QuantizationRules:
    """Give the rules with the format of experts that this model type has; others stay as they are."""
    if config.get("model_type") != "deepseek_v4" or rules.method != "fp8":
        return rules
    kind = word(config, "expert_dtype") or "fp4"
    if kind == "fp8":
        return rules
    if kind != "fp4":
        raise UnsupportedQuantization(
            f"config.json says expert_dtype: {kind!r}; the engine takes fp4 and fp8."
        )
    algorithm = word(mapping(config, "quantization_config"), "moe_quant_algo") or ""
    experts, base = _NVFP4 if algorithm.upper() == "NVFP4" else _FP4, rules.scheme_of

    def scheme_of(module: ModuleNames) -> Scheme | None:
        scheme = base(module)
        if scheme is None:
            return None
        return experts if module.role == "experts" else replace(scheme, scale_bytes=1)

    return replace(rules, scheme_of=scheme_of)
