"""What one layer keeps in the KV cache of a rank: the bytes of a page, and the blocks that a request takes.

A page is one block of tokens in one layer. Kinds differ in what they keep: every token, a window, a chunk, the
encoder's states, one latent vector per token, or a state of fixed size. Follows vllm/v1/kv_cache_interface.py.
Exact arithmetic; nothing here depends on how layers are grouped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from stowage.memory.kv.dtype import KvFormat
from stowage.memory.kv.rules import KvRules
from stowage.memory.kv.state_cache import state_bytes, states_per_request
from stowage.memory.sharding import kv_heads_on_rank
from stowage.model.profile import AttentionProfile, LatentAttentionProfile, LayerProfile, StateProfile

FULL_KINDS: Final = frozenset({"full", "latent", "indexer"})
"""Kinds that keep every token; engines count them as one type."""

_INDEX_SCALE_GROUP: Final = 128
_INDEX_SCALE_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class KvLayer:
    """The cache of one layer on one rank; two layers that are equal may share block numbers.

    `kind` is "full", "window", "chunk", "cross", "latent", "indexer" or "state". `span` is the window, the
    chunk or the encoder's length in tokens. `state_blocks` are the blocks of a state (None: one for every
    block of tokens). `identity` tells layouts of the same size apart, `padded_bytes` fills a page up.
    """

    kind: str
    block_size: int
    token_bytes: int
    identity: tuple[object, ...] = ()
    span: int = 0
    state_bytes: int = 0
    state_blocks: int | None = 1
    padded_bytes: int | None = None

    @property
    def page_bytes(self) -> int:
        """Bytes of one block in this layer."""
        if self.padded_bytes is not None:
            return self.padded_bytes
        return self.state_bytes if self.kind == "state" else self.block_size * self.token_bytes

    @property
    def grows(self) -> bool:
        """Whether a longer request takes more blocks for good."""
        return self.kind in FULL_KINDS or (self.kind == "state" and self.state_blocks is None)

    def blocks(self, tokens: int, tokens_in_flight: int, context_parallel_size: int = 1) -> int:
        """Give the blocks that one request of that many tokens takes at most.

        `tokens_in_flight` may be scheduled and not settled, and are kept besides window or chunk.
        """
        size = self.block_size
        match self.kind:
            case "window":
                return -(-min(self.span - 1 + tokens_in_flight, tokens) // size) + 1
            case "chunk":
                return -(-min(self.span + tokens_in_flight, tokens) // size)
            case "cross":
                return -(-self.span // size)
            case "state" if self.state_blocks is not None:
                return self.state_blocks
        return -(-tokens // (size * context_parallel_size))

    def keeping_all(self, block_size: int) -> KvLayer:
        """Give the same layer cached like full attention, in blocks of that size."""
        return replace(self, kind="full", span=0, block_size=block_size)


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What decides the cache of all layers of a model on one rank.

    `state_mode` says how many blocks a state takes: "one", "none" (one, and one for each guessed token), "align"
    (block boundaries too) or "all" (one for every block of tokens). `state_page_bytes` is the page of attention
    layers that states are padded to (None: not padded). `window_extra` tokens stay besides each window.
    `recurrent_dtype` is what recurrent states are kept in where the model asks for nothing, `encoder_tokens` the
    encoder's length that cross attention is given room for (None: the model's).
    """

    tensor_parallel_size: int
    format: KvFormat
    block_size: int
    window_block_size: int
    state_dtype_bytes: int
    rules: KvRules
    state_mode: str = "none"
    num_speculative_tokens: int = 0
    state_page_bytes: int | None = None
    window_extra: int = 0
    recurrent_dtype: str | None = None
    encoder_tokens: int | None = None


def kv_layers(layer: LayerProfile, cache: LayerCache) -> Iterator[KvLayer]:
    """Give the caches of a decoder layer, in the order of its mixers; none where it keeps nothing."""
    for mixer in layer.mixers:
        if isinstance(mixer, AttentionProfile):
            if _is_cached(mixer, cache):
                yield _attention_layer(mixer, cache)
            if mixer.index_dim:
                yield KvLayer("indexer", cache.block_size, 2 * mixer.index_dim, (mixer.index_dim,))
        elif isinstance(mixer, LatentAttentionProfile):
            yield from _latent_layers(mixer, cache)
        elif not cache.rules.attention_only:
            yield _state_layer(mixer, cache)


def attention_token_bytes(mixer: AttentionProfile | LatentAttentionProfile, cache: LayerCache) -> int:
    """Give the bytes of one token in an attention layer on one rank."""
    if isinstance(mixer, LatentAttentionProfile):
        unpacked = cache.rules.latent_as_heads
        if unpacked:
            return 2 * mixer.num_heads // cache.tensor_parallel_size * cache.format.vector_bytes(unpacked)
        return cache.format.latent_bytes(mixer.latent_dim)
    heads = kv_heads_on_rank(mixer.num_kv_heads, cache.tensor_parallel_size)
    values = mixer.value_head_dim if cache.rules.value_heads else mixer.head_dim
    return heads * (cache.format.vector_bytes(mixer.head_dim) + cache.format.vector_bytes(values))


def layer_state_bytes(mixer: StateProfile, cache: LayerCache) -> int:
    """Give the bytes of one state of a layer on one rank, without padding."""
    kept = replace(mixer, state_dtype=mixer.state_dtype or cache.recurrent_dtype)
    drafted = cache.num_speculative_tokens
    return state_bytes(kept, cache.tensor_parallel_size, cache.state_dtype_bytes, drafted)


def _is_cached(mixer: AttentionProfile, cache: LayerCache) -> bool:
    if mixer.shares_cache or mixer.source == "encoder":
        return False
    return mixer.source == "self" or not cache.rules.attention_only


def _attention_layer(mixer: AttentionProfile, cache: LayerCache) -> KvLayer:
    heads = kv_heads_on_rank(mixer.num_kv_heads, cache.tensor_parallel_size)
    identity = (heads, mixer.head_dim, mixer.value_head_dim)
    token_bytes = attention_token_bytes(mixer, cache)
    if mixer.source == "cross":
        span = mixer.cross_tokens if cache.encoder_tokens is None else cache.encoder_tokens
        return KvLayer("cross", cache.block_size, token_bytes, identity, span=span)
    if mixer.sliding_window is not None and not cache.rules.windows_keep_all:
        span = mixer.sliding_window + cache.window_extra
        return KvLayer("window", cache.window_block_size, token_bytes, identity, span=span)
    if mixer.chunk is not None and cache.rules.chunks != "full":
        return KvLayer("chunk", cache.block_size, token_bytes, identity, span=mixer.chunk)
    return KvLayer("full", cache.block_size, token_bytes, identity)


def _latent_layers(mixer: LatentAttentionProfile, cache: LayerCache) -> Iterator[KvLayer]:
    """Give the latent vector's cache, the same on every rank, and the indexer's 8-bit keys with their scales."""
    if cache.rules.latent_as_heads:
        yield KvLayer("full", cache.block_size, attention_token_bytes(mixer, cache), (mixer.num_heads,))
        return
    yield KvLayer("latent", cache.block_size, attention_token_bytes(mixer, cache), (mixer.latent_dim,))
    if mixer.index_head_dim is not None:
        keys = mixer.index_head_dim
        token_bytes = keys + keys // _INDEX_SCALE_GROUP * _INDEX_SCALE_BYTES
        yield KvLayer("indexer", cache.block_size, token_bytes, (keys,))


def _state_layer(mixer: StateProfile, cache: LayerCache) -> KvLayer:
    drafted, size = cache.num_speculative_tokens, layer_state_bytes(mixer, cache)
    kept: int | None = states_per_request(
        mixer,
        prefix_caching=cache.state_mode == "align",
        num_speculative_tokens=drafted,
        prefill_checkpoint=cache.rules.prefill_checkpoint,
    )
    if cache.state_mode in ("one", "all"):
        kept = 1 if cache.state_mode == "one" else None
    return KvLayer(
        "state",
        cache.block_size,
        0,
        (mixer,),
        state_bytes=size,
        state_blocks=kept,
        padded_bytes=cache.state_page_bytes,
    )
