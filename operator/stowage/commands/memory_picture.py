"""`--picture`: the ledger as an SVG, one bar for each GPU, readable in any browser and in a pull request.

Bars are drawn to scale with the device's memory; parts too thin for a label are named in the legend only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

from stowage.commands.memory_question import MemoryQuestion
from stowage.memory.budget import tightest
from stowage.memory.ledger import Ledger

_GIB: Final = 2**30
_WIDTH: Final = 960
_LEFT: Final = 90
_BAR_WIDTH: Final = 760
_BAR_HEIGHT: Final = 34
_ROW_HEIGHT: Final = 46
_TOP: Final = 84
_COLOURS: Final = {
    "weights": "#3b6fb6",
    "KV cache": "#3f9b5f",
    "activations": "#e0a030",
    "CUDA graphs": "#9b59b6",
    "other": "#c0504d",
    "free": "#e6e6e6",
}
_LABEL_FROM_PIXELS: Final = 70
_LEGEND_STEP: Final = 146


def write_picture(path: Path, question: MemoryQuestion, ledgers: Sequence[Ledger]) -> None:
    """Write the picture; raises OSError where the file cannot be written."""
    path.write_text(picture(question, ledgers), encoding="utf-8")


def picture(question: MemoryQuestion, ledgers: Sequence[Ledger]) -> str:
    """Draw all ranks of one replica."""
    ranks = [entry for entry in ledgers for _ in range(question.shape.tensor_parallel_size)]
    height = _TOP + _ROW_HEIGHT * len(ranks) + 70
    worst = tightest(ledgers)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(20, 30, _title(question), size=17, weight="600"),
        _text(20, 54, _subtitle(worst), colour="#444444"),
    ]
    for number, entry in enumerate(ranks):
        lines += _bar(number, entry)
    lines += _legend(_TOP + _ROW_HEIGHT * len(ranks) + 24)
    return "\n".join((*lines, "</svg>", ""))


def _title(question: MemoryQuestion) -> str:
    shape = question.shape
    return (
        f"{question.profile.source} on {shape.world_size}× {question.device.name}, "
        f"tp{shape.tensor_parallel_size} pp{shape.pipeline_parallel_size}, vLLM {question.version.version}"
    )


def _subtitle(worst: Ledger) -> str:
    band = worst.kv_cache_band
    spread = "" if band.low == band.high else f" ({band.low / _GIB:.1f} to {band.high / _GIB:.1f} GiB)"
    return (
        f"{worst.verdict}: {worst.kv_tokens:,} KV tokens in {worst.kv_cache_bytes / _GIB:.1f} GiB{spread}, "
        f"{worst.max_concurrency:.1f} requests at once"
    )


def _bar(number: int, entry: Ledger) -> Iterator[str]:
    top = _TOP + _ROW_HEIGHT * number
    yield _text(20, top + 22, f"GPU {number}")
    parts = _parts(entry)
    whole = max(sum(parts.values()), entry.total_bytes)
    left = float(_LEFT)
    for part, number_of_bytes in parts.items():
        width = number_of_bytes / whole * _BAR_WIDTH
        tip = escape(f"{part}: {number_of_bytes / _GIB:.2f} GiB")
        yield (
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_BAR_HEIGHT}" '
            f'fill="{_COLOURS[part]}"><title>{tip}</title></rect>'
        )
        if width >= _LABEL_FROM_PIXELS:
            colour = "#333333" if part == "free" else "#ffffff"
            yield _text(left + 6, top + 22, f"{number_of_bytes / _GIB:.1f} GiB", colour=colour)
        left += width
    limit = _LEFT + entry.total_bytes / whole * _BAR_WIDTH
    yield f'<line x1="{limit:.1f}" y1="{top - 4}" x2="{limit:.1f}" y2="{top + _BAR_HEIGHT + 4}" stroke="#222222"/>'
    yield _text(limit + 6, top + 22, f"{entry.total_bytes / _GIB:.1f} GiB")


def _parts(entry: Ledger) -> dict[str, int]:
    return {
        "weights": entry.weights_allocated_bytes,
        "KV cache": max(0, entry.kv_cache_bytes),
        "activations": entry.activation_bytes,
        "CUDA graphs": entry.cuda_graph_bytes,
        "other": entry.in_use_before_bytes + entry.non_torch_bytes + entry.persistent_bytes,
        "free": max(0, entry.free_bytes),
    }


def _legend(top: int) -> Iterator[str]:
    for position, (part, colour) in enumerate(_COLOURS.items()):
        left = _LEFT + position * _LEGEND_STEP
        yield f'<rect x="{left}" y="{top}" width="14" height="14" fill="{colour}"/>'
        yield _text(left + 20, top + 12, part)


def _text(
    left: float, top: float, words: str, *, size: int = 13, weight: str = "400", colour: str = "#111111"
) -> str:
    return (
        f'<text x="{left:.1f}" y="{top}" font-size="{size}" font-weight="{weight}" fill="{colour}">'
        f"{escape(words)}</text>"
    )
