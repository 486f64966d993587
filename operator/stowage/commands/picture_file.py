"""`--picture FILE`: where a picture goes, and as what: an SVG, or an HTML page that holds it.

The path is looked at before anything is computed, so that a mistake in it costs no time.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

from stowage.commands.bad_input import bad_input

_PAGES: Final = frozenset({".html", ".htm"})


def picture_path(path: Path | None) -> Path | None:
    """Give the path back; ends the command where no picture can be written there."""
    if path is None:
        return None
    if path.suffix.lower() not in {".svg", *_PAGES}:
        bad_input(f"--picture {path}: pictures are SVG or HTML; let the name end with .svg or .html.")
    if not path.parent.is_dir():
        bad_input(f"--picture {path}: there is no folder {path.parent}; give a file that can be written.")
    return path


def write_picture(path: Path, title: str, drawing: str) -> None:
    """Write a drawing in the form that the path's ending asks for; ends the command where that fails."""
    text = _page(title, drawing) if path.suffix.lower() in _PAGES else drawing
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        bad_input(f"--picture {path}: {problem.strerror or problem}; give a file that can be written.")


def _page(title: str, drawing: str) -> str:
    head = (
        f'<meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n'
        f'<body style="margin: 0">\n{drawing}</body>\n</html>\n'
    )
