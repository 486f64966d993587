"""The KV cache of a model on every rank, put together: backends, layers, groups, pools.

The one entrance to this folder. Everything here is exact arithmetic on facts; a combination that the engine
does not start with is a refusal. What depends on the context length is asked of a pool, so that a search need
not come back here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.memory.kv.blocks import layer_cache
from stowage.memory.kv.compressed import groups_of, layer_caches
from stowage.memory.kv.groups import KvGroup, Placed, UngroupableError, project
from stowage.memory.kv.layers import LayerCache
from stowage.memory.kv.question import CacheQuestion
from stowage.model.profile import AttentionProfile


@dataclass(frozen=True, slots=True)
class KvCache:
    """The cache of a model: for each pipeline stage its groups, and what the release checks at start.

    `block_size` is the attention's, in tokens, and `kv_dtype` the format that keys and values are stored in.
    """

    kv_dtype: str
    block_size: int
    stages: tuple[tuple[KvGroup, ...], ...]
    checked: tuple[tuple[KvGroup, ...], ...]


@lru_cache(maxsize=1024)
def kv_cache(question: CacheQuestion) -> KvCache | Refusal:
    """Work out the cache of a model, or say why the release starts no engine with it."""
    cache = layer_cache(question)
    refusal = cache if isinstance(cache, Refusal) else _context_refusal(question)
    if refusal is not None or isinstance(cache, Refusal):
        return refusal or _nothing_kept()
    placed = [(spec, stage) for layer, stage in question.layers() for spec in layer_caches(layer, cache)]
    if {stage for _, stage in placed} != set(range(question.pipeline_parallel_size)):
        return _nothing_kept()
    try:
        return _grouped(question, cache, placed)
    except UngroupableError as problem:
        message = (
            f"vLLM {question.where.release} has no common block for the KV cache of this model: {problem}."
        )
        return Refusal(Reason.NOT_SUPPORTED, message, "Use a newer release.")


def _grouped(question: CacheQuestion, cache: LayerCache, placed: list[Placed]) -> KvCache:
    rules, stages = question.rules, range(question.pipeline_parallel_size)
    whole = (
        groups_of(placed, rules, hybrid_manager=question.uses_groups) if rules.whole_model_groups else None
    )
    groups = [
        whole
        or groups_of(
            [entry for entry in placed if entry[1] == stage], rules, hybrid_manager=question.uses_groups
        )
        for stage in stages
    ]
    return KvCache(
        kv_dtype=cache.format.name,
        block_size=cache.block_size,
        stages=tuple(project(groups[stage], stage) for stage in stages),
        checked=tuple(_checked(question, placed, groups[stage], stage) for stage in stages),
    )


def _checked(
    question: CacheQuestion, placed: list[Placed], groups: Sequence[Sequence[Placed]], stage: int
) -> tuple[KvGroup, ...]:
    """Give what the release looks at before it starts, where that is not the rank's groups."""
    rules = question.rules
    if rules.check == "layers":
        found = Counter(layer for layer, place in placed if place == stage)
        return tuple(KvGroup(layer, 1, layer.page_bytes, number) for layer, number in found.items())
    if rules.check == "first-group":
        return project(groups, None if rules.check_whole_model else stage)
    return ()


def _context_refusal(question: CacheQuestion) -> Refusal | None:
    ranks = question.context_parallel_size
    if ranks == 1:
        return None
    if not question.rules.context_parallel:
        message = f"vLLM {question.where.release} has no decode context parallelism ({ranks} asked for)."
        return Refusal(Reason.INVALID_PARALLELISM, message, "Use 1, or a newer release.")
    local = any(
        isinstance(mixer, AttentionProfile) and (mixer.sliding_window or mixer.chunk)
        for mixer in question.mixers()
    )
    if local and question.uses_groups:
        message = f"Decode context parallel size {ranks} does not work with windowed attention."
        return Refusal(Reason.INVALID_PARALLELISM, message, "Use 1.")
    return None


def _nothing_kept() -> Refusal:
    message = "The model, or one of its pipeline stages, keeps no KV cache, which is not sized."
    return Refusal(Reason.NOT_SUPPORTED, message, "Use fewer pipeline stages, or another model.")
