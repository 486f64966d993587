"""One long-running program of the stack: started inside the cluster's network, watched, ended by pid.

Its output goes to a log file. It must never outlive its stack unless it was started detached.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.controlplane.namespace import Namespace
from e2e.controlplane.processes import Process, launcher, spawn

_POLL_SECONDS = 0.1


class ServiceFailed(Exception):
    """The program ended, or was not ready in time; the message holds the end of its log."""


@dataclass(slots=True)
class Service:
    """A program with a name, a command, extra environment and a log."""

    name: str
    command: Sequence[str]
    variables: Mapping[str, str]
    log: Path
    process: Process | None = None

    def start(self, namespace: Namespace, *, detached: bool) -> None:
        """Start it as the leader of a session; unless `detached` it is killed with the calling thread."""
        parent = None if detached else os.getpid()
        words = [*launcher(holder=namespace.gateway, session=True, parent=parent), *self.command]
        self.process = spawn(words, self.log, {**os.environ, **self.variables})

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.is_running()

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait for `ready`; raises `ServiceFailed` with the end of the log if it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.is_running:
                raise ServiceFailed(f"{self.name} ended; its log ends:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    f"{self.name} was not ready after {seconds:.0f} s; its log ends:\n{self.tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def wrote(self, text: str) -> bool:
        """Whether its log has that text."""
        return self.log.exists() and text in self.log.read_text(errors="replace")

    def stop(self, grace_seconds: float = 10.0) -> None:
        """End it with SIGTERM, then SIGKILL."""
        if self.process is not None:
            self.process.stop(grace_seconds=grace_seconds)
            self.process = None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.stop(grace_seconds=0.0)

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
