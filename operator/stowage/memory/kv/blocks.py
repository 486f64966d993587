"""Backends and block size of a whole model: what all its layers agree on before there are caches.

Every kind of attention picks a backend; the block size must suit them all. Models that also have recurrent layers
raise it until a page of attention holds a state (vllm/platforms/interface.py::update_block_size_for_backend).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import lcm
from typing import Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.memory.kv.attention_backend import (
    DEFAULT_BLOCK_SIZE,
    AttentionBackend,
    AttentionNeeds,
    choose_backend,
)
from stowage.memory.kv.dtype import known_kv_dtypes, kv_format
from stowage.memory.kv.layers import LayerCache, attention_token_bytes, layer_state_bytes
from stowage.memory.kv.question import CacheQuestion
from stowage.memory.kv.state_cache import hybrid_block_size
from stowage.model.dtype import ELEMENT_BYTES
from stowage.model.profile import AttentionProfile, LatentAttentionProfile, LayerProfile, StateProfile

_CHUNKED_KINDS: Final = {"mamba1": 2048, "mamba2": 256}
"""Kinds whose kernels read whole chunks, and the chunk where the model does not state one."""

_BLACKWELL: Final = 10
_WIDE_HEAD: Final = 256
_WIDE_STEP: Final = 32


def layer_cache(question: CacheQuestion) -> LayerCache | Refusal:
    """Settle block sizes and cache format of a model, or say why the release starts no engine for it."""
    where = question.where
    if kv_format(where.kv_dtype, where.dtype, where.release) is None:
        message = f"kv_cache_dtype {where.kv_dtype!r} is not sized for vLLM {where.release}."
        hint = f"Use {', '.join(known_kv_dtypes(where.release))}."
        return Refusal(Reason.UNSUPPORTED_DTYPE, message, hint)
    backends: list[AttentionBackend] = []
    for needs in attention_needs(question):
        choice = choose_backend(needs, where)
        if isinstance(choice, Refusal):
            return choice
        backends.append(choice)
    stored = next((entry.kv_dtype for entry in backends if entry.kv_dtype != where.kv_dtype), where.kv_dtype)
    found = kv_format(stored, where.dtype, where.release)
    if found is None:
        raise ValueError(f"attention_backends.toml stores {stored}, which {where.release} does not know")
    size = lcm(*{entry.block_size for entry in backends}) if backends else DEFAULT_BLOCK_SIZE
    cache = LayerCache(
        tensor_parallel_size=question.tensor_parallel_size,
        format=found,
        block_size=size,
        window_block_size=size,
        state_dtype_bytes=ELEMENT_BYTES[where.dtype],
        rules=question.rules,
        state_mode=_state_mode(question),
        num_speculative_tokens=question.drafts,
        window_extra=_window_extra(question),
        recurrent_dtype=_recurrent_dtype(question),
        encoder_tokens=question.encoder_tokens,
    )
    return _with_windows(_with_states(cache, question, backends), backends)


def attention_needs(question: CacheQuestion) -> Iterator[AttentionNeeds]:
    """Give what each kind of attention of the model asks of a backend, once each."""
    found: dict[AttentionNeeds, None] = {}
    for layer in question.distinct_layers():
        sinks = any(tensor.name.endswith(".sinks") for tensor in layer.tensors)
        for needs in _layer_needs(layer, question, sinks=sinks):
            found[needs] = None
    yield from found


def _layer_needs(layer: LayerProfile, question: CacheQuestion, *, sinks: bool) -> Iterator[AttentionNeeds]:
    ranks = question.tensor_parallel_size
    for mixer in layer.mixers:
        if isinstance(mixer, AttentionProfile) and mixer.source != "encoder":
            cross = mixer.source == "cross" and not question.rules.attention_only
            kind = "indexed" if mixer.index_dim else "heads"
            yield AttentionNeeds(kind, mixer.head_dim, mixer.num_heads // ranks, sinks, cross)
        elif isinstance(mixer, LatentAttentionProfile):
            yield _latent_needs(mixer, mixer.num_heads // ranks, question.rules.latent_as_heads)


def _latent_needs(mixer: LatentAttentionProfile, heads: int, unpacked: int) -> AttentionNeeds:
    if unpacked and mixer.sliding_window is None and mixer.index_topk is None:
        return AttentionNeeds("heads", unpacked, heads)
    kind = "latent" if (mixer.index_topk or mixer.index_head_dim) is None else "sparse"
    if mixer.sliding_window is not None:
        kind = "compressed"
    return AttentionNeeds(kind, mixer.latent_dim, heads, nope_head_dim=mixer.qk_nope_head_dim)


def _state_mode(question: CacheQuestion) -> str:
    rules = question.rules
    if rules.state_blocks == "one":
        return "one"
    hybrid = any(not isinstance(mixer, StateProfile) for mixer in question.mixers())
    if not (hybrid and question.prefix_caching and rules.hybrid_prefix_caching):
        return "none"
    kinds = {mixer.kind for mixer in question.mixers() if isinstance(mixer, StateProfile)}
    whole = rules.state_blocks == "all" and kinds & _CHUNKED_KINDS.keys() and question.drafts == 0
    return "all" if whole else "align"


def _recurrent_dtype(question: CacheQuestion) -> str | None:
    """Give what states are kept in by default: CPUs with 16-bit vector units are given 32 bits (platforms/cpu.py)."""
    on_cpu = question.where.capability is None
    return "float32" if on_cpu and question.rules.cpu_states_in_32_bits else None


def _window_extra(question: CacheQuestion) -> int:
    """Give the tokens that stay besides a window where several draft modules read ahead of one another."""
    several = min(len(question.profile.draft_layers), question.drafts) > 1
    chained = question.rules.retains_lookahead and question.draft_method == "mtp" and several
    return question.drafts - 1 if chained else 0


def _with_windows(cache: LayerCache, backends: list[AttentionBackend]) -> LayerCache:
    if cache.rules.window_block == "attention" or not backends:
        return replace(cache, window_block_size=cache.block_size)
    fits = cache.rules.window_block == "fitting"
    sizes = [
        entry.largest_kernel_block(cache.block_size) if fits else entry.smallest_kernel_block
        for entry in backends
    ]
    return replace(cache, window_block_size=max(sizes))


def _with_states(cache: LayerCache, question: CacheQuestion, backends: list[AttentionBackend]) -> LayerCache:
    """Raise the block size so that an attention page holds a state, and pad states to that page."""
    states = [mixer for mixer in question.mixers() if isinstance(mixer, StateProfile)]
    token_bytes = _token_bytes(question, cache)
    if not states or token_bytes is None or cache.rules.attention_only:
        return cache
    sizes = [layer_state_bytes(state, cache) for state in states]
    step, kernel = _hybrid_steps(cache, question, backends)
    if cache.state_mode == "all":
        chunk = lcm(step, *(state.chunk_size or _CHUNKED_KINDS.get(state.kind, step) for state in states))
        tokens = chunk * -(-max(sizes) // (chunk * token_bytes))
    else:
        tokens = hybrid_block_size(max(sizes), token_bytes, block_size=step, kernel_block_size=kernel)
    tokens = max(tokens, question.where.block_size or 0)
    return replace(cache, block_size=tokens, state_page_bytes=tokens * token_bytes)


def _hybrid_steps(
    cache: LayerCache, question: CacheQuestion, backends: list[AttentionBackend]
) -> tuple[int, int]:
    """Give what blocks of hybrids are a multiple of, and the smallest block of all kernels."""
    latent = any(isinstance(mixer, LatentAttentionProfile) for mixer in question.mixers())
    rules, where = cache.rules, question.where
    if rules.hybrid_step == "backend":
        kernel = lcm(*(entry.smallest_kernel_block for entry in backends))
        return max(kernel, cache.block_size, rules.latent_hybrid_step if latent else 0), kernel
    step = rules.latent_hybrid_step if latent else DEFAULT_BLOCK_SIZE
    wide = any(
        isinstance(mixer, AttentionProfile) and mixer.head_dim == _WIDE_HEAD for mixer in question.mixers()
    )
    blackwell = where.capability is not None and where.capability[0] == _BLACKWELL
    if rules.hybrid_step == "16 or 32" and wide and blackwell and not latent:
        step = _WIDE_STEP
    return step, step


def _token_bytes(question: CacheQuestion, cache: LayerCache) -> int | None:
    """Give the bytes of a token in the model's attention layers, those that keep every token first."""
    attention = [
        mixer
        for mixer in question.mixers()
        if isinstance(mixer, LatentAttentionProfile)
        or (isinstance(mixer, AttentionProfile) and mixer.source == "self" and not mixer.shares_cache)
    ]
    if not attention:
        return None
    whole = (mixer for mixer in attention if getattr(mixer, "sliding_window", None) is None)
    return attention_token_bytes(next(whole, attention[0]), cache)
