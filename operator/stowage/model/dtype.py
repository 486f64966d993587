"""Number formats of weights: one spelling for each, and its size.

config.json, the engine's options and safetensors headers spell the same format differently; everything
behind this file uses torch's names. Packed and scaled formats (fp8, int4, mxfp4 …) are no business of this
file: they are layouts, not element types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ELEMENT_BYTES: Final[Mapping[str, int]] = {"bfloat16": 2, "float16": 2, "float32": 4}
"""Bytes of one element of the formats that weights are run in."""

_SPELLINGS: Final[Mapping[str, str]] = {
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
    "f16": "float16",
    "half": "float16",
    "float32": "float32",
    "fp32": "float32",
    "f32": "float32",
    "float": "float32",
}


def element_type(spelling: str) -> str | None:
    """Give torch's name for any usual spelling (`torch.bfloat16`, `BF16`, `half` …), else None."""
    return _SPELLINGS.get(spelling.removeprefix("torch.").lower())
