"""Rows of words in aligned columns, as plain text: the same bytes in every terminal, for answers to be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_GAP = "  "


def columns(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> Iterator[str]:
    """Align rows of equal length, the last column as it is; columns whose number is in `right` end together."""
    if not rows:
        return
    last = len(rows[0]) - 1
    widths = [max(len(row[place]) for row in rows) for place in range(last)]
    for row in rows:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        yield _GAP.join([*cells, row[last]]).rstrip()
