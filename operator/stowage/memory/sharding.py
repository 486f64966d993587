"""What one rank holds of a tensor.

Rules of vllm/model_executor/layers: linear.py, vocab_parallel_embedding.py and fused_moe/layer.py (0.32.0).
"""

from __future__ import annotations

from math import prod

from stowage.memory.layout import RankLayout
from stowage.model.tensors import ParameterTensor, QkvHeads, Shard


def rank_elements(tensor: ParameterTensor, layout: RankLayout) -> int:
    """Give the number of elements on one rank; the layout must have passed `constraints`."""
    return prod(rank_shape(tensor, layout))


def rank_shape(tensor: ParameterTensor, layout: RankLayout) -> tuple[int, ...]:
    """Give the shape on one rank, with the padding and replication that the engine applies."""
    shape, ranks = tensor.shape, layout.tensor_parallel_size
    match tensor.shard:
        case Shard.COLUMNS:
            return (shape[0] // ranks, *shape[1:])
        case Shard.ROWS:
            return (shape[0], shape[1] // ranks, *shape[2:])
        case Shard.VOCABULARY:
            return ((shape[0] + 63) // 64 * 64 // ranks, *shape[1:])
        case Shard.HEADS if tensor.heads is not None:
            return (qkv_rows(tensor.heads, ranks), *shape[1:])
        case Shard.EXPERTS | Shard.EXPERT_COLUMNS | Shard.EXPERT_ROWS:
            return _expert_shape(tensor, layout)
    return shape


def _expert_shape(tensor: ParameterTensor, layout: RankLayout) -> tuple[int, ...]:
    number, *inner = tensor.shape
    if layout.expert_parallel:
        return (-(-number // layout.expert_ranks), *inner)
    if tensor.shard is Shard.EXPERT_COLUMNS:
        return (number, inner[0] // layout.expert_ranks, *inner[1:])
    if tensor.shard is Shard.EXPERT_ROWS:
        return (number, inner[0], inner[1] // layout.expert_ranks, *inner[2:])
    return tensor.shape


def qkv_rows(heads: QkvHeads, tensor_parallel_size: int) -> int:
    """Give the rows of a fused query/key/value projection on one rank."""
    query = heads.num_heads // tensor_parallel_size * heads.head_dim * heads.query_factor
    key_value = kv_heads_on_rank(heads.num_kv_heads, tensor_parallel_size)
    return query + key_value * (heads.head_dim + heads.value_dim)


def kv_heads_on_rank(num_kv_heads: int, tensor_parallel_size: int) -> int:
    """Give the key/value heads of one rank: divided while there are enough, then one each, replicated."""
    return max(1, num_kv_heads // tensor_parallel_size)
