"""How an engine groups layers that share block numbers, and what a block then costs on one rank.

Every group keeps its own list of blocks, and all draw from one pool, so a block costs as much as the largest
group's pages. Follows vllm/v1/core/kv_cache_utils.py::get_kv_cache_groups; what differs by release is in
kv/rules.toml. Groups are formed over the whole model and then cut to what one pipeline stage has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stowage.memory.kv.layers import FULL_KINDS, KvLayer
from stowage.memory.kv.rules import KvRules

Placed = tuple[KvLayer, int]
"""A layer's cache and the pipeline stage that has it."""


@dataclass(frozen=True, slots=True)
class KvGroup:
    """Groups of one rank that are alike: how many, and what a block is in each.

    `lead` decides how many blocks a request takes, `page_bytes` is one block over all layers of the group.
    """

    lead: KvLayer
    num_layers: int
    page_bytes: int
    copies: int = 1


class UngroupableError(Exception):
    """Layers whose pages the release cannot bring to one size; the text says why."""


def form_groups(
    layers: Sequence[Placed], rules: KvRules, *, hybrid_manager: bool = True
) -> list[list[Placed]]:
    """Form the groups of a model; raises `UngroupableError` where the release gives up.

    Without the hybrid manager windows and chunks beside full attention are cached like it, in one group.
    """
    several = rules.grouping != "one" and hybrid_manager
    layers = layers if several else _keep_all(layers)
    kinds = {layer for layer, _ in layers}
    if len(kinds) <= 1 or (rules.same_type_group and _same_type(kinds)):
        return [list(layers)]
    if not several:
        raise UngroupableError("layers of several types in one group")
    try:
        unified = _unify_pages(layers, rules)
    except UngroupableError:
        if rules.unify_pages != "pad" or (promoted := _one_type(layers)) is None:
            raise
        return [promoted]
    return _split(unified, rules)


def project(groups: Sequence[Sequence[Placed]], stage: int | None) -> tuple[KvGroup, ...]:
    """Cut groups to one pipeline stage (None: all stages), groups that are alike counted together."""
    found: Counter[tuple[KvLayer, int, int]] = Counter()
    for group in groups:
        here = [layer.page_bytes for layer, place in group if stage is None or place == stage]
        found[group[0][0], len(here), sum(here)] += 1
    return tuple(KvGroup(lead, number, size, copies) for (lead, number, size), copies in found.items())


def _same_type(kinds: set[KvLayer]) -> bool:
    return len({_type(layer) for layer in kinds}) == 1


def _type(layer: KvLayer) -> tuple[object, ...]:
    if layer.kind in FULL_KINDS:
        return "full", layer.block_size
    if layer.kind == "state":
        return "state", layer.page_bytes, layer.state_blocks
    return layer.kind, layer.block_size, layer.span if layer.kind != "cross" else 0


def _keep_all(layers: Sequence[Placed]) -> list[Placed]:
    """Cache windows and chunks like full attention, where a model has both."""
    sizes = {layer.block_size for layer, _ in layers if layer.kind in FULL_KINDS}
    if not sizes:
        return list(layers)
    size = sizes.pop() if len(sizes) == 1 else None
    return [
        (layer.keeping_all(size or layer.block_size) if layer.kind in ("window", "chunk") else layer, place)
        for layer, place in layers
    ]


def _one_type(layers: Sequence[Placed]) -> list[Placed] | None:
    """Give one group of latent and windowed layers that all keep every token, or None for other mixtures."""
    kinds = {layer.kind for layer, _ in layers}
    if "latent" not in kinds or "window" not in kinds or not kinds <= FULL_KINDS | {"window"}:
        return None
    promoted = _keep_all(layers)
    return promoted if _same_type({layer for layer, _ in promoted}) else None


def _unify_pages(layers: Sequence[Placed], rules: KvRules) -> list[Placed]:
    largest = max(layer.page_bytes for layer, _ in layers)
    fitted = {layer: _fit_page(layer, largest, rules) for layer in {layer for layer, _ in layers}}
    return [(fitted[layer], place) for layer, place in layers]


def _fit_page(layer: KvLayer, page_bytes: int, rules: KvRules) -> KvLayer:
    """Bring a layer's page to the common size: more tokens a block where that comes out even, else padding."""
    if layer.page_bytes == page_bytes:
        return layer
    if rules.unify_pages == "no":
        raise UngroupableError("layers whose pages differ in size")
    if layer.kind != "state" and page_bytes % layer.page_bytes == 0:
        return replace(layer, block_size=layer.block_size * (page_bytes // layer.page_bytes))
    if rules.unify_pages == "pad" and layer.kind not in ("latent", "indexer"):
        return replace(layer, padded_bytes=page_bytes)
    raise UngroupableError("layers whose pages are no multiples of one another")


def _split(layers: Sequence[Placed], rules: KvRules) -> list[list[Placed]]:
    """Cut each kind into groups of the size of the rarest, or of the most frequent where they are nearly even."""
    buckets: dict[KvLayer, list[Placed]] = {}
    for placed in layers:
        buckets.setdefault(placed[0], []).append(placed)
    fewest, most = min(map(len, buckets.values())), max(map(len, buckets.values()))
    size = most if most < rules.even_kinds_below * fewest else fewest
    groups: list[list[Placed]] = []
    for bucket in buckets.values():
        number = -(-len(bucket) // size)
        if rules.stride_groups:
            groups += [bucket[i::number] for i in range(number)]
        else:
            groups += [bucket[i : i + size] for i in range(0, len(bucket), size)]
    return groups
