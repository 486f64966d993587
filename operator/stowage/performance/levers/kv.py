"""Levers on the KV cache: fewer bytes for a token give room for more tokens, and less to read for each step.

The two are told apart, because they help in different places: room only where the cache limits the batch, less
to read only where reading it takes time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from stowage.api.refusal import Refusal
from stowage.performance.levers.attempt import Attempt
from stowage.performance.levers.question import LeverQuestion, in_flight
from stowage.performance.serving import Serving


def kv_levers(question: LeverQuestion) -> Iterator[Attempt]:
    """Give the levers on the KV cache: the engine's 8-bit formats, then compression in general."""
    for name in ("fp8", "int8_per_token_head"):
        yield _format(question, name)
    yield capacity(question, question.kv_factor)
    yield _traffic(question, question.kv_factor)


def capacity(question: LeverQuestion, factor: int) -> Attempt:
    """Give room for so many times the tokens, at the same cost of reading one."""
    larger = replace(question.serving, kv_tokens=question.serving.kv_tokens * factor)
    return Attempt(
        f"KV capacity ×{factor}",
        f"the cache holds {factor} times the tokens; reading one costs the same",
        larger,
        why_capacity(question),
        lossy=True,
        unmeasured=("KV compression",),
        frees_kv=True,
    )


def why_capacity(question: LeverQuestion) -> str:
    """Say what more room for KV would change here."""
    base, shape, load = question.base, question.serving.shape, question.load
    if base.batch_limit == "kv_tokens":
        return "the batch is bound by the room for KV"
    if base.batch_limit == "max_num_seqs":
        return f"the batch is bound by max_num_seqs {shape.max_num_seqs}, not by KV"
    held = question.serving.kv_tokens * shape.data_parallel_size / load.mean_context_tokens
    return f"{in_flight(question)} and the cache holds {held:,.0f}"


def _traffic(question: LeverQuestion, factor: int) -> Attempt:
    saved = question.decode_step.kv_read / question.decode_step.total * (1 - 1 / factor)
    return Attempt(
        f"KV traffic ÷{factor}",
        f"each step reads 1/{factor} of the bytes; the cache holds the same tokens",
        question.serving,
        f"reading KV takes {question.share_of_time('kv_read'):.0%} of the GPU time",
        decode_factor=1 - saved,
        lossy=True,
        unmeasured=("KV compression",),
    )


def _format(question: LeverQuestion, name: str) -> Attempt:
    shape = question.serving.shape
    found = question.refit(shape=replace(shape, kv_cache_dtype=name))
    reading = f"reading KV takes {question.share_of_time('kv_read'):.0%} of the GPU time"
    if not isinstance(found, Refusal) and found.kv_tokens <= question.serving.kv_tokens:
        reading = "the cache holds 8 bits or less for each element already"
    why = f"{reading}; {why_capacity(question)}"
    changes = f"kv_cache_dtype {shape.kv_cache_dtype} → {name}"
    return Attempt(f"KV cache {name}", changes, found, why, lossy=True, frees_kv=True)


def longer_batch(question: LeverQuestion, freed: Serving) -> Serving | None:
    """Give the replica with as many sequences as the freed room and the load have use for, None where no more do.

    What further sequences take of the memory themselves is in the ledger; compression is kept as it is.
    """
    shape, load = freed.shape, question.load
    asked = ceil((load.concurrency or 1) / shape.data_parallel_size)
    seqs = min(asked, int(freed.kv_tokens / load.mean_context_tokens), shape.max_num_batched_tokens)
    if question.base.batch_limit != "max_num_seqs" or seqs <= shape.max_num_seqs:
        return None
    same = question.refit(shape=shape)
    wider = question.refit(shape=replace(shape, max_num_seqs=seqs))
    if isinstance(same, Refusal) or isinstance(wider, Refusal):
        return None
    return replace(wider, kv_tokens=int(wider.kv_tokens * freed.kv_tokens / same.kv_tokens))
