"""The ledger for people: a table of the tightest rank whose parts add up, and a bar for each GPU.

The parts above `budget` are what the release counts in it; those below lie beside it on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stowage.commands.memory.bars import bars
from stowage.commands.memory.question import MemoryQuestion
from stowage.memory.budget import tightest
from stowage.memory.ledger import Ledger
from stowage.memory.remedies import crossover, remedies

_GIB: Final = 2**30
_LINEAR: Final = 0.02
"""Where tokens times their size is the cache to this share, that is how it comes about: no windows and no states."""

_VERDICTS: Final = {"Fits": "bold green", "Tight": "bold yellow", "DoesNotFit": "bold red"}
Row = tuple[str, int, str]
"""A part, its bytes, and how it comes about."""


def print_ledger(console: Console, question: MemoryQuestion, ledgers: Sequence[Ledger]) -> None:
    """Write table, bars and verdict to standard output."""
    entry, shape = tightest(ledgers), question.shape
    console.print(Text(question.title))
    console.print(Text(f"Memory of {entry.rank}:"))
    console.print(_table(question, entry))
    for line in bars(shape, ledgers):
        console.print(line)
    console.print(Text.assemble((entry.verdict, _VERDICTS[entry.verdict]), f"  {_because(entry)}"))
    for words in _what_would_fit(question, entry):
        console.print(Text(words))
    crossing = crossover(shape, entry)
    if crossing is not None:
        console.print(Text(crossing.sentence))
    for note in question.notes:
        console.print(Text(f"Note: {note}"))


def _table(question: MemoryQuestion, entry: Ledger) -> Table:
    table = Table()
    table.add_column("part")
    table.add_column("GiB", justify="right")
    table.add_column("how")
    counted, beside = budget_rows(question, entry), rows_beside(entry)
    for part, number_of_bytes, how in (*counted, *beside):
        ends = part in ("budget", counted[-1][0], beside[-2][0])
        style = "bold" if part in ("budget", "total") else None
        table.add_row(part, f"{number_of_bytes / _GIB:.2f}", how, style=style, end_section=ends)
    return table


def budget_rows(question: MemoryQuestion, entry: Ledger) -> tuple[Row, ...]:
    """Give what the release counts in its budget, which is the last row; none with pinned KV bytes."""
    shape = question.shape
    rows: list[Row] = [
        ("weights", entry.weights_allocated_bytes, f"{entry.weights_bytes:,} B of tensors"),
        ("KV cache", entry.kv_cache_bytes, _kv_words(question, entry)),
        (
            "activations",
            entry.activation_bytes,
            f"a step of {shape.max_num_batched_tokens:,} tokens, answers of {shape.max_num_seqs:,} requests",
        ),
        *(_graphs(entry) if entry.cuda_graphs_counted else ()),
        ("runner buffers", entry.persistent_bytes, "sampler state, block tables, allocator slack"),
        ("outside torch", entry.non_torch_bytes, "kernels, handles, communicators"),
        *(_before(entry) if entry.in_use_before_counted else ()),
    ]
    if not entry.kv_cache_pinned:
        share = f"{shape.gpu_memory_utilization:g} (gpu_memory_utilization) of the total"
        rows.append(("budget", entry.budget_bytes, share))
    return tuple(rows)


def rows_beside(entry: Ledger) -> tuple[Row, ...]:
    """Give what lies on the device beside the budget, and the total, which everything adds up to."""
    missing = min(0, entry.kv_cache_bytes)
    return (
        *(() if entry.cuda_graphs_counted else _graphs(entry)),
        *(() if entry.in_use_before_counted else _before(entry)),
        ("free", entry.free_bytes - missing, "not used by this server"),
        ("total", entry.total_bytes, "what CUDA sees on one GPU"),
    )


def _graphs(entry: Ledger) -> tuple[Row]:
    counted = "captured batch sizes" if entry.cuda_graphs_counted else "not counted by this release"
    return (("CUDA graphs", entry.cuda_graph_bytes, counted if entry.cuda_graph_bytes else "none"),)


def _before(entry: Ledger) -> tuple[Row]:
    return (
        ("in use before", entry.in_use_before_bytes, "CUDA context, and what else is there at the start"),
    )


def _kv_words(question: MemoryQuestion, entry: Ledger) -> str:
    band = entry.kv_cache_band
    spread = "" if band.low == band.high else f"{band.low / _GIB:.2f} to {band.high / _GIB:.2f}; "
    if entry.kv_cache_bytes < 0:
        return f"{spread}so much is missing before any cache"
    length, number = question.shape.max_model_len, entry.max_concurrency
    linear = abs(entry.kv_tokens * entry.kv_bytes_per_token / max(1, entry.kv_cache_bytes) - 1) < _LINEAR
    size = f" of {entry.kv_bytes_per_token:,} B" if linear else ""
    each = "" if linear else f" ({entry.kv_needed_bytes / _GIB:.2f} GiB each)"
    return f"{spread}{entry.kv_tokens:,} tokens{size}, {number:,.2f} requests of {length:,}{each}"


def _because(entry: Ledger) -> str:
    if entry.refusal is not None:
        return f"{entry.refusal.reason.value}: {entry.refusal.message}"
    if entry.caution is not None:
        return entry.caution
    longest = entry.safe_max_model_len or entry.largest_max_model_len
    return f"One request may be up to {longest:,} tokens long." if longest else "It fits."


def _what_would_fit(question: MemoryQuestion, entry: Ledger) -> Iterator[str]:
    """Name what would make it fit, the cheapest first; what the refusal suggests where nothing alone would."""
    if entry.refusal is None:
        return
    found = remedies(question.profile, question.shape, question.device, question.version)
    if not found and entry.refusal.hint:
        yield f"No single setting makes it fit. {entry.refusal.hint}"
    elif found:
        yield "What would make it fit, each alone, the cheapest first:"
    for remedy in found:
        value = f"{int(remedy.value):,}" if remedy.value.isdigit() else remedy.value
        tight = remedy.ledger.verdict == "Tight"
        brings = f"{remedy.ledger.kv_tokens:,} tokens of KV cache"
        yield f"  - {remedy.setting} {value}: {'only if every estimate turns out well' if tight else brings}"
