"""A bar for each GPU of a replica in the terminal, to scale with the memory of the device.

Told apart by pattern as well as by colour, so that a pasted or printed bar is still read. Where more is needed than a
GPU has, a line marks its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from stowage.commands.memory.parts import memory_parts
from stowage.memory.ledger import Ledger
from stowage.memory.shape import EngineShape

_GIB: Final = 2**30
_BAR_WIDTH: Final = 48
_MOST_BARS: Final = 8
_MARKS: Final = {
    "weights": ("█", "blue"),
    "KV cache": ("▓", "green"),
    "activations": ("▒", "yellow"),
    "CUDA graphs": ("▚", "magenta"),
    "other": ("░", "red"),
    "free": ("·", "bright_black"),
}
_END: Final = ("|", "bold")


def ranks(shape: EngineShape, ledgers: Sequence[Ledger]) -> Iterator[tuple[str, Ledger]]:
    """Number the GPUs of one data-parallel rank; those of a stage are alike and are taken together where many."""
    per_stage = shape.tensor_parallel_size
    together = per_stage > 1 and per_stage * len(ledgers) > _MOST_BARS
    for stage, entry in enumerate(ledgers):
        first = stage * per_stage
        if together:
            yield f"{first}-{first + per_stage - 1}", entry
        else:
            yield from ((str(first + rank), entry) for rank in range(per_stage))


def bars(shape: EngineShape, ledgers: Sequence[Ledger]) -> Iterator[Text]:
    """Draw the ranks of a replica, and name the patterns."""
    rows = [(f"GPU {name}", entry) for name, entry in ranks(shape, ledgers)]
    width = max(len(name) for name, _ in rows) + 1
    for name, entry in rows:
        used, total = entry.used_bytes / _GIB, entry.total_bytes / _GIB
        yield Text.assemble(name.ljust(width), _bar(entry), f" {used:.1f} of {total:.1f} GiB")
    yield Text(" " * width) + _legend(ledgers)
    if shape.data_parallel_size > 1:
        yield Text(f"The same on each of {shape.data_parallel_size} data-parallel ranks.")


def _legend(ledgers: Sequence[Ledger]) -> Text:
    marks = {part: mark for part, mark in _MARKS.items() if any(memory_parts(each)[part] for each in ledgers)}
    if any(entry.free_bytes < 0 for entry in ledgers):
        marks["end of the GPU"] = _END
    return Text("  ").join(Text.assemble(mark, f" {part}") for part, mark in marks.items())


def _bar(entry: Ledger) -> Text:
    parts = memory_parts(entry)
    whole = sum(parts.values())
    bar, drawn, summed = Text(), 0, 0
    for part, number_of_bytes in parts.items():
        summed += number_of_bytes
        until = round(summed / whole * _BAR_WIDTH)
        mark, style = _MARKS[part]
        bar.append(mark * (until - drawn), style=style)
        drawn = until
    if entry.free_bytes >= 0:
        return bar
    end = round(entry.total_bytes / whole * _BAR_WIDTH)
    return bar[:end] + Text(*_END) + bar[end + 1 :]
