"""The cache of compressed latent attention (DeepSeek V4): several caches a layer, packed side by side in a block.

A layer keeps a window of single tokens; one with compression also a vector for every 4 or 128 tokens, the
unfinished sums of its compressor in 32 bits, and where 4 tokens share one, an indexer with the same two. Pages
differ in size, so groups are not brought to one page: a block is as large as the largest group needs. Follows
vllm/models/deepseek_v4/{attention,compressor}.py, v1/attention/backends/mla/sparse_swa.py and
`_get_packed_kv_cache_groups` of kv_cache_utils.py (0.29.0 and 0.32.0; releases before 0.29 form the same groups
and check with up to 5 % more).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from stowage.memory.kv.groups import Placed, form_groups
from stowage.memory.kv.layers import FULL_KINDS, KvLayer, LayerCache, kv_layers
from stowage.memory.kv.rules import KvRules
from stowage.model.profile import LatentAttentionProfile, LayerProfile

_BLOCK: Final = 256
"""Tokens of a block of compressed vectors: 64 vectors of 4 tokens, as the kernels read them."""

_WINDOW_BLOCK: Final = 64
_PACKED_BYTES: Final = 584
"""Bytes of a vector in 8 bits: 448 elements, 64 rotary ones in 16 bits, 8 scales (fp8_ds_mla)."""

_ALIGNMENTS: Final = {"packed": 576, "plain": 512}
_STATE_BLOCKS: Final = {4: 4, 128: 8}
_INDEX_SCALE_GROUP: Final = 128
_IDENTITY: Final = "compressed"


def layer_caches(layer: LayerProfile, cache: LayerCache) -> Iterator[KvLayer]:
    """Give the caches of a decoder layer of any kind."""
    compressed = [
        mixer
        for mixer in layer.mixers
        if isinstance(mixer, LatentAttentionProfile) and mixer.sliding_window is not None
    ]
    if not compressed:
        yield from kv_layers(layer, cache)
    for mixer in compressed:
        yield from _compressed(mixer, packed=cache.format.name == "auto" or "fp8" in cache.format.name)


def groups_of(layers: Sequence[Placed], rules: KvRules, *, hybrid_manager: bool = True) -> list[list[Placed]]:
    """Form the groups of a model of any kind; raises `UngroupableError` where the release gives up."""
    if any(_IDENTITY in layer.identity for layer, _ in layers):
        return _packed(layers)
    return form_groups(layers, rules, hybrid_manager=hybrid_manager)


def _compressed(mixer: LatentAttentionProfile, *, packed: bool) -> Iterator[KvLayer]:
    size, ratio = mixer.latent_dim, mixer.tokens_per_state
    vector = _PACKED_BYTES if packed else 2 * size
    alignment = _ALIGNMENTS["packed" if packed else "plain"]

    def page(kind: str, block: int, content_bytes: int, span: int = 0) -> KvLayer:
        padded = -(-content_bytes // alignment) * alignment
        return KvLayer(kind, block, 0, (_IDENTITY, content_bytes), span=span, padded_bytes=padded)

    yield page("window", _WINDOW_BLOCK, _WINDOW_BLOCK * vector, mixer.sliding_window or 0)
    if not ratio:
        return
    overlap = 2 if ratio == 4 else 1
    states = _STATE_BLOCKS[ratio]
    yield page("latent", _BLOCK, _BLOCK // ratio * vector)
    yield page("window", states, states * 2 * overlap * size * 4, overlap * ratio)
    if mixer.index_head_dim is not None:
        keys = mixer.index_head_dim
        record = keys + keys // _INDEX_SCALE_GROUP * 4
        yield page("indexer", _BLOCK, _BLOCK // ratio * record)
        yield page("window", states, states * 2 * overlap * keys * 4, overlap * ratio)


def _packed(layers: Sequence[Placed]) -> list[list[Placed]]:
    """Put layers that take the same blocks together, and cut large kinds to about the size of the others."""
    buckets: dict[tuple[object, ...], list[Placed]] = {}
    for layer, place in layers:
        key: tuple[object, ...] = ("full",) if layer.kind in FULL_KINDS else (layer.block_size, layer.span)
        buckets.setdefault(key, []).append((layer, place))
    repeats = {key: _repeats(bucket) for key, bucket in buckets.items()}
    floor = max(
        (number for key, number in repeats.items() if number and len(_pages(buckets[key])) > 1), default=0
    )
    size = _fewest_padding([number for number in repeats.values() if number], floor) if floor else 0
    groups: list[list[Placed]] = []
    for key, bucket in buckets.items():
        number = -(-repeats[key] // size) if size and repeats[key] else 1
        groups += _cut(bucket, number)
    return groups


def _pages(bucket: Sequence[Placed]) -> dict[int, list[Placed]]:
    pages: dict[int, list[Placed]] = {}
    for placed in bucket:
        pages.setdefault(placed[0].page_bytes, []).append(placed)
    return pages


def _repeats(bucket: Sequence[Placed]) -> int:
    """Count how often a pattern of one layer of each page size repeats; 0 where the sizes are not even."""
    lengths = {len(same) for same in _pages(bucket).values()}
    return lengths.pop() if len(lengths) == 1 else 0


def _fewest_padding(numbers: Sequence[int], floor: int) -> int:
    """Find the group size of at least `floor` that pads all numbers least; of equals the largest."""
    sizes = range(max(1, floor), max(*numbers, floor) + 1)
    return min(sizes, key=lambda size: (sum(-number % size for number in numbers), -size))


def _cut(bucket: Sequence[Placed], number: int) -> list[list[Placed]]:
    if number == 1:
        return [list(bucket)]
    pattern = list(zip(*_pages(bucket).values(), strict=True))
    return [[placed for repeat in pattern[i::number] for placed in repeat] for i in range(number)]
