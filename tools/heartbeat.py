"""Says that a long step goes on: how long it takes so far and how much it has written to disk.

Why: nobody should wonder whether a command that runs for minutes is alive. On a terminal it is one line that
changes every second, elsewhere a plain line every ten seconds. Standard library only.
It must never print to stdout, which belongs to the command's result.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

_TERMINAL_SECONDS = 1.0
_PLAIN_SECONDS = 10.0


class Heartbeat:
    """Prints progress to stderr while its block runs; `folder` is on the disk that is watched."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        terminal = sys.stderr.isatty()
        started, free_bytes = time.monotonic(), shutil.disk_usage(self._folder).free
        while not self._done.wait(_TERMINAL_SECONDS if terminal else _PLAIN_SECONDS):
            written_bytes = max(0, free_bytes - shutil.disk_usage(self._folder).free)
            text = f"  … {time.monotonic() - started:.0f} s, {written_bytes / 1e9:.1f} GB written"
            print(
                f"\r{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True
            )
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
