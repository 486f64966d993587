"""`--picture`: the ledger as an SVG, one bar for each GPU, readable in any browser and in a pull request.

Bars are drawn to scale with the device's memory; what goes beyond its end is hatched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from stowage.commands import svg
from stowage.commands.memory.bars import ranks
from stowage.commands.memory.parts import memory_parts
from stowage.commands.memory.question import MemoryQuestion
from stowage.memory.budget import tightest
from stowage.memory.ledger import Ledger
from stowage.memory.remedies import crossover

_GIB: Final = 2**30
_LEFT: Final = 100
_BAR: Final = (700, 34)
_ROW_HEIGHT: Final = 46

COLOURS: Final = {
    "weights": svg.BLUE,
    "KV cache": svg.GREEN,
    "activations": svg.ORANGE,
    "CUDA graphs": svg.PINK,
    "other": svg.RED,
    "free": svg.GREY,
}
"""Of the parts of a rank's memory, the same in every picture."""


def picture(question: MemoryQuestion, ledgers: Sequence[Ledger]) -> str:
    """Draw all ranks of one replica."""
    worst = tightest(ledgers)
    lines = [svg.text((svg.MARGIN, 34), question.title, bold=True, size=17)]
    said, top = svg.paragraph(_subtitles(question, worst), 60)
    lines += said
    top += 24
    if worst.free_bytes < 0:
        end = _LEFT + _BAR[0] * worst.total_bytes / sum(memory_parts(worst).values())
        lines.append(
            svg.text((end, top - 8), f"end of the GPU: {worst.total_bytes / _GIB:.1f} GiB", anchor="middle")
        )
    for name, entry in ranks(question.shape, ledgers):
        lines += _bar(f"GPU {name}", entry, top)
        top += _ROW_HEIGHT
    named, top = svg.legend(legend_of(worst), _LEFT, top + 10)
    return svg.sheet([*lines, *named], top + 20)


def memory_stack(entry: Ledger) -> list[svg.Part]:
    """Give the parts of a rank's memory as parts of a bar that is as long as all of them."""
    parts = memory_parts(entry)
    whole = max(1, sum(parts.values()))
    return [
        svg.Part(name, amount / whole, f"{amount / _GIB:.1f} GiB", COLOURS[name])
        for name, amount in parts.items()
    ]


def legend_of(entry: Ledger) -> dict[str, str]:
    """Name the parts with their sizes on one rank, so that those too thin for a label are read here."""
    return {
        f"{name} {amount / _GIB:.2f} GiB": COLOURS[name]
        for name, amount in memory_parts(entry).items()
        if amount
    }


def _subtitles(question: MemoryQuestion, worst: Ledger) -> Iterator[str]:
    if worst.refusal is not None:
        yield f"{worst.verdict}: {worst.refusal.message}"
    else:
        band = worst.kv_cache_band
        spread = "" if band.low == band.high else f" ({band.low / _GIB:.1f} to {band.high / _GIB:.1f})"
        room = f"{worst.kv_cache_bytes / _GIB:.1f} GiB{spread}"
        yield (
            f"{worst.verdict}: {worst.kv_tokens:,} tokens of KV cache in {room}; "
            f"{worst.max_concurrency:.1f} requests of {question.shape.max_model_len:,} tokens at once"
        )
    crossing = crossover(question.shape, worst)
    if crossing is not None:
        yield crossing.sentence


def _bar(name: str, entry: Ledger, top: float) -> Iterator[str]:
    yield svg.text((svg.MARGIN, top + 22), name)
    yield from svg.stack(memory_stack(entry), (_LEFT, top), _BAR)
    used, total = entry.used_bytes / _GIB, entry.total_bytes / _GIB
    yield svg.text((_LEFT + _BAR[0] + 10, top + 22), f"{used:.1f} of {total:.1f} GiB")
    if entry.free_bytes < 0:
        inside = _BAR[0] * total / used
        yield svg.box((_LEFT + inside, top), (_BAR[0] - inside, _BAR[1]), "url(#hatch)")
        yield svg.line((_LEFT + inside, top - 4), (_LEFT + inside, top + _BAR[1] + 4), "line", width=2)
