"""Shared behaviour of the generators: write files, or check that they are up to date.

`--check` writes nothing, prints a diff and ends with 1 when a file is not what the generator would write.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path


def run(outputs: Mapping[Path, Callable[[], str]], arguments: list[str] | None, *, description: str) -> int:
    """Write every output, or check it; `--output` replaces the path where there is only one output."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; print a diff and end with 1")
    parser.add_argument("--output", type=Path, help="write here instead of into the repository")
    options = parser.parse_args(arguments)
    if options.output is not None and len(outputs) != 1:
        parser.error("--output needs a generator with one file")
    drifted = False
    for path, render in outputs.items():
        target = options.output or path
        text = render()
        if options.check:
            drifted |= _print_diff(target, text)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    return 1 if drifted else 0


def _print_diff(path: Path, wanted: str) -> bool:
    """Print how the file differs from what is wanted; True if it does."""
    present = path.read_text(encoding="utf-8") if path.exists() else ""
    if present == wanted:
        return False
    diff = difflib.unified_diff(
        present.splitlines(keepends=True),
        wanted.splitlines(keepends=True),
        fromfile=str(path),
        tofile=f"{path} (as generated)",
    )
    sys.stdout.writelines(diff)
    return True
