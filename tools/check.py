"""Every static check in one command, each with its duration; goes on after a failure and names all at the end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_BIN = Path(sys.executable).parent

CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("format", (str(_BIN / "ruff"), "format", "--check", ".")),
    ("lint", (str(_BIN / "ruff"), "check", ".")),
    ("types", (str(_BIN / "mypy"),)),
    ("layers", (str(_BIN / "lint-imports"),)),
    ("generated CRD", (sys.executable, "-m", "tools.generate_crd", "--check")),
    ("generated docs", (sys.executable, "-m", "tools.generate_docs", "--check")),
    ("computed docs", (sys.executable, "-m", "tools.planning_pages", "--check")),
    ("house rules", (sys.executable, "-m", "tools.house_rules")),
)


def main() -> int:
    """Run all checks; 0 when every one passed."""
    failed = []
    for name, command in CHECKS:
        started = time.monotonic()
        result = subprocess.run(command, cwd=_ROOT, check=False, capture_output=True, text=True)
        seconds = time.monotonic() - started
        print(f"{'ok  ' if result.returncode == 0 else 'FAIL'} {name} ({seconds:.1f} s)", flush=True)
        if result.returncode != 0:
            failed.append(name)
            print(result.stdout + result.stderr, flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
