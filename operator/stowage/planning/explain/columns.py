"""Rows of words in aligned columns, as plain text: the same bytes in every terminal, for answers to be compared.

Where a width is given, lines keep within it: columns of words are wrapped in their places, the widest first, or, where
that would make them thin, the last column goes below its row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Final

_GAP: Final = 2
_INDENT: Final = "      "
_LEAST: Final = 16
"""A column of words is not made narrower than this,"""

_LEAST_SHARE: Final = 0.4
"""nor, to stay beside the others, than this share of what it would take."""


def columns(
    rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset(), width: int | None = None
) -> Iterator[str]:
    """Align rows of equal length; columns whose number is in `right` end together."""
    if not rows:
        return
    natural = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = [place for place in range(len(natural)) if place not in right]
    limit = sum(natural) + _GAP * len(natural) if width is None else width
    widths = _within(natural, words, limit, _LEAST_SHARE)
    below = _length(widths) > limit and words[-1] == len(natural) - 1
    beside, gap = natural[:-1] if below else natural, _GAP
    if _length(widths) > limit:
        widths = _within(beside, words[:-1] if below else words, limit, 0)
    if _length(widths) > limit:
        gap = 1
        widths = _within(beside, words[:-1] if below else words, limit + len(beside) - 1, 0)
    for row in rows:
        yield from _aligned(row[:-1] if below else row, widths, right, " " * gap)
        if below and row[-1]:
            yield from _wrapped(row[-1], limit, _INDENT)


def _length(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _within(natural: Sequence[int], words: Sequence[int], limit: int, least_share: float) -> list[int]:
    """Narrow columns of words, the widest first, until all keep within a line or none can be narrowed."""
    widths = list(natural)
    least = {place: max(_LEAST, int(least_share * natural[place])) for place in words}
    while _length(widths) > limit:
        wide = [place for place in words if widths[place] > least[place]]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _aligned(row: Sequence[str], widths: Sequence[int], right: frozenset[int], gap: str) -> Iterator[str]:
    cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    for pieces in zip_longest(*cells, fillvalue=""):
        padded = [
            piece.rjust(width) if place in right else piece.ljust(width)
            for place, (piece, width) in enumerate(zip(pieces, widths, strict=True))
        ]
        yield gap.join(padded).rstrip()


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Wrap words that are too long for a line; only names that are longer than a line are cut, at a hyphen if any."""
    if len(indent + text) <= width:
        return [indent + text]
    cut = max(map(len, text.split())) > width - len(indent)
    return wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=cut) or [""]
