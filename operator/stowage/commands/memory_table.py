"""The ledger for people: a table of the tightest rank, and a bar for each GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stowage.commands.memory_question import MemoryQuestion
from stowage.memory.budget import tightest
from stowage.memory.ledger import Ledger
from stowage.memory.remedies import crossover, remedies

_GIB: Final = 2**30
_BAR_WIDTH: Final = 60
_MARKS: Final = {
    "weights": ("█", "blue"),
    "KV cache": ("▓", "green"),
    "activations": ("▒", "yellow"),
    "CUDA graphs": ("▚", "magenta"),
    "other": ("░", "red"),
    "free": ("·", "bright_black"),
}
_VERDICTS: Final = {"Fits": "bold green", "Tight": "bold yellow", "DoesNotFit": "bold red"}


def print_ledger(question: MemoryQuestion, ledgers: Sequence[Ledger]) -> None:
    """Write table, bars and verdict to standard output."""
    console = Console(highlight=False, soft_wrap=True)
    entry = tightest(ledgers)
    console.print(_headline(question))
    console.print(_table(question, entry))
    for line in _bars(question, ledgers):
        console.print(line)
    console.print(_legend())
    console.print(Text(entry.verdict, style=_VERDICTS[entry.verdict]), end="")
    console.print(Text(f"  {_verdict_sentence(entry)}"))
    if entry.verdict == "DoesNotFit":
        for remedy in remedies(question.profile, question.shape, question.device, question.version):
            console.print(Text(f"Would fit: {remedy.sentence}"))
    crossing = crossover(question.shape, entry)
    if crossing is not None:
        console.print(Text(crossing.sentence))
    for note in question.notes:
        console.print(Text(f"Note: {note}"))


def _headline(question: MemoryQuestion) -> Text:
    shape = question.shape
    return Text(
        f"{question.profile.source} on {shape.world_size}× {question.device.name}, "
        f"tp{shape.tensor_parallel_size} pp{shape.pipeline_parallel_size}, vLLM {question.version.version}"
    )


def _table(question: MemoryQuestion, entry: Ledger) -> Table:
    table = Table(title=f"Memory of {entry.rank}", title_justify="left")
    table.add_column("part")
    table.add_column("GiB", justify="right")
    table.add_column("how")
    for part, number_of_bytes, how in _rows(question, entry):
        table.add_row(part, f"{number_of_bytes / _GIB:.2f}", how)
    return table


def _rows(question: MemoryQuestion, entry: Ledger) -> Iterator[tuple[str, int, str]]:
    shape, band = question.shape, entry.kv_cache_band
    batch = f"{shape.max_num_batched_tokens:,} batched tokens, {shape.max_num_seqs:,} requests"
    graphs = "counted in the budget" if entry.cuda_graphs_counted else "outside the budget of this release"
    kv = f"{entry.kv_tokens:,} tokens of {entry.kv_bytes_per_token:,} B, {entry.max_concurrency:.2f} requests"
    spread = "" if band.low == band.high else f"; {band.low / _GIB:.2f} to {band.high / _GIB:.2f} GiB"
    yield "total", entry.total_bytes, question.device.name
    yield "budget", entry.budget_bytes, f"{shape.gpu_memory_utilization:g} of the total"
    yield "weights", entry.weights_allocated_bytes, f"{entry.weights_bytes:,} B of tensors"
    yield "KV cache", entry.kv_cache_bytes, f"{kv} of {shape.max_model_len:,}{spread}"
    yield "activations", entry.activation_bytes, batch
    yield "CUDA graphs", entry.cuda_graph_bytes, "none" if entry.cuda_graph_bytes == 0 else graphs
    yield "runner buffers", entry.persistent_bytes, "sampler state, block tables, allocator slack"
    yield "outside torch", entry.non_torch_bytes, "kernels, handles, communicators"
    yield "in use before", entry.in_use_before_bytes, "context, and communicators from 0.11 on"
    yield "free", entry.free_bytes, "not used by this server"


def _bars(question: MemoryQuestion, ledgers: Sequence[Ledger]) -> Iterator[Text]:
    number = 0
    for entry in ledgers:
        for _ in range(question.shape.tensor_parallel_size):
            yield Text.assemble(f"GPU {number:<3}", _bar(entry), f" {entry.used_bytes / _GIB:.1f} GiB")
            number += 1


def _bar(entry: Ledger) -> Text:
    other = entry.in_use_before_bytes + entry.non_torch_bytes + entry.persistent_bytes
    parts = {
        "weights": entry.weights_allocated_bytes,
        "KV cache": max(0, entry.kv_cache_bytes),
        "activations": entry.activation_bytes,
        "CUDA graphs": entry.cuda_graph_bytes,
        "other": other,
        "free": max(0, entry.free_bytes),
    }
    whole = sum(parts.values())
    bar, drawn, summed = Text(), 0, 0
    for part, number_of_bytes in parts.items():
        summed += number_of_bytes
        until = round(summed / whole * _BAR_WIDTH)
        mark, style = _MARKS[part]
        bar.append(mark * (until - drawn), style=style)
        drawn = until
    return bar


def _legend() -> Text:
    pieces = (Text.assemble((mark, style), f" {part}") for part, (mark, style) in _MARKS.items())
    return Text("       ") + Text("  ").join(pieces)


def _verdict_sentence(entry: Ledger) -> str:
    if entry.refusal is not None:
        return f"{entry.refusal.reason.value}: {entry.refusal.sentence}"
    longest = entry.safe_max_model_len or entry.largest_max_model_len
    if entry.caution is not None:
        return entry.caution
    return f"One request may be up to {longest:,} tokens long." if longest else "It fits."
