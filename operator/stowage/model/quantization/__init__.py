"""Quantised checkpoints: which modules are stored in which layout, wherever the checkpoint says so.

`with_quantization` is the one entrance: it turns a profile of plain floating point into one whose linear
layers carry their `Scheme`, or refuses. What a rank then holds of such a layer is worked out in
`stowage.memory.quantized.tensors`. Nothing here may take an unknown layout for a known one: it would be sized two to
four times wrong, or be accepted where the engine refuses it.
"""

from stowage.model.quantization.apply import complete_experts, with_quantization

__all__ = ["complete_experts", "with_quantization"]
