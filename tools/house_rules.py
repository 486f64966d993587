"""Rules of this repository that no linter knows: file lengths, function lengths, names that must not appear.

A module that shadows the standard library's `operator`, a registry host in a lock file or a path of somebody's
machine would break other people's checkouts; a file of a thousand lines would break their patience.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_SOURCES = ("operator/stowage", "runtime/stowage_runtime", "e2e", "tools")
MAX_FILE_LINES = 500
MEDIAN_FILE_LINES = 180
P90_FUNCTION_LINES = 35
_REGISTRIES = re.compile(r"pypi\.org|pythonhosted|proxy\.golang|registry\.npmjs|crates\.io|download\.pytorch")
_MACHINE_PATHS = re.compile(r"/home/[a-z]|/root/|/Users/")


def tracked_files() -> list[Path]:
    """Files that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout
    return [_ROOT / line for line in listing.splitlines() if (_ROOT / line).is_file()]


def _function_lengths(tree: ast.AST) -> list[int]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]


def _size_problems(files: list[Path]) -> list[str]:
    sources = [
        path for path in files if path.suffix == ".py" and str(path.relative_to(_ROOT)).startswith(_SOURCES)
    ]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    problems = [
        f"{path.relative_to(_ROOT)}: {count} lines, the limit is {MAX_FILE_LINES}; split it by noun"
        for path, count in lines.items()
        if count > MAX_FILE_LINES
    ]
    median = statistics.median(lines.values())
    if median > MEDIAN_FILE_LINES:
        problems.append(f"the median file has {median} lines, the limit is {MEDIAN_FILE_LINES}")
    lengths = sorted(
        length
        for path in sources
        for length in _function_lengths(ast.parse(path.read_text(encoding="utf-8")))
    )
    p90 = lengths[int(0.9 * len(lengths))]
    if p90 > P90_FUNCTION_LINES:
        problems.append(
            f"the 90th percentile of functions has {p90} lines, the limit is {P90_FUNCTION_LINES}"
        )
    return problems


def _text_problems(files: list[Path]) -> list[str]:
    problems = []
    for path in files:
        if path == Path(__file__).resolve() or path.suffix in {".png", ".svg", ".sum"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        patterns = [(_REGISTRIES, "a registry host")]
        if "tests" not in path.parts:  # where paths are examples
            patterns.append((_MACHINE_PATHS, "a path of one machine"))
        for pattern, what in patterns:
            if match := pattern.search(text):
                line = text.count("\n", 0, match.start()) + 1
                problems.append(f"{path.relative_to(_ROOT)}:{line}: names {what} ({match.group()})")
    return problems


def main() -> int:
    """Print every problem; 0 when there is none."""
    files = tracked_files()
    problems = _size_problems(files) + _text_problems(files)
    if (_ROOT / "operator" / "__init__.py").exists():
        problems.append("operator/__init__.py exists: it would shadow the standard library's operator module")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
