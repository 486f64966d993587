"""The log files of a pod's containers, and the tail of one for termination messages. One file per run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

# Limits of the Kubernetes documentation, "Determine the Reason for Pod Failure".
_MESSAGE_BYTES = 4096
_FALLBACK_BYTES, _FALLBACK_LINES = 2048, 80
_POLL_SECONDS = 0.2


class ContainerLogs:
    """The logs of one container; run `n` is the one after `n` restarts."""

    def __init__(self, pod_directory: Path, name: str) -> None:
        self._directory = pod_directory / "logs" / name

    def file(self, run: int) -> Path:
        """Return the file of a run, with its directory made; only the previous run's is kept besides."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / f"{run - 2}.log").unlink(missing_ok=True)
        return self._directory / f"{run}.log"

    def path(self, run: int) -> Path:
        """Return where the log of a run is, if there is one."""
        return self._directory / f"{run}.log"


def termination_message(file: Path, policy: str, log: Path, exit_code: int) -> str:
    """Return what a container wrote about its end; or its last log lines, if the policy says so."""
    text = file.read_bytes()[:_MESSAGE_BYTES] if file.exists() else b""
    if not text and policy == "FallbackToLogsOnError" and exit_code != 0 and log.exists():
        lines = log.read_bytes().splitlines(keepends=True)[-_FALLBACK_LINES:]
        text = b"".join(lines)[-_FALLBACK_BYTES:]
    return text.decode(errors="replace")


def tail_offset(file: Path, lines: int) -> int:
    """Return where the last `lines` lines of a file begin."""
    content = file.read_bytes()
    kept = content.splitlines(keepends=True)[-lines:] if lines else []
    return len(content) - sum(map(len, kept))


async def follow(file: Path, offset: int, alive: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield what the file holds from `offset` on, and what is added while `alive()` says so."""
    with file.open("rb") as log:
        log.seek(offset)
        while True:
            more = alive()
            if chunk := log.read(65536):
                yield chunk
            elif not more:
                return
            else:
                await asyncio.sleep(_POLL_SECONDS)
