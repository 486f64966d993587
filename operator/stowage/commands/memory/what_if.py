"""`stowage memory --what-if`: the same question with one thing changed, next to the answer as asked.

A change is written like the options themselves, `max-model-len=65536` or `tensor-parallel-size=2,kv-cache-dtype=fp8`
for two at once. Every change starts from the question as asked, never from another change, and what is not stated
follows the change as the engine's defaults do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from stowage.api.refusal import Refusal
from stowage.commands.changes import COUNT, FLAG, NUMBER, WORD, Reader, read_changes
from stowage.commands.memory.options import MemoryOptions
from stowage.commands.memory.question import MemoryQuestion, complete
from stowage.memory.budget import ledger
from stowage.memory.ledger import Ledger
from stowage.planning.explain.columns import columns
from stowage.planning.explain.lines import bullet

_GIB: Final = 2**30

READERS: Final[Mapping[str, Reader]] = {
    "max_model_len": COUNT,
    "kv_cache_dtype": WORD,
    "tensor_parallel_size": COUNT,
    "pipeline_parallel_size": COUNT,
    "data_parallel_size": COUNT,
    "enable_expert_parallel": FLAG,
    "max_num_seqs": COUNT,
    "max_num_batched_tokens": COUNT,
    "gpu_memory_utilization": NUMBER,
    "kv_cache_memory_bytes": COUNT,
    "dtype": WORD,
    "quantization": WORD,
    "enforce_eager": FLAG,
    "gpu": WORD,
    "total_memory_gib": NUMBER,
    "engine_version": WORD,
}
_HEAD: Final = ("what if", "GPUs", "weights GiB", "KV GiB", "KV tokens", "at once", "verdict")


@dataclass(frozen=True, slots=True)
class WhatIf:
    """One change as written, and what the engine accepts of it: the question, and its ledger or a refusal."""

    words: str
    question: MemoryQuestion
    answer: Ledger | Refusal


def answer_what_ifs(asked: MemoryQuestion, options: MemoryOptions) -> tuple[WhatIf, ...] | Refusal:
    """Answer all changes, or refuse the first that is not understood."""
    found = []
    for words in options.what_if or ():
        settings = read_changes(words, READERS)
        question = (
            settings
            if isinstance(settings, Refusal)
            else complete(asked.profile, _changed(options, settings))
        )
        if isinstance(question, Refusal):
            return replace(question, message=f"--what-if {words}: {question.message}")
        found.append(WhatIf(words, question, _ledger(question)))
    return tuple(found)


def _changed(options: MemoryOptions, settings: Mapping[str, Any]) -> MemoryOptions:
    """Take the changes over; another GPU has its own memory and compute capability unless they are stated anew."""
    own = {"total_memory_gib": None, "compute_capability": None} if "gpu" in settings else {}
    return replace(options, **{**own, **settings})


def what_if_document(change: WhatIf) -> dict[str, Any]:
    """Give the answer to a change as plain values."""
    answer = change.answer
    if isinstance(answer, Refusal):
        reason = answer.reason.value
        return {"what_if": change.words, "fits": False, "reason": reason, "message": answer.sentence}
    refusal = answer.refusal
    return {
        "what_if": change.words,
        "weights_gib": round(answer.weights_allocated_bytes / _GIB, 4),
        "kv_available_gib": round(answer.kv_cache_bytes / _GIB, 4),
        "kv_tokens": answer.kv_tokens,
        "max_concurrency": round(answer.max_concurrency, 4),
        "fits": answer.verdict != "DoesNotFit",
        "verdict": answer.verdict,
        "reason": refusal.reason.value if refusal else None,
        "message": answer.caution if refusal is None else refusal.sentence,
    }


def what_if_lines(asked: MemoryQuestion, changes: Sequence[WhatIf], width: int | None) -> Iterator[str]:
    """Write one line for the question as asked and one for each change, then why some do not fit."""
    first = WhatIf("as asked", asked, _ledger(asked))
    rows = [_HEAD, *(_row(change) for change in (first, *changes))]
    yield from columns(rows, frozenset({1, 2, 3, 4, 5}), width)
    yield "(GiB of the tightest rank; at once: requests of max_model_len tokens)"
    for change in changes:
        refusal = change.answer if isinstance(change.answer, Refusal) else change.answer.refusal
        if refusal is not None:
            yield from bullet(f"{change.words}: {refusal.sentence}", width)


def _row(change: WhatIf) -> tuple[str, ...]:
    answer, gpus = change.answer, str(change.question.shape.world_size)
    words = change.words.replace(",", ", ")
    if isinstance(answer, Refusal):
        return words, gpus, "", "", "", "", f"refused: {answer.reason.value}"
    return (
        words,
        gpus,
        f"{answer.weights_allocated_bytes / _GIB:.2f}",
        f"{answer.kv_cache_bytes / _GIB:.2f}",
        f"{answer.kv_tokens:,}",
        f"{answer.max_concurrency:.1f}",
        answer.verdict if answer.refusal is None else f"{answer.verdict}: {answer.refusal.reason.value}",
    )


def _ledger(question: MemoryQuestion) -> Ledger | Refusal:
    return ledger(question.profile, question.shape, question.device, question.version)
