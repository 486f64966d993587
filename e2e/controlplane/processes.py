"""Start, name and end processes so that none is left behind and no stranger is ever hit.

A process is named by pid, start time and boot, because a pid alone is soon given to somebody else. Signals
go through a pidfd that was checked against that name. Nothing here may signal a pid whose start time
differs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.controlplane.enter import start_ticks

_POLL_SECONDS = 0.02
ENTER = str(Path(__file__).with_name("enter.py"))


def boot_id() -> str:
    """Return the kernel's identity of this boot: start times are counted from it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Process:
    """One process of one boot: `pid`, `started_ticks` (clock ticks since boot) and the boot's id."""

    pid: int
    started_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Name the process that has this pid now; None where there is none."""
        ticks = start_ticks(pid)
        return cls(pid, ticks, boot_id()) if ticks else None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Process:
        """Read what `to_record` wrote."""
        return cls(int(record["pid"]), int(record["started_ticks"]), str(record["boot"]))

    def to_record(self) -> dict[str, Any]:
        """Return the name as JSON values."""
        return {"pid": self.pid, "started_ticks": self.started_ticks, "boot": self.boot}

    def is_running(self) -> bool:
        """Tell whether exactly this process still runs; a zombie does not (our own child is reaped)."""
        if start_ticks(self.pid) != self.started_ticks or boot_id() != self.boot:
            return False
        if _state(self.pid) not in "ZX":
            return True
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return False

    def signal(self, number: int) -> bool:
        """Send a signal to exactly this process; False where it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.is_running():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def wait_gone(self, seconds: float) -> bool:
        """Wait until it has ended, at most `seconds`; False where it still runs."""
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def stop(self, grace_seconds: float) -> None:
        """Ask it to end, then make it: SIGTERM, and SIGKILL after the grace."""
        if self.signal(signal.SIGTERM) and not self.wait_gone(grace_seconds):
            self.signal(signal.SIGKILL)
            self.wait_gone(5.0)


def spawn(
    command: Sequence[str], log: Path, environment: Mapping[str, str], *, stdout: int | None = None
) -> Process:
    """Start a command with its output appended to `log` (stdout to a descriptor if given), and name it."""
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 2 if stdout is None else stdout, 1),
    ]
    pid = os.posix_spawn(command[0], list(command), dict(environment), file_actions=actions)
    process = Process.of(pid)  # our child stays in the table, if as a zombie, until it is waited for
    if process is None:
        raise ProcessLookupError(f"{command[0]} ended at once; see {log}")
    return process


def launcher(*, holder: Process | None, session: bool, parent: int | None) -> list[str]:
    """Return the words before a command that start it inside `holder`'s namespaces (see `enter`)."""
    words = [sys.executable, "-I", "-S", ENTER]
    if holder is not None:
        words += ["--holder", f"{holder.pid}:{holder.started_ticks}"]
    if session:
        words += ["--session"]
    if parent is not None:
        words += ["--parent", str(parent)]
    return [*words, "--"]


def stop_all(processes: Iterable[Process], grace_seconds: float) -> None:
    """End several processes at once: SIGTERM to all, one common grace, SIGKILL to the rest."""
    running = [process for process in processes if process.signal(signal.SIGTERM)]
    deadline = time.monotonic() + grace_seconds
    for process in running:
        if not process.wait_gone(max(0.0, deadline - time.monotonic())):
            process.signal(signal.SIGKILL)
    for process in running:
        process.wait_gone(5.0)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except (OSError, IndexError):
        return "X"
