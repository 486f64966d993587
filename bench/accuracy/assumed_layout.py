"""The layout of quantised weights where a case names one and its config.json states none.

Logs say "AWQ" or "GGUF Q4_K_M" of models whose folder holds the plain configuration. Taking 16-bit weights would be
wrong by a factor; the usual layout of that name is wrong by little, and is said as an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Layout = Mapping[str, Any]

_GPTQ: Final[Layout] = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
_AWQ: Final[Layout] = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
_NVFP4: Final[Layout] = {
    "quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"],
}  # fmt: skip
_FP8: Final[Layout] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
_FP8_BLOCK: Final[Layout] = {**_FP8, "weight_block_size": [128, 128]}
_BITSANDBYTES: Final[Layout] = {
    "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
}  # fmt: skip
_INT8: Final[Layout] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True},
            "input_activations": {
                "num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True,
            },
        }
    },
}  # fmt: skip

_BY_WORD: Final[tuple[tuple[str, Layout, str], ...]] = (
    ("awq", _AWQ, "AWQ in groups of 128"),
    ("nvfp4", _NVFP4, "NVFP4 everywhere but in the head"),
    ("fp4", _NVFP4, "4-bit floats everywhere but in the head"),
    ("bnb", _BITSANDBYTES, "NF4 by bitsandbytes"),
    ("bitsandbytes", _BITSANDBYTES, "NF4 by bitsandbytes"),
    ("block", _FP8_BLOCK, "FP8 in blocks of 128 x 128"),
    ("w8a8", _INT8, "8-bit integers by channel"),
    ("int8", _INT8, "8-bit integers by channel"),
    ("q8", _INT8, "8-bit integers by channel"),
    ("q6", _INT8, "8-bit integers by channel"),
    ("fp8", _FP8, "FP8 by tensor"),
    ("modelopt", _FP8, "FP8 by tensor"),
)
_FOUR_BIT: Final = (_GPTQ, "4-bit integers in groups of 128")


def assumed_layout(method: str, model_id: str) -> tuple[Layout, str]:
    """Give the quantisation block that a name stands for, and how to say it; 4 bits where no word tells.

    The method decides; where it names only a container ("compressed-tensors"), a precision written into the
    model's id does.
    """
    for text in (method.lower(), model_id.lower()):
        for word, layout, said in _BY_WORD:
            if word in text:
                return layout, said
        if any(word in text for word in ("gptq", "w4a16", "int4", "4bit", "4-bit", "gguf", "q4")):
            break
    return _FOUR_BIT
