"""Finding out that a checkpoint is quantised, wherever it says so.

Quantised layouts are not sized yet, and a checkpoint that is silently taken for a 16-bit one would be sized
two to four times too large, or be accepted where the engine refuses it. So every place that can say it is
looked at: config.json, the ModelOpt sidecar, and the element types in the headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.model.dtype import element_type
from stowage_runtime.contract import CheckpointSummary

_HINT = "Use the unquantised checkpoint of the model, or a newer version of Stowage."


def quantization_refusal(summary: CheckpointSummary) -> Refusal | None:
    """Refuse a checkpoint that is quantised in any way; None for plain bf16, fp16 and fp32."""
    for name in ("quantization_config", "compression_config"):
        if summary.config.get(name):
            return _refusal(f"{name} in config.json", _method(summary.config[name]))
    if summary.quantization:
        return _refusal("hf_quant_config.json", _method(summary.quantization.get("quantization")))
    for group in summary.tensors:
        if element_type(group.dtype) is None:
            return _refusal(f"tensor {group.pattern}", f"element type {group.dtype}")
    return None


def _method(settings: object) -> str:
    if not isinstance(settings, Mapping):
        return "an unknown method"
    found: Any = settings.get("quant_method") or settings.get("quant_algo")
    return f"method {found}" if found else "an unknown method"


def _refusal(place: str, how: str) -> Refusal:
    message = f"The checkpoint is quantised ({place}: {how}), and its memory is not known to this version."
    return Refusal(Reason.UNSUPPORTED_QUANTIZATION, message, _HINT)
