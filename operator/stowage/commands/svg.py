"""What pictures are drawn with: text, lines, stacked bars and legends as SVG, readable on light and on dark grounds.

Colours are those of Okabe and Ito, darkened where white text stands on them, so that people who see fewer colours
tell them apart; whatever a colour says is also written. Text is never measured: widths are estimated on the safe side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Final

WIDTH: Final = 960
MARGIN: Final = 20
LINE: Final = 20
"""From one line of text to the next, in pixels."""

BLUE, GREEN, ORANGE, PINK, RED, GREY = "#0072b2", "#007a5a", "#e69f00", "#cc79a7", "#b34700", "#d0d7de"
_DARK_TEXT: Final = frozenset({ORANGE, PINK, GREY})
_CHARACTER_PIXELS: Final = 7.8
_LABEL_MARGIN: Final = 12
_STYLE: Final = """<style>
svg { font: 13px system-ui, sans-serif }
.sheet { fill: #ffffff } .ink { fill: #1b1f24 } .muted { fill: #57606a }
.first { fill: #b34700 } .second { fill: #0072b2 }
.grid { stroke: #d8dee4 } .line { stroke: #1b1f24 } .edge { stroke: #57606a }
@media (prefers-color-scheme: dark) {
.sheet { fill: #0d1117 } .ink { fill: #e6edf3 } .muted { fill: #9ea7b3 }
.first { fill: #f0883e } .second { fill: #58b4f0 }
.grid { stroke: #30363d } .line { stroke: #e6edf3 } .edge { stroke: #9ea7b3 }
}
</style>
<defs><pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect width="3" height="7" fill="#ffffff" fill-opacity="0.55"/></pattern></defs>"""

Point = tuple[float, float]
"""Pixels from the left and from the top."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a stacked bar: its name, its share of the bar, what is written in it, and its colour."""

    name: str
    share: float
    label: str
    colour: str


def sheet(lines: Sequence[str], height: float) -> str:
    """Put elements on a sheet; the ground follows what the reader's system prefers."""
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    ground = f'<rect class="sheet" width="{WIDTH}" height="{height:.0f}"/>'
    return "\n".join(
        (f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', _STYLE, ground, *lines, "</svg>", "")
    )


def text(
    place: Point, words: str, look: str = "ink", *, anchor: str = "start", bold: bool = False, size: int = 13
) -> str:
    """Write a line; `look` is a class of the style sheet, or a colour."""
    colour = f'fill="{look}"' if look.startswith("#") else f'class="{look}"'
    weight = ' font-weight="600"' if bold else ""
    larger = f' font-size="{size}"' if size != 13 else ""
    ends = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return (
        f'<text x="{place[0]:.1f}" y="{place[1]:.1f}" {colour}{ends}{weight}{larger}>{escape(words)}</text>'
    )


def paragraph(sentences: Iterable[str], top: float) -> tuple[list[str], float]:
    """Write sentences from the margin on, each in as many lines as it takes; gives the elements and where they end."""
    lines: list[str] = []
    for sentence in sentences:
        for words in wrap(sentence, int((WIDTH - 2 * MARGIN) / _CHARACTER_PIXELS)):
            lines.append(text((MARGIN, top), words, "muted"))
            top += LINE
    return lines, top


def line(start: Point, end: Point, look: str, *, width: float = 1, dashed: bool = False) -> str:
    """Draw a straight line."""
    dashes = ' stroke-dasharray="4 4"' if dashed else ""
    return (
        f'<line class="{look}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke-width="{width:g}"{dashes}/>'
    )


def box(corner: Point, size: Point, fill: str, tip: str = "") -> str:
    """Draw a rectangle; `tip` is what a browser shows when it is pointed at."""
    place = f'x="{corner[0]:.1f}" y="{corner[1]:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}"'
    rectangle = f'<rect {place} fill="{fill}"'
    return f"{rectangle}><title>{escape(tip)}</title></rect>" if tip else f"{rectangle}/>"


def stack(parts: Sequence[Part], corner: Point, size: Point) -> Iterator[str]:
    """Draw parts of a whole beside each other; one that is too thin for its label goes without."""
    left = corner[0]
    for part in parts:
        width = part.share * size[0]
        yield box((left, corner[1]), (width, size[1]), part.colour, f"{part.name}: {part.label}")
        if width >= text_width(part.label) + _LABEL_MARGIN:
            look = "#1b1f24" if part.colour in _DARK_TEXT else "#ffffff"
            yield text((left + 6, corner[1] + size[1] / 2 + 5), part.label, look)
        left += width


def legend(entries: Mapping[str, str], left: float, top: float) -> tuple[list[str], float]:
    """Write names with their colours, in as many lines as they take; gives the elements and where they end."""
    lines: list[str] = []
    across = left
    for name, colour in entries.items():
        width = 20 + text_width(name) + 18
        if across > left and across + width > WIDTH:
            across, top = left, top + LINE + 2
        lines += [box((across, top), (14, 14), colour), text((across + 20, top + 12), name)]
        across += width
    return lines, top + LINE


def text_width(words: str) -> float:
    """Estimate how wide a line becomes, on the safe side of usual fonts."""
    return _CHARACTER_PIXELS * len(words)
