"""Carries a child's output line by line to the agent's own stdout, and shows it to those who read along.

Lines pass through unchanged, but for secrets and for those that its owner wants dropped. It must never lose
the end of the output: that is where the cause of a failure stands.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, BinaryIO

from stowage_runtime.redaction import Redactor

KEPT_LINES = 2000
_LONGEST_KEPT_LINE = 8192


class LinePump:
    """A thread that reads until the other side closes; without a sink the lines are only read.

    Lines for which ``drop`` says so are neither passed on nor shown to readers.
    """

    def __init__(
        self,
        source: IO[bytes],
        sink: BinaryIO | None,
        redact: Redactor,
        readers: Sequence[Callable[[str], None]],
        drop: Callable[[str], bool] | None = None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._redact = redact
        self._readers = readers
        self._drop = drop
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)
        self._thread = threading.Thread(target=self._run, name="line-pump", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def finish(self, timeout_seconds: float) -> None:
        """Wait for the end of the output; a forgotten grandchild may hold it open, so not for ever."""
        self._thread.join(timeout_seconds)

    def last_lines(self) -> list[str]:
        """Return the last KEPT_LINES lines."""
        return list(self._kept)

    def _run(self) -> None:
        # A read error means the same as the end: the other side is gone.
        with contextlib.suppress(OSError, ValueError), self._source:
            for raw in iter(self._source.readline, b""):
                self._take(raw)

    def _take(self, raw: bytes) -> None:
        decoded = raw.decode("utf-8", errors="surrogateescape")
        if self._drop is not None and self._drop(decoded):
            return
        clean = self._redact(decoded)
        if self._sink is not None:
            with contextlib.suppress(OSError, ValueError):
                self._sink.write(raw if clean == decoded else clean.encode("utf-8", errors="surrogateescape"))
                self._sink.flush()
        # Progress bars rewrite a line with carriage returns: what stands last is what was seen.
        line = clean.rstrip("\r\n").rsplit("\r", 1)[-1][:_LONGEST_KEPT_LINE]
        line = line.encode("utf-8", errors="replace").decode("utf-8", errors="replace")
        self._kept.append(line)
        for reader in self._readers:
            reader(line)


def piped(stream: IO[bytes] | None) -> IO[bytes]:
    """Return a child's pipe; raises ValueError where none was asked for."""
    if stream is None:
        raise ValueError("the child was started without a pipe")
    return stream
