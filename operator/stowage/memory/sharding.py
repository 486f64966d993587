"""What one rank holds of a tensor.

Rules of vllm/model_executor/layers: linear.py, vocab_parallel_embedding.py and fused_moe/layer.py (0.32.0).
"""

from __future__ import annotations

from math import prod

from stowage.memory.layout import RankLayout
from stowage.model.tensors import ParameterTensor, QkvHeads, Shard, StateRows, Tower


def rank_elements(tensor: ParameterTensor, layout: RankLayout) -> int:
    """Give the number of elements on one rank; the layout must have passed `constraints`."""
    return prod(rank_shape(tensor, layout))


def rank_shape(tensor: ParameterTensor, layout: RankLayout) -> tuple[int, ...]:
    """Give the shape on one rank, with the padding and replication that the engine applies."""
    if _is_whole(tensor, layout):
        return tensor.shape
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
        case Shard.STATE_GROUPS if tensor.state_rows is not None:
            return (state_rows_on_rank(tensor.state_rows, ranks), *shape[1:])
        case Shard.EXPERTS | Shard.EXPERT_COLUMNS | Shard.EXPERT_ROWS:
            return _expert_shape(tensor, layout)
    return shape


def _is_whole(tensor: ParameterTensor, layout: RankLayout) -> bool:
    """Tell tensors that this layout does not divide, whatever their rule says."""
    if tensor.whole_in_sequence_parallel and layout.sequence_parallel_experts:
        return True
    return tensor.tower is not None and _is_whole_tower(tensor.tower, layout)


def _is_whole_tower(tower: Tower, layout: RankLayout) -> bool:
    if tower.always_divided:
        return False
    heads = tower.num_heads
    return layout.encoder_data_parallel or (heads is not None and heads % layout.tensor_parallel_size != 0)


def _expert_shape(tensor: ParameterTensor, layout: RankLayout) -> tuple[int, ...]:
    number, *inner = tensor.shape
    if layout.expert_parallel:
        return (-(-number // layout.expert_ranks), *inner)
    if tensor.shard is Shard.EXPERT_COLUMNS:
        return (number, max(inner[0] // layout.expert_ranks, tensor.least_divided), *inner[1:])
    if tensor.shard is Shard.EXPERT_ROWS:
        return (number, inner[0], max(inner[1] // layout.expert_ranks, tensor.least_divided), *inner[2:])
    return tensor.shape


def qkv_rows(heads: QkvHeads, tensor_parallel_size: int) -> int:
    """Give the rows of a fused query/key/value projection on one rank."""
    query = heads.num_heads // tensor_parallel_size * heads.head_dim * heads.query_factor
    key_value = kv_heads_on_rank(heads.num_kv_heads, tensor_parallel_size)
    return query + key_value * (heads.head_dim + heads.value_dim + heads.index_dim) + heads.index_dim


def state_rows_on_rank(rows: StateRows, tensor_parallel_size: int) -> int:
    """Give the rows of a fused state space projection on one rank."""
    groups = max(1, rows.num_groups // tensor_parallel_size)
    return rows.divided_rows // tensor_parallel_size + groups * rows.group_rows


def kv_heads_on_rank(num_kv_heads: int, tensor_parallel_size: int) -> int:
    """Give the key/value heads of one rank: divided while there are enough, then one each, replicated."""
    return max(1, num_kv_heads // tensor_parallel_size)
