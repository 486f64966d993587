"""Adapter slots: what an engine sets aside for LoRA weights when it starts, whether or not any is loaded.

Every linear layer gets, for each slot, a matrix A of rank × inputs for each module fused in it and a matrix B of
outputs × rank (vllm/lora/layers: base_linear.py, column_parallel_linear.py, row_parallel_linear.py,
logits_processor.py; 0.32.0). The log counts them as weights.
"""

from __future__ import annotations

from functools import lru_cache

from stowage.memory.layout import RankLayout
from stowage.memory.pipeline import stage_layers
from stowage.memory.shape import LoraSettings
from stowage.memory.sharding import rank_shape
from stowage.model.profile import ModelProfile
from stowage.model.tensors import ParameterTensor

_ELEMENT_BYTES = 2
"""Adapters are kept in the model's 16-bit dtype (`lora_dtype: auto`)."""


@lru_cache(maxsize=512)
def lora_bytes(profile: ModelProfile, layout: RankLayout, lora: LoraSettings) -> int:
    """Give the bytes of all adapter slots on a rank."""
    here = stage_layers(profile.num_layers, layout.pipeline_parallel_size)[layout.stage]
    per_rank = sum(
        _elements_per_rank(tensor, layout) for number in here for tensor in profile.layers[number].tensors
    )
    if layout.is_last:
        per_rank += profile.hidden_size + profile.padded_vocab_size
    return per_rank * lora.max_lora_rank * lora.max_loras * _ELEMENT_BYTES


def _elements_per_rank(tensor: ParameterTensor, layout: RankLayout) -> int:
    if tensor.linear is None or tensor.linear.role != "linear" or len(tensor.shape) != 2:
        return 0
    rows, columns = rank_shape(tensor, layout)
    return len(tensor.linear.out_sizes) * columns + rows
