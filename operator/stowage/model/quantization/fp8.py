"""Methods `fp8` and `fbgemm_fp8`: 8-bit floating point with a scale per tensor, block or channel.

vLLM: layers/quantization/fp8.py, fbgemm_fp8.py, utils/quant_utils.py::is_layer_skipped (0.32.0). Heads and
embeddings stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.model.config_fields import BadField, word
from stowage.model.quantization.module_names import ModuleNames, Patterns, equals
from stowage.model.quantization.rules import QuantizationRules
from stowage.model.quantization.settings import QuantizationSettings, UnsupportedQuantization, names
from stowage.model.tensors import Scheme


def read_fp8(settings: QuantizationSettings) -> QuantizationRules:
    """Read `weight_block_size`, `activation_scheme` and the modules that are left out."""
    fields = settings.fields
    if word(fields, "store_dtype") is not None or word(fields, "expert_dtype") is not None:
        raise UnsupportedQuantization(
            f"The checkpoint mixes fp8 with another format for experts ({settings.place}), which is not sized."
        )
    block, activation = _block(fields), word(fields, "activation_scheme") or "dynamic"
    if activation not in ("dynamic", "static") or (block and activation == "static"):
        raise UnsupportedQuantization(
            f"fp8 with activation_scheme {activation!r} is not what the engine takes."
        )
    scheme = Scheme(
        "fp8",
        "fp8",
        "block" if block else "tensor",
        block=block,
        activation="fp8",
        static_activation=activation == "static",
    )
    return _but_listed("fp8", scheme, names(fields, "ignored_layers", "modules_to_not_convert"))


def read_fbgemm(settings: QuantizationSettings) -> QuantizationRules:
    """Read a checkpoint of fbgemm: a scale per output channel, and an upper bound for activations."""
    scheme = Scheme("fbgemm_fp8", "fp8", "channel", activation="fp8")
    return _but_listed("fbgemm_fp8", scheme, names(settings.fields, "modules_to_not_convert"))


def _but_listed(method: str, scheme: Scheme, listed: tuple[str, ...]) -> QuantizationRules:
    ignored = Patterns(listed, equals)

    def scheme_of(module: ModuleNames) -> Scheme | None:
        if module.role == "head" or ignored.list_module(module):
            return None
        return scheme

    return QuantizationRules(method, scheme_of)


def _block(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    size = fields.get("weight_block_size")
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int and n > 0 for n in size):
        raise BadField(
            f"The quantisation block says weight_block_size: {size!r}; it must be two whole numbers."
        )
    return size[0], size[1]
