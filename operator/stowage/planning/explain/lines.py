"""Titled rows and lists as lines of text that keep within a width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import Final

Row = tuple[str, str]
"""A title, empty where the line goes on, and what stands beside it."""

INDENT: Final = " " * 11
_UNLIMITED: Final = 10**6


def row(title: str, words: str) -> str:
    """Write a row as it is."""
    return f"{title:<10} {words}"


def wrapped_rows(rows: Iterable[Row], width: int | None) -> Iterator[str]:
    """Write rows, each in as many lines as it takes; `width` None: in one."""
    for title, words in rows:
        yield from _within(words, width, row(title, ""), INDENT)


def bullet(words: str, width: int | None, indent: str = "") -> list[str]:
    """Write an item of a list."""
    return _within(f"- {words}", width, indent, f"{indent}  ")


def _within(words: str, width: int | None, first: str, later: str) -> list[str]:
    return wrap(
        words,
        width or _UNLIMITED,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
