"""The folder outside the checkout where this project keeps what it downloads and builds, and locks on it.

Why: environments, `uv` and built tools must outlive the checkout, be shared by several checkouts and be safe
when two `make` runs start at once. Standard library only.
It must never keep anything that cannot be made again.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def root() -> Path:
    """`$XDG_CACHE_HOME/stowage`, by default `~/.cache/stowage`; made by whoever writes into it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    folder = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return folder / "stowage"


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the exclusive lock of `target` (a file beside it); says so on stderr if somebody else holds it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that is making {target} …", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
