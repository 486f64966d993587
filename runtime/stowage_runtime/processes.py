"""Child processes of a container's first process: starting, waiting, ending, and collecting orphans.

As PID 1 the agent inherits every process that loses its parent. Nothing that was started here may outlive it:
children get a session of their own that can be ended as a whole, and a signal of their own if the agent
itself dies. Waiting never blocks signals: whoever waits does it in ``pause`` on the main thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from stowage_runtime.failures import EngineEnded, StopRequested

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.2

T = TypeVar("T")


def own_command(*arguments: str) -> list[str]:
    """Return the command that runs the agent's own command line again: as a zipapp, or as the package."""
    if os.path.isfile(sys.argv[0]) and sys.argv[0].endswith(".pyz"):
        return [sys.executable, sys.argv[0], *arguments]
    return [sys.executable, "-m", "stowage_runtime", *arguments]


def die_with_parent(parent: int) -> None:
    """Ask the kernel to send SIGTERM to this process when its parent ends; survives exec."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


class Processes:
    """All children of the agent; only the main thread may use it."""

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._engine: subprocess.Popen[bytes] | None = None
        self._stop = False
        self._stop_raises = True
        self._heartbeat = time.monotonic()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)

    def install(self) -> None:
        """Take over signals and orphans of this process."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        # Without a handler of its own SIGCHLD would not wake up a pause.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def close(self) -> None:
        """End all children and give back what was opened; for a process that lives on."""
        for child in list(self._children.values()):
            self.kill(child)
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stop = True

    @property
    def heartbeat_age_seconds(self) -> float:
        """Seconds since the main thread last came by; safe to read from another thread."""
        return time.monotonic() - self._heartbeat

    def ignore_stop(self) -> None:
        """From now on a stop signal changes nothing, since stopping has begun."""
        self._stop_raises = False

    def heed_stop(self) -> None:
        """Let a stop signal interrupt again, also one that came meanwhile."""
        self._stop_raises = True

    def watch(self, engine: subprocess.Popen[bytes] | None) -> None:
        """Let every pause raise EngineEnded once this child has ended."""
        self._engine = engine

    def pause(self, seconds: float) -> None:
        """Wait, but wake up for signals and ended children; raises StopRequested and EngineEnded."""
        self._check()
        readable, _, _ = select.select([self._wake_reader], [], [], max(0.0, seconds))
        if readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_reader, 4096)
        self._heartbeat = time.monotonic()
        self._collect_orphans()
        self._check()

    def _check(self) -> None:
        if self._stop and self._stop_raises:
            raise StopRequested
        if self._engine is not None and self._engine.poll() is not None:
            raise EngineEnded(self._engine.returncode)

    def spawn(self, command: Sequence[str], env: Mapping[str, str], **pipes: Any) -> subprocess.Popen[bytes]:
        """Start a child in a session of its own that ends when the agent does."""
        guarded = own_command("_exec", "--parent", str(os.getpid()), "--", *command)
        child = subprocess.Popen(
            guarded, env=dict(env), stdin=subprocess.DEVNULL, start_new_session=True, **pipes
        )
        self._children[child.pid] = child
        return child

    def run(self, command: Sequence[str], env: Mapping[str, str], timeout_seconds: float) -> tuple[int, str]:
        """Run a short command to its end; returns exit code and output, 124 when it took too long."""
        deadline = time.monotonic() + timeout_seconds
        with tempfile.TemporaryFile() as output:
            child = self.spawn(command, env, stdout=output, stderr=subprocess.STDOUT)
            try:
                while child.poll() is None and time.monotonic() < deadline:
                    self.pause(min(_POLL_SECONDS, deadline - time.monotonic()))
                code = child.returncode if child.poll() is not None else 124
            finally:
                self.kill(child)
            output.seek(0)
            return code, output.read().decode(errors="replace")

    def call(self, function: Callable[[], T]) -> T:
        """Run something that blocks on a thread, and pause until it is done; its exceptions come through."""
        outcome: list[tuple[bool, object]] = []

        def work() -> None:
            try:
                outcome.append((True, function()))
            except BaseException as error:  # handed over to the caller
                outcome.append((False, error))
            with contextlib.suppress(OSError):
                os.write(self._wake_writer, b"\0")

        threading.Thread(target=work, daemon=True).start()
        while not outcome:
            self.pause(1.0)
        succeeded, value = outcome[0]
        if not succeeded:
            raise cast(BaseException, value)
        return cast(T, value)

    def terminate(self, child: subprocess.Popen[bytes], grace_seconds: float) -> bool:
        """Send SIGTERM to a child, wait, end its whole session; True when the child went by itself."""
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        while child.poll() is None and time.monotonic() < deadline:
            self.pause(min(_POLL_SECONDS, deadline - time.monotonic()))
        gone = child.poll() is not None
        self.kill(child)
        return gone

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """End a child and everything in its session at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_KILL_GRACE_SECONDS)
        self._children.pop(child.pid, None)

    def end_all(self) -> None:
        """End every child, known or inherited."""
        for child in list(self._children.values()):
            self.kill(child)
        deadline = time.monotonic() + _KILL_GRACE_SECONDS
        while (left := _children_of_this_process()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                _wait_for(pid)
            time.sleep(0.01)

    def _collect_orphans(self) -> None:
        for pid in _children_of_this_process():
            if pid not in self._children:
                _wait_for(pid)


def _wait_for(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _children_of_this_process() -> list[int]:
    """Read the process ids of all children, also inherited ones; none where they are not listed."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as listing:
                found.extend(int(pid) for pid in listing.read().split())
    return found
