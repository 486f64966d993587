"""`--what-if`: the same question with one thing changed, next to the answer as asked.

A change is written like the options themselves, `max-model-len=65536` or `tensor-parallel-size=2,kv-cache-dtype=fp8`
for two at once. Every change starts from the shape as asked, never from another change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.commands.memory_question import MemoryQuestion
from stowage.memory.budget import ledger
from stowage.memory.ledger import Ledger

_GIB: Final = 2**30


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "max_model_len": int,
    "max_num_seqs": int,
    "max_num_batched_tokens": int,
    "kv_cache_dtype": str,
    "tensor_parallel_size": int,
    "pipeline_parallel_size": int,
    "data_parallel_size": int,
    "gpu_memory_utilization": float,
    "enforce_eager": _flag,
    "enable_expert_parallel": _flag,
    "dtype": str,
    "quantization": str,
}


@dataclass(frozen=True, slots=True)
class WhatIf:
    """One change as written, and the question with it."""

    words: str
    question: MemoryQuestion


def read_what_ifs(question: MemoryQuestion, changes: Sequence[str]) -> tuple[WhatIf, ...] | Refusal:
    """Read all changes, or refuse the first that is not understood."""
    found = []
    for words in changes:
        settings = read_settings(words, _READERS)
        if isinstance(settings, Refusal):
            return settings
        found.append(WhatIf(words, replace(question, shape=replace(question.shape, **settings))))
    return tuple(found)


def read_settings(words: str, readers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any] | Refusal:
    """Read one change, `NAME=VALUE` or several with commas between, by the reader of each name."""
    settings: dict[str, Any] = {}
    for part in words.split(","):
        name, separator, text = part.strip().removeprefix("--").partition("=")
        reader = readers.get(name.replace("-", "_"))
        if reader is None or not separator:
            known = ", ".join(name.replace("_", "-") for name in readers)
            message = f"--what-if {words!r} is not understood."
            return Refusal(Reason.INVALID_SPEC, message, f"Write NAME=VALUE with one of {known}.")
        try:
            settings[name.replace("-", "_")] = reader(text)
        except ValueError:
            return Refusal(Reason.INVALID_SPEC, f"--what-if {name}={text!r}: the value is not usable.")
    return settings


def answer_document(change: WhatIf) -> dict[str, Any]:
    """Give the answer to a change as JSON."""
    answer = _ledger(change.question)
    if isinstance(answer, Refusal):
        return {"what_if": change.words, "fits": False, "reason": answer.reason.value}
    return {
        "what_if": change.words,
        "weights_gib": round(answer.weights_allocated_bytes / _GIB, 4),
        "kv_available_gib": round(answer.kv_cache_bytes / _GIB, 4),
        "kv_tokens": answer.kv_tokens,
        "max_concurrency": round(answer.max_concurrency, 4),
        "fits": answer.verdict != "DoesNotFit",
        "verdict": answer.verdict,
        "reason": answer.refusal.reason.value if answer.refusal else None,
    }


def print_what_ifs(question: MemoryQuestion, changes: Sequence[WhatIf], console: Console) -> None:
    """Write one line for the question as asked and one for each change."""
    table = Table(title="What if", title_justify="left")
    table.add_column("", overflow="fold", min_width=20)
    for name in ("GPUs", "weights", "KV GiB", "KV tokens", "at once"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold", min_width=10)
    for words, asked in (("as asked", question), *((change.words, change.question) for change in changes)):
        answer = _ledger(asked)
        if isinstance(answer, Refusal):
            table.add_row(words, str(asked.shape.world_size), "", "", "", "", f"refused: {answer.message}")
            continue
        table.add_row(
            words,
            str(asked.shape.world_size),
            f"{answer.weights_allocated_bytes / _GIB:.2f}",
            f"{answer.kv_cache_bytes / _GIB:.2f}",
            f"{answer.kv_tokens:,}",
            f"{answer.max_concurrency:.1f}",
            answer.verdict,
        )
    console.print(table)


def _ledger(question: MemoryQuestion) -> Ledger | Refusal:
    return ledger(question.profile, question.shape, question.device, question.version)
