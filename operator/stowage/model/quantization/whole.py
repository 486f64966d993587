"""Methods `mxfp4` (gpt-oss: experts only) and `bitsandbytes` (4-bit blocks, older engines).

vLLM: layers/quantization/mxfp4.py (0.32.0), bitsandbytes.py and model_loader/bitsandbytes_loader.py (last in
0.27).
"""

from __future__ import annotations

from stowage.model.config_fields import flag, word
from stowage.model.quantization.module_names import ModuleNames, Patterns, component_or_prefix
from stowage.model.quantization.rules import QuantizationRules
from stowage.model.quantization.settings import QuantizationSettings, UnsupportedQuantization, names
from stowage.model.tensors import Scheme


def read_mxfp4(_: QuantizationSettings) -> QuantizationRules:
    """Read a checkpoint whose experts are MXFP4: 4-bit floats with a power-of-two scale for 32 inputs."""
    scheme = Scheme("mxfp4", "mxfp4", "group", 32)

    def scheme_of(module: ModuleNames) -> Scheme | None:
        return scheme if module.role == "experts" else None

    return QuantizationRules("mxfp4", scheme_of)


def read_bitsandbytes(settings: QuantizationSettings) -> QuantizationRules:
    """Read a checkpoint of bitsandbytes: blocks of 64 values, scales in fp32 or quantised themselves."""
    fields = settings.fields
    if flag(fields, "load_in_8bit") or flag(fields, "_load_in_8bit"):
        raise UnsupportedQuantization("bitsandbytes with 8 bits is not sized; 4-bit checkpoints are.")
    kind = word(fields, "bnb_4bit_quant_type") or "fp4"
    scheme = Scheme(
        "bitsandbytes", kind, "group", 64, double_quantized=flag(fields, "bnb_4bit_use_double_quant")
    )
    skipped = Patterns(names(fields, "llm_int8_skip_modules"), component_or_prefix)

    def scheme_of(module: ModuleNames) -> Scheme | None:
        if module.role == "head" or skipped.list_module(module):
            return None
        return scheme

    return QuantizationRules("bitsandbytes", scheme_of)
