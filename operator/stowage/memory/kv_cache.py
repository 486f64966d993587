"""The KV cache: pages, groups, blocks, and what one request takes. Exact arithmetic, no estimates.

Follows vllm/v1/core/kv_cache_utils.py and kv_cache_interface.py. A page is one block of tokens in one
layer; layers of one kind form groups that share block numbers; a block costs the largest group's pages on
this rank. One block of every pool (the null block) is never used, which releases from 0.29 on plan for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stowage.memory.sharding import kv_heads_on_rank
from stowage.model.dtype import ELEMENT_BYTES
from stowage.model.profile import LayerProfile

GPU_BLOCK_SIZE: Final = 16
"""Tokens of a block on GPUs: CacheConfig.DEFAULT_BLOCK_SIZE, kept by the backends of dense models."""

CPU_BLOCK_SIZE: Final = 128
"""Tokens of a block on the CPU backend (platforms/cpu.py)."""

_ELEMENT_BYTES: Final[Mapping[str, int]] = {
    "bfloat16": 2,
    "float16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}


def kv_element_bytes(kv_cache_dtype: str, model_dtype: str) -> int | None:
    """Give the bytes of one cached element under a `--kv-cache-dtype`, or None if it is not sized."""
    if kv_cache_dtype == "auto":
        return ELEMENT_BYTES[model_dtype]
    return _ELEMENT_BYTES.get(kv_cache_dtype)


@dataclass(frozen=True, slots=True)
class KvLayer:
    """What one layer keeps per token on a rank. `window` in tokens; None where every token is kept."""

    num_kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None

    def page_bytes(self, block_size: int, element_bytes: int) -> int:
        """Give the bytes of a block of `block_size` tokens in this layer."""
        return block_size * self.num_kv_heads * (self.key_dim + self.value_dim) * element_bytes


@dataclass(frozen=True, slots=True)
class KvGroup:
    """Layers that share block numbers: one kind of layer, and how many of them."""

    layer: KvLayer
    num_layers: int


def kv_layer(layer: LayerProfile, tensor_parallel_size: int) -> KvLayer:
    """Give the cache specification of a layer on one rank."""
    attention = layer.attention
    if attention is None:
        raise NotImplementedError("layers without attention")
    return KvLayer(
        num_kv_heads=kv_heads_on_rank(attention.num_kv_heads, tensor_parallel_size),
        key_dim=attention.head_dim,
        value_dim=attention.head_dim,
        window=attention.sliding_window,
    )


def group_layers(layers: Sequence[KvLayer]) -> tuple[KvGroup, ...]:
    """Form groups as the engine does for layers of equal page size.

    Each kind is cut into groups of the size of its rarest kind, unless the kinds are nearly even (the largest
    below 1.5 times the smallest), when the largest sets the size and smaller ones are padded.
    """
    kinds = Counter(layers)
    fewest, most = min(kinds.values()), max(kinds.values())
    size = most if most < 1.5 * fewest else fewest
    return tuple(KvGroup(kind, size) for kind, number in kinds.items() for _ in range(-(-number // size)))


@dataclass(frozen=True, slots=True)
class KvPool:
    """The block pool of one rank: what a block costs and what one request needs of it.

    `window_tokens_in_flight` are the tokens that may be scheduled and not yet settled, which a windowed layer
    keeps besides its window. `reserved_blocks` is 1 where the release plans for the null block.
    """

    groups: tuple[KvGroup, ...]
    block_size: int
    element_bytes: int
    window_tokens_in_flight: int
    reserved_blocks: int

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one block over all layers of the rank."""
        return max(
            group.num_layers * group.layer.page_bytes(self.block_size, self.element_bytes)
            for group in self.groups
        )

    @property
    def bytes_per_token(self) -> int:
        """Marginal bytes of one more token in a long request: windowed layers do not grow."""
        growing = [group for group in self.groups if group.layer.window is None] or list(self.groups)
        return sum(g.num_layers * g.layer.page_bytes(1, self.element_bytes) for g in growing)

    def blocks_per_request(self, tokens: int) -> int:
        """Give the blocks that one request of that many tokens takes at most, over all groups."""
        return sum(self._group_blocks(group.layer.window, tokens) for group in self.groups)

    def blocks_needed(self, tokens: int) -> int:
        """Give the blocks that the pool must have to admit one request of that many tokens."""
        return self.blocks_per_request(tokens) + self.reserved_blocks

    def _group_blocks(self, window: int | None, tokens: int) -> int:
        if window is None:
            return -(-tokens // self.block_size)
        kept = min(window - 1 + self.window_tokens_in_flight, tokens)
        return -(-kept // self.block_size) + 1
