"""What one tensor-parallel rank holds of a tensor.

Rules of vllm/model_executor/layers: linear.py and vocab_parallel_embedding.py (0.32.0).
"""

from __future__ import annotations

from math import prod

from stowage.model.tensors import ParameterTensor, Shard


def rank_elements(tensor: ParameterTensor, tensor_parallel_size: int) -> int:
    """Give the number of elements on one rank; the size must have passed `constraints.check_parallelism`."""
    return prod(rank_shape(tensor, tensor_parallel_size))


def rank_shape(tensor: ParameterTensor, tensor_parallel_size: int) -> tuple[int, ...]:
    """Give the shape on one rank, with the padding and replication that the engine applies."""
    shape, ranks = tensor.shape, tensor_parallel_size
    if tensor.shard is Shard.COLUMNS:
        return (shape[0] // ranks, *shape[1:])
    if tensor.shard is Shard.ROWS:
        return (shape[0], shape[1] // ranks, *shape[2:])
    if tensor.shard is Shard.VOCABULARY:
        return ((shape[0] + 63) // 64 * 64 // ranks, *shape[1:])
    if tensor.shard is Shard.HEADS and tensor.heads is not None:
        query, key, size = tensor.heads
        return ((query // ranks + 2 * kv_heads_on_rank(key, ranks)) * size, *shape[1:])
    return shape


def kv_heads_on_rank(num_kv_heads: int, tensor_parallel_size: int) -> int:
    """Give the key/value heads of one rank: divided while there are enough, then one each, replicated."""
    return max(1, num_kv_heads // tensor_parallel_size)
